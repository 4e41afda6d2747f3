// Which queries are shown, in which order: a state that the address spells.
"use strict";

globalThis.filters = (() => {
  const plain = (text) => text.normalize("NFKC").toLowerCase();
  const bounds = (range) => {
    const [first, last] = range.split("-").map(Number);
    return [first || 1, last || Infinity];
  };
  const within = (value, range) => {
    const [first, last] = bounds(range);
    return value >= first && value <= last;
  };
  const spelled = (range) => {
    const [first, last] = bounds(range);
    if (last === Infinity) return first === 1 ? "of any number" : `above ${first - 1}`;
    return first === last ? `${first}` : `${first} to ${last}`;
  };

  // Of each: what the address may say, which queries fit, and how the heading says it. Those that
  // need more than a card tells look at all queries.
  const NAMED = {
    rank: {
      may: /^\d{0,9}-\d{0,9}$/,
      fits: (entry, range) => within(entry.place, range),
      says: (range) => `rank ${spelled(range)}`,
    },
    find: {
      may: /\S/,
      fits: (entry, text) => plain(text).split(/\s+/).every((word) => entry.words().includes(word)),
      says: (text) => `with “${text.trim()}”`,
    },
    misled: {
      ofAll: true,
      fits: ({ misled, index }, name) => misled && index.experts[misled[0]] === name,
      says: (name) => `misled by ${name}`,
    },
    missing: {
      ofAll: true,
      fits: ({ missing, index }, name) =>
        Math.floor(missing / 2 ** index.experts.indexOf(name)) % 2 === 1,
      says: (name) => `true video without ${name}`,
    },
    hub: {
      ofAll: true,
      fits: ({ found, video, index }, id) =>
        found.some((other) => other !== video && index.videos[other][0] === id),
      says: (id) => `wrongly retrieving ${id}`,
    },
    words: {
      ofAll: true,
      may: /^\d{0,9}-\d{0,9}$/,
      fits: ({ length }, range) => within(length, range),
      says: (range) => `of ${spelled(range)} words`,
    },
    twins: {
      ofAll: true,
      fits: ({ twins }) => twins,
      says: () => "with near-duplicate captions",
    },
  };
  const SORTS = {
    order: "",
    rank: "best first",
    "rank-down": "worst first",
    "similarity-down": "most similar first",
    similarity: "least similar first",
    id: "by id",
  };

  // What an address says; nonsense in it is ignored.
  function read(search) {
    const given = new URLSearchParams(search);
    const state = { kind: given.get("kind") === "video" ? "video" : "query" };
    state.sort = given.get("sort") in SORTS ? given.get("sort") : "order";
    for (const [name, { may }] of Object.entries(NAMED)) {
      const value = given.get(name) ?? "";
      state[name] = !may || may.test(value) ? value : "";
    }
    if (state.rank === "-") state.rank = "";
    const needsAll = Object.entries(NAMED).some(([name, { ofAll }]) => ofAll && state[name]);
    state.scope = given.get("scope") === "all" || needsAll ? "all" : "";
    return state;
  }

  const DEFAULTS = { kind: "query", sort: "order" };
  function spell(state) {
    const set = Object.entries(state).filter(([name, value]) => value !== (DEFAULTS[name] ?? ""));
    return set.length ? `?${new URLSearchParams(set)}` : "";
  }

  const chosen = (state) => Object.keys(NAMED).filter((name) => state[name]);
  const byId = new Intl.Collator(undefined, { numeric: true });

  function select(entries, state) {
    const names = chosen(state);
    const fitting = entries.filter((entry) =>
      names.every((name) => NAMED[name].fits(entry, state[name]))
    );
    const [key, direction] = state.sort.split("-");
    if (key === "order") return fitting;
    const sign = direction === "down" ? -1 : 1;
    const value = ({ [key]: number }) => (Number.isFinite(number) ? sign * number : Infinity);
    const compare =
      key === "id" ? (a, b) => byId.compare(a.id, b.id) : (a, b) => Math.sign(value(a) - value(b));
    return fitting.sort((a, b) => compare(a, b) || a.number - b.number);
  }

  function say(state) {
    const said = chosen(state).map((name) => NAMED[name].says(state[name]));
    return [...said, SORTS[state.sort]].filter(Boolean).join(", ");
  }

  const isFiltered = (state) => chosen(state).length > 0;
  // What is of texts is not of videos: near-duplicates, hubs and the like.
  function cleared(state, all = true) {
    const emptied = Object.entries(NAMED).filter(([, { ofAll }]) => all || ofAll);
    return { ...state, ...Object.fromEntries(emptied.map(([name]) => [name, ""])) };
  }
  return { read, spell, select, say, isFiltered, cleared, plain };
})();
