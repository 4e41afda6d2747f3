// Videos that exist only while their card is near the window.
// Without this script they are plain links.
"use strict";

(() => {
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const canHover = window.matchMedia("(hover: hover)");
  const linkOf = new WeakMap(); // video -> the link whose place it takes

  const play = (video) => video.play().catch(() => {}); // left again before it could start
  const toggle = (video) => (video.paused ? play(video) : video.pause());

  function attach(link) {
    const video = document.createElement("video");
    Object.assign(video, { muted: true, loop: true, playsInline: true, preload: "metadata" });
    video.setAttribute("aria-label", link.getAttribute("aria-label"));
    const thumbnail = link.querySelector("img");
    if (thumbnail) Object.assign(video, { poster: thumbnail.src, preload: "none" });
    // The controls hide much of a small picture: they appear under the mouse, or once a finger has
    // started it.
    video.addEventListener("pointerenter", () => (video.controls ||= canHover.matches));
    video.addEventListener("pointerleave", () => {
      if (canHover.matches) video.controls = false;
    });
    video.addEventListener("click", (event) => {
      if (video.controls) return;
      event.preventDefault();
      play(video);
      video.controls = true;
    });
    video.addEventListener("keydown", (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      if (!event.repeat) toggle(video);
    });

    let startedByHover = false;
    video.addEventListener("pointerenter", (event) => {
      if (event.pointerType !== "mouse" || still.matches || !video.paused) return;
      startedByHover = true;
      play(video);
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
    video.tabIndex = link.tabIndex;
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

  // One stop of the tabulator for all videos of a card; arrows lead from one to the next.
  function arrange(card) {
    const links = [...card.querySelectorAll("a.play")];
    links.forEach((link, place) => (link.tabIndex = place ? -1 : 0));
    links.forEach(attach);
  }
  document.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const isOurs = by && event.target.matches(".media > video");
    if (!isOurs || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const videos = [...event.target.closest(".card").querySelectorAll(".media > video")];
    const next = videos[videos.indexOf(event.target) + by];
    event.preventDefault();
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });

  // Played by key: the event names the place of the video, which may not be there yet.
  document.addEventListener("toggle-video", ({ target }) => {
    target.querySelectorAll("a.play").forEach(attach);
    const video = target.querySelector("video");
    if (video) toggle(video);
  });

  whenNear(100, arrange, (card) => card.querySelectorAll("video").forEach(release));
})();
