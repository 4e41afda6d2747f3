// Two runs on the same queries: which is better by how much, and what changed, query by query.
"use strict";

(() => {
  const AT_ONCE = 30;
  const { make, media, caption, rankText, levelOf, decimals } = cardParts;
  const runs = globalThis.comparableRuns ?? [];
  const part = (id) => document.getElementById(id);
  const [search, sort, further, place] = ["search", "sort", "further", "queries"].map(part);
  const shows = [...document.querySelectorAll("input[name=show]")];
  const selects = { a: part("run-a"), b: part("run-b") };
  const plain = (text) => text.normalize("NFKC").toLowerCase();
  const status = (text) => {
    part("status").textContent = text;
    part("status").hidden = !text;
  };

  // ---- the two runs ----

  const given = new URLSearchParams(location.search);
  const unknown = []; // asked for in the address
  const state = { show: given.get("show") ?? "", sort: given.get("sort") ?? "change" };
  state.find = given.get("find") ?? "";
  for (const [side, start] of [
    ["a", 1],
    ["b", 0],
  ]) {
    const known = runs.some(({ id }) => id === given.get(side));
    if (given.get(side) && !known) unknown.push(given.get(side));
    state[side] = known ? given.get(side) : runs[start]?.id;
    selects[side].append(...runs.map(({ id, name }) => make("option", { value: id }, name)));
    selects[side].value = state[side];
  }
  const runOf = (side) => runs.find(({ id }) => id === state[side]);

  function spell() {
    const set = Object.entries(state).filter(([name, value]) => value && `${name}=${value}` !== "sort=change");
    history.replaceState(null, "", `?${new URLSearchParams(set)}`);
  }

  let pairs = []; // the queries that both have
  let shown = [];
  let last = 0;

  const keyOf = (index, query) =>
    JSON.stringify([index.videos[index.query.video[query]][0], textsOf(index, query)]);

  function pairUp(a, b) {
    const places = new Map();
    a.query.rank.forEach((_, query) => {
      const key = keyOf(a, query);
      if (!places.has(key)) places.set(key, []);
      places.get(key).push(query);
    });
    return b.query.rank.flatMap((rank, other) => {
      const query = places.get(keyOf(b, other))?.shift();
      if (query === undefined) return [];
      const [first, owner] = [a.query.rank[query], a.videos[a.query.video[query]][0]];
      const words = plain([owner, ...textsOf(a, query)].join("\n"));
      return [{ query, other, owner, words, a: first, b: rank, change: first - rank }];
    });
  }

  // ---- the outcome ----

  const MEASURES = [
    ...[1, 5, 10].map((k) => [`R@${k}`, (rank) => (placeOf(rank) <= k ? 100 : 0)]),
    ["MeanR", (rank) => rank],
  ];
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  function median(values) {
    const sorted = Float64Array.from(values).sort();
    const middle = Math.floor(sorted.length / 2);
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }
  const signed = (value) => (value > 0 ? "+" : "") + decimals(value, 1);

  function metricRow(name, a, b, interval) {
    const isSmaller = name.startsWith("Me");
    const sure = interval && (interval[0] > 0 || interval[1] < 0);
    const better = sure ? (isSmaller ? b < a : b > a) : null;
    const mark = better === null ? {} : { class: better ? "better" : "worse" };
    const shownInterval = interval ? `${signed(interval[0])} to ${signed(interval[1])}` : "–";
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, name),
      make("td", {}, decimals(a, 1)),
      make("td", {}, decimals(b, 1)),
      make("td", mark, signed(b - a)),
      make("td", {}, shownInterval)
    );
  }

  function showOutcome(total) {
    const owners = pairs.map(({ owner }) => owner);
    const values = MEASURES.map(([, of]) => [pairs.map(({ a }) => of(a)), pairs.map(({ b }) => of(b))]);
    const differences = values.map(([a, b]) => b.map((value, at) => value - a[at]));
    const intervals = bootstrap(differences, owners);
    const rows = MEASURES.map(([name], at) =>
      metricRow(name, mean(values[at][0]), mean(values[at][1]), intervals[at])
    );
    const [a, b] = [median(pairs.map(({ a }) => a)), median(pairs.map(({ b }) => b))];
    part("metrics").replaceChildren(...rows.slice(0, 3), metricRow("MedR", a, b), rows[3]);
    const count = (test) => pairs.filter(test).length;
    const won = count(({ change }) => change > 0);
    const lost = count(({ change }) => change < 0);
    part("counts").textContent =
      `B ranks the true video better in ${won} of ${pairs.length} queries, A in ${lost}; ` +
      `${pairs.length - won - lost} have the same rank.` +
      (total > pairs.length ? ` ${total - pairs.length} queries are not of both.` : "") +
      " Intervals are those of a paired bootstrap over videos (2000 resamples, seed 1): one that " +
      "does not hold 0 tells a difference from chance. They do not say how much seeds differ.";
    const counts = { "": pairs.length, won, lost, tied: pairs.length - won - lost };
    for (const choice of shows) {
      choice.parentElement.querySelector("small").textContent = `(${counts[choice.value]})`;
    }
    part("outcome").hidden = false;
    part("which").hidden = false;
  }

  // ---- the queries ----

  function videoTile(run, index, video, trueVideo, place) {
    const [id, ...urls] = index.videos[video];
    const isTrue = video === trueVideo;
    return make(
      "figure",
      { class: isTrue ? "tile is-true" : "tile" },
      media([id, ...urls.map((url) => run.base + url)]),
      make(
        "figcaption",
        {},
        make(
          "p",
          { class: "id" },
          place ? make("span", { class: "place" }, `${place}`) : null,
          isTrue && place ? make("span", { class: "unseen" }, "true video ") : null,
          make("bdi", {}, id)
        )
      )
    );
  }

  function side(letter, run, index, query, rank) {
    const name = `query-${query + 1}`;
    const trueVideo = index.query.video[query];
    const tiles = index.query.found[query].map((video, at) =>
      make("li", {}, videoTile(run, index, video, trueVideo, at + 1))
    );
    return make(
      "div",
      {},
      make(
        "h4",
        {},
        make("span", { class: "letter" }, letter),
        make("span", { class: `rank ${levelOf(rank)}` }, `rank ${rankText(rank)}`),
        make("a", { href: `${run.page}#${name}`, "aria-label": `query ${query + 1} of ${letter}` }, "open")
      ),
      make("ol", { class: "videos" }, tiles)
    );
  }

  function cardOf(pair) {
    const [{ a, b }, query] = [both, pair.query];
    const change = Math.abs(pair.change);
    const better = pair.change > 0 ? "B" : "A";
    const places = `${rankText(change)} ${change === 1 ? "place" : "places"}`;
    const said = pair.change ? `${better} is better by ${places}` : "same rank";
    const texts = textsOf(a.index, query).map((text) => make("li", {}, caption(text)));
    const trueVideo = a.index.query.video[query];
    return make(
      "article",
      { class: "card versus", id: `query-${query + 1}`, tabindex: -1 },
      make("header", {}, make("h3", {}, `Query ${query + 1}`), make("p", { class: "said" }, said)),
      make("ul", { class: "captions" }, texts),
      make(
        "div",
        { class: "sides" },
        make(
          "section",
          { class: "truth" },
          make("h4", {}, "True video"),
          videoTile(a.run, a.index, trueVideo, trueVideo, 0)
        ),
        side("A", a.run, a.index, query, pair.a),
        side("B", b.run, b.index, pair.other, pair.b)
      )
    );
  }

  function grow() {
    const cards = shown.slice(last, last + AT_ONCE).map(cardOf);
    place.append(...cards);
    cards.forEach(watchCard);
    last = Math.min(shown.length, last + AT_ONCE);
    further.hidden = last >= shown.length;
  }

  const TESTS = {
    won: ({ change }) => change > 0,
    lost: ({ change }) => change < 0,
    tied: ({ change }) => change === 0,
  };
  const ORDERS = {
    change: (a, b) => Math.abs(b.change) - Math.abs(a.change),
    won: (a, b) => b.change - a.change,
    lost: (a, b) => a.change - b.change,
  };

  function show() {
    const words = plain(state.find).split(/\s+/).filter(Boolean);
    const fits = TESTS[state.show] ?? (() => true);
    shown = pairs.filter((pair) => fits(pair) && words.every((word) => pair.words.includes(word)));
    shown.sort((a, b) => ORDERS[state.sort]?.(a, b) || a.query - b.query);
    place.replaceChildren();
    last = 0;
    part("nothing").hidden = shown.length > 0;
    grow();
  }

  let both = null;
  let latest = 0;

  async function compare() {
    const ticket = ++latest;
    const [a, b] = [runOf("a"), runOf("b")];
    for (const id of ["outcome", "which", "nothing"]) part(id).hidden = true;
    further.hidden = true;
    place.replaceChildren();
    if (!a || !b) {
      status("Two runs are needed whose pages hold all queries: test them again (test.py --resume).");
      return;
    }
    status("loading both runs");
    try {
      const [first, second] = await Promise.all([a, b].map((run) => loadData(run.data, "index", run.base)));
      if (ticket !== latest) return;
      both = { a: { run: a, index: first }, b: { run: b, index: second } };
    } catch (error) {
      status(`${error.message}.`);
      return;
    }
    const [left, right] = [both.a.index, both.b.index];
    pairs = pairUp(left, right);
    if (!pairs.length) {
      status(`These runs have no query in common: A was tested on ${a.split}, B on ${b.split}.`);
      return;
    }
    const others = "is not among these runs, or its page does not hold all queries: another is shown.";
    status(unknown.length ? `${unknown.join(" and ")} ${others}` : "");
    unknown.length = 0;
    showOutcome(Math.max(left.query.rank.length, right.query.rank.length));
    show();
  }

  for (const choice of shows) {
    choice.checked = choice.value === (state.show in TESTS ? state.show : "");
    choice.addEventListener("change", () => {
      state.show = choice.value;
      spell();
      show();
    });
  }
  search.value = state.find;
  search.addEventListener("input", () => {
    state.find = search.value.trim();
    show();
  });
  search.addEventListener("change", spell);
  sort.value = state.sort in ORDERS || state.sort === "order" ? state.sort : "change";
  sort.addEventListener("change", () => {
    state.sort = sort.value;
    spell();
    show();
  });
  for (const [name, select] of Object.entries(selects)) {
    select.addEventListener("change", () => {
      state[name] = select.value;
      spell();
      compare();
    });
  }
  further.addEventListener("click", grow);
  new IntersectionObserver(
    ([{ isIntersecting }]) => {
      if (isIntersecting && !further.hidden) grow();
    },
    { rootMargin: "1200px 0px" }
  ).observe(further);
  document.querySelector(".pair").hidden = runs.length === 0;
  compare();
})();
