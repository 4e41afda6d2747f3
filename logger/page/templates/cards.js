// Makes the cards of queries that are not on the page from the beginning, as cards.html makes those.
// Whatever is data becomes text or an attribute, never markup.
"use strict";

globalThis.makeCard = (() => {
  const main = document.querySelector("main");
  const { highest, videos: numVideos, texts: numTexts } = main.dataset;
  const MOST_OWN = 5;
  const MOST_CAPTIONS = 3;

  function make(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== undefined && value !== false) element.setAttribute(key, value);
    }
    element.append(...children.flat().filter((child) => child !== null));
    return element;
  }
  const unseen = (text) => make("span", { class: "unseen" }, text);
  const decimals = (number, digits) => number.toFixed(digits).replace("-", "−");
  const rankText = (rank) => decimals(rank, Number.isInteger(rank) ? 0 : 1);
  const levelOf = (rank) => {
    const place = placeOf(rank);
    return place === 1 ? "first" : place <= 10 ? "near" : "far";
  };

  function caption(text, most = 240) {
    const shown = make("span", { class: "text", dir: "auto" }, text);
    if ([...text].length <= most) return shown;
    return make("details", { class: "long" }, make("summary", {}, shown));
  }

  function media([id, url, thumbnail]) {
    if (!url) return make("p", { class: "no-media" }, "no video");
    const suffix = url.slice(url.lastIndexOf("."));
    if (suffix !== ".mp4" && suffix !== ".webm") {
      const link = make("a", { href: url }, `${suffix} file`);
      return make("p", { class: "no-media" }, link, ": browsers cannot play it");
    }
    const picture = { src: thumbnail, alt: "", loading: "lazy", decoding: "async" };
    return make(
      "div",
      { class: "media" },
      make(
        "a",
        { class: "play", href: url, "aria-label": `Play video ${id}` },
        thumbnail ? make("img", picture) : null,
        make("span", { "aria-hidden": "true" }, "▶")
      )
    );
  }

  function similarity(value) {
    const space = "http://www.w3.org/2000/svg";
    const drawing = document.createElementNS(space, "svg");
    const bar = document.createElementNS(space, "rect");
    const percent = value > 0 && highest > 0 ? Math.min(100, (100 * value) / highest) : 0;
    for (const [element, attributes] of [
      [drawing, { class: "bar", viewBox: "0 0 100 1", preserveAspectRatio: "none" }],
      [drawing, { "aria-hidden": "true" }],
      [bar, { width: percent.toFixed(1), height: 1 }],
    ]) {
      for (const [key, given] of Object.entries(attributes)) element.setAttribute(key, given);
    }
    drawing.append(bar);
    const number = value === null ? "–" : decimals(value, 3);
    const shown = make("span", { class: "value" }, number);
    return make("p", { class: "similarity" }, drawing, unseen("similarity "), shown);
  }

  function placeAndId(place, id) {
    const shown = place ? make("span", { class: "place" }, unseen("place "), `${place}`) : null;
    return make("p", { class: "id" }, shown, place ? " " : null, make("bdi", {}, id));
  }

  function mark(text) {
    return make("p", { class: "mark" }, make("span", { "aria-hidden": "true" }, "✓ "), text);
  }

  function figure(index, video, value, experts, isTrue, place = 0) {
    const own = index.firstOf.get(video);
    const text = own === undefined ? "" : textsOf(index, own)[0];
    return make(
      "figure",
      { class: isTrue ? "tile is-true" : "tile", "data-experts": experts || undefined },
      media(index.videos[video]),
      make(
        "figcaption",
        {},
        placeAndId(place, index.videos[video][0]),
        similarity(value),
        isTrue && place ? mark("true video") : null,
        place && text ? make("div", { class: "own-caption" }, caption(text, 80)) : null
      )
    );
  }

  function rankLine(rank, candidates) {
    const level = levelOf(rank);
    return make(
      "p",
      { class: `rank ${level}` },
      level === "first" ? make("span", { "aria-hidden": "true" }, "✓ ") : null,
      "rank ",
      make("strong", {}, rankText(rank)),
      ` of ${candidates}`
    );
  }

  function opened(kind, number, rank, candidates, value, id) {
    const name = `${kind}-${number}`;
    const word = kind === "query" ? "Query" : "Video";
    const link = make("a", { href: `#${name}` }, `${word} ${number}`);
    const shownId = kind === "video" ? [" ", bdi(id, "id find")] : [];
    const head = make("h3", { id: `${name}-title` }, link, shownId);
    const attributes = {
      ...{ class: "card", id: name, tabindex: -1, "aria-labelledby": `${name}-title` },
      ...{ "data-order": number, "data-id": id, "data-rank": rank, "data-place": placeOf(rank) },
      ...{ "data-level": levelOf(rank), "data-similarity": value },
    };
    return make("article", attributes, make("header", {}, head, rankLine(rank, candidates)));
  }
  const bdi = (text, name) => make("bdi", { class: name }, text);

  function captions(texts, isSeveral) {
    const items = texts.map((text) => make("li", { class: "find" }, caption(text)));
    return make("ul", { class: isSeveral ? "captions several" : "captions" }, items);
  }

  function more(rest, list) {
    if (!rest.length) return null;
    const count = make("summary", {}, `${rest.length} more captions`);
    return make("details", { class: "more" }, count, list(rest));
  }

  function remarks(index, query) {
    const found = [];
    const misled = index.query.misled[query];
    if (misled) {
      const name = make("strong", {}, index.experts[misled[0]]);
      const rest = `: without it, the true video would have rank ${rankText(misled[1])}.`;
      found.push(make("p", { class: "remark" }, "Misled by ", name, rest));
    }
    const twins = index.query.twins[query];
    if (twins) {
      const ids = twins.map((twin) => bdi(index.videos[index.query.video[twin]][0], "id"));
      const listed = ids.flatMap((id, place) => (place ? [", ", id] : [id]));
      found.push(make("p", { class: "remark" }, "Near-duplicate of a caption of ", listed, "."));
    }
    return found;
  }

  function queryCard(index, number, [trueExperts, rows]) {
    const query = number - 1;
    const all = index.query;
    const [video, found] = [all.video[query], all.found[query]];
    const isFound = found.includes(video);
    const value = all.similarity[query];
    const id = index.videos[video][0];
    const card = opened("query", number, all.rank[query], numVideos, value, id);
    const texts = textsOf(index, query);
    const rest = texts.slice(MOST_CAPTIONS);
    card.append(captions(texts.slice(0, MOST_CAPTIONS), texts.length > 1));
    card.append(...[more(rest, (left) => captions(left, true))].filter(Boolean));
    card.append(...remarks(index, query));
    const videos = found.map((other, place) =>
      make("li", {}, figure(index, other, ...rows[place], other === video, place + 1))
    );
    const heading = `True video${found.length ? `, not among the top ${found.length}` : ""}`;
    const truth = () =>
      make(
        "section",
        { class: "truth find-id" },
        make("h4", {}, heading),
        figure(index, video, value, trueExperts, true)
      );
    card.append(
      make(
        "div",
        { class: "matches" },
        isFound ? null : truth(),
        make(
          "section",
          { class: isFound ? "retrieved find-id" : "retrieved" },
          make("h4", {}, "Retrieved, best first"),
          make("ol", { class: "videos" }, videos)
        )
      )
    );
    return card;
  }

  function ownCaption(index, [number, rank, value]) {
    const text = textsOf(index, number - 1).join("\n");
    return make(
      "li",
      { class: "find" },
      make("span", { class: `rank ${levelOf(rank)}` }, `rank ${rankText(rank)}`),
      " ",
      caption(text, 160),
      " ",
      make("span", { class: "value" }, unseen("similarity "), decimals(value, 3))
    );
  }

  function textTile(index, video, place, [number, value, experts]) {
    const owner = index.query.video[number - 1];
    const isTrue = owner === video;
    return make(
      "div",
      { class: isTrue ? "tile text-tile is-true" : "tile text-tile", "data-experts": experts || undefined },
      placeAndId(place, index.videos[owner][0]),
      caption(textsOf(index, number - 1).join("\n"), 160),
      similarity(value),
      isTrue ? mark("own caption") : null
    );
  }

  function videoCard(index, number, [own, found]) {
    const video = number - 1;
    const { rank, similarity: value } = index.video;
    const id = index.videos[video][0];
    const card = opened("video", number, rank[video], numTexts, value[video], id);
    const list = (some) => make("ul", { class: "own" }, some.map((one) => ownCaption(index, one)));
    const isFound = found.some(([number]) => index.query.video[number - 1] === video);
    const absent = ` (no own caption among the top ${found.length})`;
    card.append(
      make(
        "div",
        { class: "matches" },
        make(
          "section",
          { class: "truth" },
          make("h4", {}, "Video"),
          make("div", { class: "tile" }, media(index.videos[video]))
        ),
        make(
          "section",
          { class: "retrieved" },
          make("h4", {}, `Its own ${own.length > 1 ? "captions" : "caption"}`),
          list(own.slice(0, MOST_OWN)),
          more(own.slice(MOST_OWN), list),
          make(
            "h4",
            {},
            "Retrieved captions, best first",
            found.length && !isFound ? make("span", { class: "absent" }, absent) : null
          ),
          make(
            "ol",
            { class: "texts" },
            found.map((one, at) => make("li", {}, textTile(index, video, at + 1, one)))
          )
        )
      )
    );
    return card;
  }

  // Also for compare.js.
  globalThis.cardParts = { make, media, caption, rankText, levelOf, decimals };

  // `row` is what the part of the query holds for it.
  return (kind, index, number, row) =>
    kind === "query" ? queryCard(index, number, row) : videoCard(index, number, row);
})();
