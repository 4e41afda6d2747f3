// Direction, search, filter, sort, and the way to the query that the address names.
// The page is complete without this script: it then shows every card.
"use strict";

(() => {
  const tools = document.querySelector(".tools");
  if (!tools) return;
  const part = (id) => document.getElementById(id);
  const sections = [...document.querySelectorAll(".cards")];
  const cardsOf = new Map(sections.map((s) => [s, [...s.querySelectorAll(".card")]]));
  const named = (name) => [...document.querySelectorAll(`input[name=${name}]`)];
  const [directions, levels] = [named("direction"), named("level")];
  const [search, sort, failures] = [part("search"), part("sort"), part("failures")];
  const [from, to] = [part("rank-from"), part("rank-to")];

  // ---- which cards are shown ----

  const plain = (text) => text.normalize("NFKC").toLowerCase();
  const wordsOf = new Map(); // filled by the first search: it takes a moment for many cards
  function words(card) {
    if (!wordsOf.has(card)) {
      const parts = [...card.querySelectorAll(".find, .find-id bdi")];
      wordsOf.set(card, plain(parts.map((part) => part.textContent).join("\n")));
    }
    return wordsOf.get(card);
  }

  function current() {
    const kind = directions.find((choice) => choice.checked)?.value;
    return sections.find((section) => section.dataset.kind === kind) ?? sections[0];
  }

  const isWithin = (card, first, last) =>
    card.dataset.place >= (Number(first) || 1) && card.dataset.place <= (Number(last) || Infinity);

  function filter() {
    const section = current();
    for (const other of sections) other.hidden = other !== section;
    const cards = cardsOf.get(section);
    const terms = plain(search.value).split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const fits =
        isWithin(card, from.value, to.value) &&
        !(failures.checked && isWithin(card, 1, 1)) &&
        terms.every((term) => words(card).includes(term));
      if (card.hidden === fits) card.hidden = !fits;
      shown += fits;
    }
    const all = `${cards.length} ${cards.length === 1 ? "query" : "queries"}`;
    part("count").textContent = shown === cards.length ? all : `${shown} of ${all}`;
    part("nothing").hidden = shown > 0;
  }

  function chooseDirection() {
    const cards = cardsOf.get(current());
    for (const level of levels) {
      const [first, last] = level.value.split("-");
      const fitting = cards.filter((card) => isWithin(card, first, last));
      level.parentElement.querySelector("small").textContent = `(${fitting.length})`;
    }
    filter();
  }

  // A choice of ranks fills in the range; a range of one's own leaves no choice, or the same one.
  function chooseLevel(event) {
    [from.value, to.value] = event.target.value.split("-");
    filter();
  }

  function chooseRange() {
    for (const level of levels) level.checked = level.value === `${from.value}-${to.value}`;
    filter();
  }

  // ---- their order ----

  const byId = new Intl.Collator(undefined, { numeric: true });
  const idOf = (card) => card.querySelector(".id").textContent;

  function reorder() {
    const [key, direction] = sort.value.split(" ");
    const sign = direction === "up" ? 1 : -1;
    const value = (card) => {
      const number = Number(card.dataset[key]);
      return Number.isNaN(number) ? Infinity : sign * number; // what has no number comes last
    };
    const byNumber = (a, b) => Math.sign(value(a) - value(b));
    const compare = key === "id" ? (a, b) => byId.compare(idOf(a), idOf(b)) : byNumber;
    const order = (card) => Number(card.dataset.order);
    for (const [section, cards] of cardsOf) {
      section.append(...cards.sort((a, b) => compare(a, b) || order(a) - order(b)));
    }
  }

  // ---- the query that the address names ----

  // Also for keyboard.js.
  globalThis.showCard = (card) => {
    document.querySelector(".card[aria-current]")?.removeAttribute("aria-current");
    card.setAttribute("aria-current", "true");
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });
  };

  function reveal() {
    const card = part(location.hash.slice(1));
    if (!card?.matches(".card")) return;
    const { kind } = card.parentElement.dataset;
    for (const choice of directions) choice.checked = choice.value === kind;
    chooseDirection();
    if (card.hidden) {
      search.value = from.value = to.value = "";
      failures.checked = false;
      chooseRange();
    }
    showCard(card);
  }

  search.addEventListener("input", filter);
  failures.addEventListener("change", filter);
  directions.forEach((choice) => choice.addEventListener("change", chooseDirection));
  levels.forEach((choice) => choice.addEventListener("change", chooseLevel));
  for (const end of [from, to]) end.addEventListener("input", chooseRange);
  sort.addEventListener("change", reorder);
  window.addEventListener("hashchange", reveal);

  tools.hidden = false;
  // What is scrolled to must not end up below the tools, which stay at the top of a wide window.
  new ResizeObserver(() => {
    const sticks = getComputedStyle(tools).position === "sticky";
    document.documentElement.style.scrollPaddingTop = sticks ? `${tools.offsetHeight + 8}px` : "";
  }).observe(tools);
  // A browser that reloads the page may have kept what was chosen.
  chooseDirection();
  chooseRange();
  if (sort.selectedIndex > 0) reorder();
  reveal();
})();
