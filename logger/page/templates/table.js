// The table of runs: sorted, filtered, seeds folded, two chosen to be compared.
// Without this script all runs are there, the newest experiment first.
"use strict";

(() => {
  const tools = document.querySelector(".runs-tools");
  if (!tools) return;
  const table = document.querySelector("table.runs");
  const groups = [...table.tBodies];
  const [search, sort] = ["search", "sort"].map((id) => document.getElementById(id));
  const boxes = [...table.querySelectorAll("input[name=compare]")];
  const compare = document.getElementById("compare");
  const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);

  for (const group of groups) {
    const runs = [...group.querySelectorAll(".run")];
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `runs of ${group.dataset.name}`);
    const fold = (isOpen) => {
      runs.forEach((run) => (run.hidden = !isOpen));
      button.setAttribute("aria-expanded", isOpen);
      button.textContent = isOpen ? "−" : "+";
    };
    button.addEventListener("click", () => fold(runs[0].hidden));
    group.querySelector(".toggle").append(button);
    fold(runs.length === 1 || groups.length <= 5);
  }

  // A number as it stands in a cell, NaN for a dash.
  const numberOf = (group, column) =>
    parseFloat(group.rows[0].cells[column].textContent.replace("−", "-"));
  const isSmaller = (column) => /MedR|MeanR/.test(heads[column]);

  function order() {
    const by = sort.value;
    const place = (group) => Number(group.dataset.place);
    const compareGroups = {
      newest: (a, b) => b.dataset.newest.localeCompare(a.dataset.newest),
      name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true }),
    }[by];
    const column = Number(by) + 2;
    const value = (group) => {
      const number = numberOf(group, column);
      return Number.isNaN(number) ? Infinity : isSmaller(column) ? number : -number;
    };
    const better = (a, b) => (value(a) === value(b) ? 0 : value(a) - value(b));
    groups.sort((a, b) => (compareGroups ?? better)(a, b) || place(a) - place(b));
    table.append(...groups);
    table.tHead.querySelectorAll("th").forEach((head, at) => {
      const sorted = { newest: heads.length - 2, name: 0 }[by] ?? column;
      if (at !== sorted) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", by === "name" || isSmaller(at) ? "ascending" : "descending");
    });
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const group of groups) {
      const name = group.rows[0].cells[0].textContent.toLowerCase();
      group.hidden = !words.every((word) => name.includes(word));
    }
    document.getElementById("nothing").hidden = groups.some((group) => !group.hidden);
  }

  function spell() {
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    compare.href = `compare.html?${new URLSearchParams({ a: chosen[0] ?? "", b: chosen[1] ?? "" })}`;
    boxes.forEach((box) => (box.disabled = chosen.length === 2 && !box.checked));
    document.getElementById("chosen").textContent = chosen.length ? `${chosen.length} of 2 chosen` : "";
    const state = { sort: sort.value === "newest" ? "" : sort.value, find: search.value.trim() };
    const set = Object.entries(state).filter(([, value]) => value);
    history.replaceState(null, "", set.length ? `?${new URLSearchParams(set)}` : location.pathname);
  }

  // The head of a column sorts by it, too.
  [...table.tHead.rows[0].cells].forEach((cell, at) => {
    const value = { 0: "name", [heads.length - 2]: "newest" }[at] ?? `${at - 2}`;
    if (![...sort.options].some((option) => option.value === value)) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "head";
    button.textContent = cell.textContent;
    button.addEventListener("click", () => {
      sort.value = value;
      order();
      spell();
    });
    cell.replaceChildren(button);
  });

  const given = new URLSearchParams(location.search);
  if ([...sort.options].some(({ value }) => value === given.get("sort"))) sort.value = given.get("sort");
  search.value = given.get("find") ?? "";
  sort.addEventListener("change", () => (order(), spell()));
  search.addEventListener("input", () => (filter(), spell()));
  boxes.forEach((box) => {
    box.hidden = false;
    box.addEventListener("change", spell);
  });
  compare.hidden = boxes.length < 2;
  tools.hidden = false;
  order();
  filter();
  spell();
})();
