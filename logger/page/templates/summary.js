// The list of this run's pages (written in pages.js), and charts folded away on a phone.
"use strict";

(() => {
  const pages = globalThis.rankingPages ?? [];
  const here = location.pathname.split("/").pop() || "index.html";
  const nav = document.getElementById("evaluations");
  const charts = document.querySelector(".charts");
  if (charts && window.matchMedia("(max-width: 45rem)").matches) charts.open = false;
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
    // The same query after another epoch.
    const keepQuery = () => (link.hash = location.hash);
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
