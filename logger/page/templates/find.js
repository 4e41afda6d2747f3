// Shows the queries that the filters choose, in their order, and the one that the address names.
// The page is complete without this script: it then shows every card that it has.
"use strict";

(() => {
  const tools = document.querySelector(".tools");
  if (!tools) return;
  const AT_ONCE = 40; // cards that are made together
  const main = document.querySelector("main");
  const folder = main.dataset.every?.split("/")[1];
  const part = (id) => document.getElementById(id);
  const sections = [...document.querySelectorAll(".cards")];
  const titleOf = new Map(sections.map((s) => [s, s.querySelector("h2").textContent]));
  const named = (name) => [...document.querySelectorAll(`input[name=${name}]`)];
  const [directions, levels] = [named("direction"), named("level")];
  const [search, sort] = [part("search"), part("sort")];
  const [from, to] = [part("rank-from"), part("rank-to")];
  const further = part("further");

  function made(name, attributes, text = "") {
    const element = document.createElement(name);
    Object.assign(element, attributes);
    element.textContent = text;
    return element;
  }
  const count = made("output", { id: "count" });
  const scopeButton = made("button", { type: "button", id: "scope" });
  const clear = made("button", { type: "button", id: "clear" }, "Clear");
  const earlier = made("button", { type: "button", id: "earlier" }, "Show earlier ones");

  // ---- the queries: at first those whose cards are on the page, then all ----

  const lazy = (make) => {
    let value;
    return () => (value ??= filters.plain(make()));
  };

  function ofCard(kind, card) {
    const { order, rank, similarity, id } = card.dataset;
    const words = lazy(() =>
      [...card.querySelectorAll(".find, .find-id .is-true bdi")].map((p) => p.textContent).join("\n")
    );
    const numbers = { number: Number(order), rank: Number(rank), similarity: Number(similarity) };
    return { kind, card, id, words, ...numbers, place: placeOf(Number(rank)) };
  }

  const sampled = Object.fromEntries(
    sections.map((section) => {
      const { kind } = section.dataset;
      return [kind, [...section.querySelectorAll(".card")].map((card) => ofCard(kind, card))];
    })
  );
  let every = null; // kind -> all of it, once they are loaded

  function ofIndex(index, kind, row) {
    const entry = { kind, index, number: row + 1 };
    const { rank, similarity } = index[kind];
    Object.assign(entry, { rank: rank[row], similarity: similarity[row], place: placeOf(rank[row]) });
    if (kind === "query") {
      const { video, found, missing, misled, words, twins } = index.query;
      Object.assign(entry, { id: index.videos[video[row]][0], video: video[row], found: found[row] });
      Object.assign(entry, { missing: missing[row], misled: misled[row], length: words[row] });
      entry.twins = row in twins;
      entry.words = lazy(() => [...textsOf(index, row), entry.id].join("\n"));
    } else {
      entry.id = index.videos[row][0];
      const texts = () => (index.textsOfVideo.get(row) ?? []).flatMap((q) => textsOf(index, q));
      entry.words = lazy(() => [entry.id, ...texts()].join("\n"));
    }
    return entry;
  }

  async function loadEvery() {
    if (every) return;
    const index = await loadData(folder, "index");
    index.firstOf = new Map();
    index.textsOfVideo = new Map();
    index.query.video.forEach((video, query) => {
      if (!index.firstOf.has(video)) index.firstOf.set(video, query);
      if (!index.textsOfVideo.has(video)) index.textsOfVideo.set(video, []);
      index.textsOfVideo.get(video).push(query);
    });
    every = {};
    for (const kind of ["query", "video"]) {
      const cards = new Map((sampled[kind] ?? []).map(({ number, card }) => [number, card]));
      every[kind] = index[kind].rank.map((_, row) => {
        const entry = ofIndex(index, kind, row);
        entry.card = cards.get(entry.number);
        return entry;
      });
    }
  }

  async function makeCards(entries) {
    const lacking = entries.filter(({ card }) => !card);
    if (!lacking.length) return;
    const { index } = lacking[0];
    const partOf = ({ number }) => Math.floor((number - 1) / index.part);
    const { kind } = lacking[0];
    const needed = [...new Set(lacking.map(partOf))];
    const loaded = await Promise.all(needed.map((p) => loadData(folder, `${kind}-${p}`)));
    const rows = new Map(needed.map((p, place) => [p, loaded[place]]));
    for (const entry of lacking) {
      if (entry.card) continue;
      const row = rows.get(partOf(entry))[(entry.number - 1) % index.part];
      entry.card = makeCard(kind, index, entry.number, row);
      watchCard(entry.card);
    }
  }

  // ---- what is shown ----

  let state = filters.read(location.search);
  let shown = []; // all that fit, of which the cards `first` to `last` are on the page
  let [first, last] = [0, 0];
  let latest = 0;
  let complaint = ""; // why something cannot be shown

  const hasEvery = (kind) => folder && (!every || every[kind].length > 0);
  const entriesOf = ({ kind, scope }) => (scope ? every[kind] : sampled[kind]) ?? [];
  const queries = (number) => `${number} ${number === 1 ? "query" : "queries"}`;
  const section = () => sections.find(({ dataset }) => dataset.kind === state.kind) ?? sections[0];

  function showControls() {
    const { kind, scope } = state;
    for (const choice of directions) choice.checked = choice.value === kind;
    if (document.activeElement !== search) search.value = state.find;
    sort.value = state.sort;
    const [low, high] = state.rank ? state.rank.split("-") : ["", ""];
    if (document.activeElement !== from) from.value = low;
    if (document.activeElement !== to) to.value = high;
    const entries = entriesOf(state);
    for (const level of levels) {
      level.checked = level.value === (state.rank || "-");
      const fitting = filters.select(entries, { sort: "order", rank: level.value });
      level.parentElement.querySelector("small").textContent = `(${fitting.length})`;
    }
    const all = kind === "query" ? main.dataset.texts : main.dataset.videos;
    const isPart = hasEvery(kind) && (sampled[kind] ?? []).length < Number(all);
    scopeButton.hidden = !isPart;
    const sample = (sampled[kind] ?? []).length;
    scopeButton.textContent = scope ? `Show the sample of ${sample}` : `Show all ${queries(all)}`;
    clear.hidden = !filters.isFiltered(state);
    const said = filters.say(state);
    const heading = section().querySelector("h2");
    heading.textContent = titleOf.get(section()) + (said ? `: ${said}` : "");
    const total = queries(entries.length) + (scope || !isPart ? "" : ` of a sample`);
    count.textContent = shown.length === entries.length ? total : `${shown.length} of ${total}`;
    part("nothing").hidden = shown.length > 0;
    for (const other of sections) other.hidden = other !== section();
    const title = section().querySelector(".title");
    if (count.parentElement !== title) title.append(count, scopeButton, clear);
  }

  async function showCards(ticket = ++latest) {
    const place = section();
    let chosen = shown.slice(first, last);
    try {
      if (chosen.some(({ card }) => !card)) await makeCards(chosen);
    } catch (error) {
      chosen = chosen.filter(({ card }) => card);
      count.textContent = error.message;
    }
    if (ticket !== latest) return false;
    const title = place.querySelector(".title");
    const cards = chosen.map(({ card }) => card);
    const wanted = [title, ...(first ? [earlier] : []), ...cards];
    const is = [...place.children];
    if (wanted.length !== is.length || wanted.some((element, at) => element !== is[at])) {
      const focused = document.activeElement;
      place.replaceChildren(...wanted);
      if (focused !== document.activeElement && place.contains(focused)) {
        focused.focus({ preventScroll: true });
      }
    }
    further.hidden = last >= shown.length;
    return true;
  }

  // Returns whether it came to the end, and nothing newer took its place.
  async function show(scrolls = false) {
    const ticket = ++latest;
    if (state.scope && !every) {
      count.textContent = "loading all queries";
      try {
        await loadEvery();
      } catch (error) {
        state = filters.cleared({ ...state, scope: "" }, false);
        complaint = error.message;
      }
      if (ticket !== latest) return false;
    }
    shown = filters.select(entriesOf(state), state);
    // The cards of a sample are there already; of all queries only those in sight are made.
    [first, last] = [0, state.scope ? AT_ONCE : shown.length];
    showControls();
    if (complaint) count.textContent = complaint;
    complaint = "";
    const isDone = await showCards(ticket);
    if (scrolls && section().getBoundingClientRect().top < 0) section().scrollIntoView();
    return isDone;
  }

  async function grow(before, after) {
    const anchor = before ? section().querySelector(".card") : null;
    const top = anchor?.getBoundingClientRect().top;
    [first, last] = [Math.max(0, first - before), Math.min(shown.length, last + after)];
    await showCards();
    if (anchor) window.scrollBy(0, anchor.getBoundingClientRect().top - top);
  }

  // ---- the address ----

  let spelling = 0;
  const address = () => location.pathname + filters.spell(state) + location.hash;

  // Browsers refuse an address that changes many times a second, as it does while somebody types.
  function change(changes, isTyped = false) {
    state = { ...state, ...changes };
    clearTimeout(spelling);
    const spell = () => history.replaceState(null, "", address());
    if (isTyped) spelling = setTimeout(spell, 300);
    else spell();
    return show(true);
  }

  function reread() {
    state = filters.read(location.search);
    return show();
  }

  // ---- the query that the address names ----

  // Also for keyboard.js.
  globalThis.showCard = (card) => {
    document.querySelector(".card[aria-current]")?.removeAttribute("aria-current");
    card.setAttribute("aria-current", "true");
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });
  };

  async function reveal() {
    const [, kind, digits] = /^#(query|video)-(\d{1,9})$/.exec(location.hash) ?? [];
    if (!kind || !(sampled[kind] || folder)) return;
    const number = Number(digits);
    const isIt = (entry) => entry.kind === kind && entry.number === number;
    if (state.kind !== kind) {
      state = { ...filters.cleared(state, false), kind };
      await show();
    }
    if (!shown.some(isIt)) {
      const isSampled = sampled[kind]?.some(isIt);
      if (!isSampled && !hasEvery(kind)) return;
      state = { ...filters.cleared(state), scope: isSampled ? state.scope : "all" };
      await show();
    }
    const at = shown.findIndex(isIt);
    if (at < 0) return;
    if (at < first || at >= last) {
      [first, last] = [at, at + AT_ONCE];
      if (!(await showCards())) return;
    }
    history.replaceState(null, "", address());
    showCard(shown[at].card);
  }

  // ---- what people do ----

  search.addEventListener("input", () => change({ find: search.value.trim() }, true));
  sort.addEventListener("change", () => change({ sort: sort.value }));
  for (const choice of directions) {
    const chosen = () => ({ ...filters.cleared(state, false), kind: choice.value });
    choice.addEventListener("change", () => change(chosen()));
  }
  for (const level of levels) {
    const rank = level.value === "-" ? "" : level.value;
    level.addEventListener("change", () => change({ rank }));
  }
  for (const end of [from, to]) {
    end.addEventListener("input", () => {
      const whole = (box) => (/^\d{1,9}$/.test(box.value) ? box.value : "");
      const rank = `${whole(from)}-${whole(to)}`;
      change({ rank: rank === "-" ? "" : rank }, true);
    });
  }
  clear.addEventListener("click", () => {
    search.value = from.value = to.value = "";
    change(filters.cleared(state));
    (directions[0] ?? search).focus({ preventScroll: true });
  });
  scopeButton.addEventListener("click", () => {
    const without = state.scope ? filters.cleared(state, false) : state;
    change({ ...without, scope: state.scope ? "" : "all" });
  });
  further.addEventListener("click", () => grow(0, AT_ONCE));
  earlier.addEventListener("click", () => grow(AT_ONCE, 0));
  new IntersectionObserver(
    ([{ isIntersecting }]) => {
      if (isIntersecting && !further.hidden) grow(0, AT_ONCE);
    },
    { rootMargin: "1200px 0px" }
  ).observe(further);

  // A line of a chart or of the failures leads to its queries without loading the page anew.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="?"]');
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.pushState(null, "", location.pathname + link.getAttribute("href"));
    reread().then(() => section().scrollIntoView());
  });
  window.addEventListener("popstate", () => reread().then(reveal));

  tools.hidden = false;
  const isNarrow = window.matchMedia("(max-width: 45rem)");
  const unfold = () => (tools.open = !isNarrow.matches);
  isNarrow.addEventListener("change", unfold);
  unfold();
  // What is scrolled to must not end up below the tools, which stay at the top of a wide window.
  new ResizeObserver(() => {
    const sticks = getComputedStyle(tools).position === "sticky";
    document.documentElement.style.scrollPaddingTop = sticks ? `${tools.offsetHeight + 8}px` : "";
  }).observe(tools);
  show().then(reveal);
})();
