// Search, filter, sort, and videos that exist only while their card is near the window.
// The page is complete without this script: videos are then plain links.
"use strict";

(() => {
  const list = document.getElementById("cards");
  if (!list) return;
  const cards = [...list.querySelectorAll(".card")];
  const search = document.getElementById("search");
  const sort = document.getElementById("sort");
  const levels = [...document.querySelectorAll("input[name=level]")];

  // ---- finding queries ----

  const plain = (text) => text.normalize("NFKC").toLowerCase();
  const wordsOf = new Map(
    cards.map((card) => {
      const parts = card.querySelectorAll(".find, .find-id bdi");
      return [card, plain([...parts].map((part) => part.textContent).join("\n"))];
    })
  );

  function filter() {
    const terms = plain(search.value).split(/\s+/).filter(Boolean);
    const level = levels.find((choice) => choice.checked).value;
    let shown = 0;
    for (const card of cards) {
      const fits =
        (level === "all" || card.dataset.level === level) &&
        terms.every((term) => wordsOf.get(card).includes(term));
      card.hidden = !fits;
      shown += fits;
    }
    const all = `${cards.length} ${cards.length === 1 ? "query" : "queries"}`;
    document.getElementById("count").textContent =
      shown === cards.length ? all : `${shown} of ${all}`;
    document.getElementById("nothing").hidden = shown > 0;
  }

  function reorder() {
    const [key, direction] = sort.value.split(" ");
    const sign = direction === "up" ? 1 : -1;
    const value = (card) => {
      const number = Number(card.dataset[key]);
      return Number.isNaN(number) ? Infinity : sign * number; // what has no number comes last
    };
    const order = (card) => Number(card.dataset.order);
    const compare = (a, b) => Math.sign(value(a) - value(b)) || order(a) - order(b);
    list.append(...[...cards].sort(compare));
  }

  // ---- videos ----

  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const canHover = window.matchMedia("(hover: hover)");
  const linkOf = new WeakMap(); // video -> the link whose place it takes

  function attach(link) {
    const video = document.createElement("video");
    Object.assign(video, { muted: true, loop: true, playsInline: true, preload: "metadata" });
    video.setAttribute("aria-label", link.getAttribute("aria-label"));
    // The controls hide much of a small picture: they appear under the mouse or with the focus.
    video.tabIndex = 0;
    video.controls = !canHover.matches;
    const showControls = () => (video.controls = true);
    const hideControls = () => {
      const inUse = video === document.activeElement || video.matches(":hover");
      if (canHover.matches && !inUse) video.controls = false;
    };
    video.addEventListener("pointerenter", showControls);
    video.addEventListener("focus", showControls);
    video.addEventListener("pointerleave", hideControls);
    video.addEventListener("blur", hideControls);

    let startedByHover = false;
    video.addEventListener("pointerenter", (event) => {
      if (event.pointerType !== "mouse" || still.matches || !video.paused) return;
      startedByHover = true;
      video.play().catch(() => {}); // left again before it could start
    });
    video.addEventListener("pointerdown", () => (startedByHover = false));
    video.addEventListener("pointerleave", () => {
      if (startedByHover) video.pause();
      startedByHover = false;
    });
    video.addEventListener("error", () => {
      const note = document.createElement("p");
      note.className = "no-media";
      note.textContent = "this video cannot be played";
      video.parentElement?.replaceWith(note);
    });
    video.src = link.href;
    linkOf.set(video, link);
    link.replaceWith(video);
  }

  function release(video) {
    if (video === document.activeElement) return;
    video.pause();
    video.removeAttribute("src");
    video.load(); // frees the connection and the decoder
    video.replaceWith(linkOf.get(video));
  }

  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) target.querySelectorAll("a.play").forEach(attach);
        else target.querySelectorAll("video").forEach(release);
      }
    },
    { rootMargin: "100px 0px" }
  );

  search.addEventListener("input", filter);
  levels.forEach((choice) => choice.addEventListener("change", filter));
  sort.addEventListener("change", reorder);
  document.querySelector(".tools").hidden = false;
  // A browser that reloads the page may have kept what was chosen.
  filter();
  reorder();
  cards.forEach((card) => near.observe(card));
})();
