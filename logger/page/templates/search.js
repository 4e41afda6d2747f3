// Results while one types, sliders that reorder at once, an address for every question.
// The page is complete without this script: the form asks, links lead on.
"use strict";

(() => {
  const part = (id) => document.getElementById(id);
  const form = part("ask");
  const { q, like, file } = form.elements;
  const sliders = [...form.querySelectorAll("input[type=range]")];
  const PAUSE = 250; // milliseconds without a key, after which the box is read
  const MOMENT = 40; // the same for a slider

  // ---- what is asked, as an address ----

  function address() {
    const asked = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      const isPlain = !value.trim() || (sliders.includes(form.elements[name]) && value === "1");
      if (!isPlain) asked.append(name, value);
    }
    return asked.size ? `?${asked}` : location.pathname;
  }

  function fill(search) {
    const asked = new URLSearchParams(search);
    q.value = asked.get("q") ?? "";
    for (const name of ["like", "file", "not", "k"]) form.elements[name].value = asked.get(name) ?? "";
    for (const slider of sliders) slider.value = asked.get(slider.name) ?? "1";
    sayWeights();
  }

  function sayWeights() {
    for (const slider of sliders) slider.nextElementSibling.value = slider.value;
    part("as-trained").hidden = sliders.every((slider) => slider.value === "1");
  }

  // ---- asking ----

  let waiting;
  let asking;

  async function ask(where) {
    clearTimeout(waiting);
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    document.body.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(where, { signal });
      const found = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!signal.aborted) show(found);
    } catch (error) {
      if (signal.aborted) return;
      part("told").textContent = "The server does not answer; is it still running?";
    }
    document.body.removeAttribute("aria-busy");
  }

  const hits = (within) => new Map([...within.querySelectorAll(".hit")].map((h) => [h.dataset.id, h]));

  function show(found) {
    if (!found.getElementById("results")) throw new Error("no page of ours");
    const results = document.adoptNode(found.getElementById("results"));
    const before = hits(document);
    const wasAt = new Map([...before].map(([id, hit]) => [id, layout(hit)]));
    const hadFocus = part("results").contains(document.activeElement);
    for (const [id, hit] of hits(results)) if (before.has(id)) keepOn(before.get(id), hit);
    document.title = found.title;
    part("told").replaceChildren(...found.getElementById("told").childNodes);
    part("results").replaceWith(results);
    if (hadFocus) document.querySelector(".hit")?.focus({ preventScroll: true });
    videos.start();
    showRecent();
    if (!videos.still.matches) move(wasAt);
  }

  // The same video goes on as it is, and numbers that were open stay so.
  function keepOn(old, hit) {
    const [was, video] = [old.querySelector("video"), hit.querySelector("video")];
    if (was && video?.getAttribute("src") === was.getAttribute("src")) {
      if (video.dataset.poster) was.dataset.poster = video.dataset.poster;
      else delete was.dataset.poster; // now among those that play by themselves
      video.replaceWith(was);
    }
    const [before, why] = [old.querySelector("details.why"), hit.querySelector("details.why")];
    if (before && why) why.open = before.open;
  }

  // ---- what changes its place moves there ----

  function layout(hit) {
    const bars = [...hit.querySelectorAll(".why rect[data-expert]")];
    const ends = bars.map((bar) => [bar.dataset.expert, [bar.getAttribute("x"), bar.getAttribute("width")]]);
    return { box: hit.getBoundingClientRect(), bars: new Map(ends) };
  }

  function move(wasAt) {
    const timing = { duration: 250, easing: "ease-out" };
    for (const [id, hit] of hits(document)) {
      const was = wasAt.get(id);
      if (!was) {
        hit.animate({ opacity: [0, 1] }, timing);
        continue;
      }
      const box = hit.getBoundingClientRect();
      const [x, y] = [was.box.left - box.left, was.box.top - box.top];
      if (x || y) hit.animate({ transform: [`translate(${x}px, ${y}px)`, "none"] }, timing);
      for (const bar of hit.querySelectorAll(".why rect[data-expert]")) {
        const [left, width] = was.bars.get(bar.dataset.expert) ?? [0, 0];
        const to = [bar.getAttribute("x"), bar.getAttribute("width")];
        bar.animate({ x: [`${left}px`, `${to[0]}px`], width: [`${width}px`, `${to[1]}px`] }, timing);
      }
    }
  }

  // ---- addresses and history: one entry for each question, not for each letter ----

  let isDraft = false; // the current entry is still being typed

  function askForm(isSettled) {
    const where = address();
    if (where === location.search || (where === location.pathname && !location.search)) {
      if (isSettled) settle();
      return;
    }
    history[isDraft ? "replaceState" : "pushState"](null, "", where);
    isDraft = !isSettled;
    ask(where);
    if (isSettled) settle();
  }

  function settle() {
    isDraft = false;
    remember(q.value.trim());
  }

  function later(delay, action) {
    clearTimeout(waiting);
    waiting = setTimeout(action, delay);
  }
  const typed = () => later(PAUSE, () => askForm(false));

  // ---- questions asked before, on this machine alone ----

  const KEPT = 8;
  const recent = () => {
    try {
      const kept = JSON.parse(localStorage.getItem("searches"));
      return Array.isArray(kept) ? kept.filter((text) => typeof text === "string") : [];
    } catch {
      return []; // nothing may be stored here
    }
  };

  function keep(texts) {
    try {
      localStorage.setItem("searches", JSON.stringify(texts.slice(0, KEPT)));
    } catch {
      // A page that may store nothing remembers nothing.
    }
  }

  function remember(text) {
    if (text) keep([text, ...recent().filter((other) => other !== text)]);
  }

  function showRecent() {
    const place = part("recent");
    if (!place) return;
    const items = recent().map((text) => {
      const link = document.createElement("a");
      link.href = `?${new URLSearchParams({ q: text })}`;
      link.dir = "auto";
      link.textContent = text;
      const item = document.createElement("li");
      item.append(link);
      return item;
    });
    place.querySelector("ul").replaceChildren(...items);
    place.hidden = !items.length;
  }

  // ---- what one does ----

  q.addEventListener("input", () => {
    like.value = file.value = "";
    typed();
  });
  form.elements.not.addEventListener("input", typed);
  for (const slider of sliders) {
    slider.addEventListener("input", () => {
      sayWeights();
      // Browsers refuse an address that changes many times a second: it does once this one rests.
      later(MOMENT, () => ask(address()));
    });
  }
  form.addEventListener("change", () => askForm(true));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    askForm(true);
  });
  part("as-trained").addEventListener("click", () => {
    for (const slider of sliders) slider.value = "1";
    sayWeights();
    q.focus();
    askForm(true);
  });
  document.addEventListener("click", (event) => {
    if (event.target.id === "forget") {
      keep([]);
      showRecent();
    }
    const link = event.target.closest("a");
    const isOurs = link?.pathname === location.pathname && link.origin === location.origin;
    if (!isOurs || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.pushState(null, "", link.search || location.pathname);
    fill(location.search);
    settle();
    ask(location.href);
    scrollTo({ top: 0 });
  });
  window.addEventListener("popstate", () => {
    isDraft = false;
    fill(location.search);
    ask(location.href);
  });

  if (window.matchMedia("(max-width: 45rem)").matches) part("more").open = false;
  // A browser that reloads the page may have kept what was typed before.
  fill(location.search);
  settle();
  showRecent();
  videos.start();
  if (!location.search) q.focus();
})();
