// What else there is: the other pages of this run (written in pages.js), all runs, a search.
"use strict";

(() => {
  const elsewhere = document.getElementById("elsewhere");
  // Set where runs or a search are served beside this page.
  for (const [address, text] of [
    [globalThis.runsPage, "All runs"],
    [globalThis.searchPage, "Search"],
  ]) {
    if (!address) continue;
    const link = document.createElement("a");
    link.href = address;
    link.textContent = text;
    elsewhere.append(link);
    elsewhere.hidden = false;
  }

  const pages = globalThis.rankingPages ?? [];
  const here = location.pathname.split("/").pop() || "index.html";
  const nav = document.getElementById("evaluations");
  if (pages.length < 2) return;

  const list = document.createElement("ol");
  for (const { file, name, figures } of pages) {
    const link = document.createElement("a");
    const address = encodeURIComponent(file);
    link.href = address;
    link.append(name);
    if (figures) {
      const small = document.createElement("small");
      small.textContent = figures;
      link.append(" ", small);
    }
    if (address === here) link.setAttribute("aria-current", "page");
    // The same queries after another epoch.
    const keepQuery = () => (link.href = address + location.search + location.hash);
    link.addEventListener("click", keepQuery);
    const item = document.createElement("li");
    item.append(link);
    list.append(item);
  }
  nav.append(list);
  nav.hidden = false;
  const current = list.querySelector("[aria-current]");
  if (current) list.scrollLeft = current.offsetLeft - list.clientWidth / 2;
})();
