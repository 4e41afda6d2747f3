// The best videos play, muted, each from the second that matches; the others when asked to.
// Without this script they stand still, with controls.
"use strict";

globalThis.videos = (() => {
  const BEST = 5; // play by themselves, and may be loaded at once
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const canHover = window.matchMedia("(hover: hover)");
  let paused = still.matches; // all of them, by the reader's wish

  // A video that was released again before it could start is no fault.
  const play = (video) => video.play().catch(() => {});
  const all = () => [...document.querySelectorAll(".hit video")];
  const toggle = (video) => video && (video.paused ? play(video) : video.pause());

  const inSight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) target.pause();
      else if (target.dataset.poster) target.poster = target.dataset.poster;
      else if (!paused) play(target);
    }
  });

  // A browser has few connections to one server, and a video keeps its own: the page needs one.
  let loaded = [];

  function keepFew(video) {
    loaded = [...loaded.filter((other) => other !== video), video];
    loaded.splice(0, loaded.length - BEST).forEach(release);
  }

  function release(video) {
    video.preload = "none";
    if (!video.isConnected) video.removeAttribute("src");
    video.load();
  }

  function prepare(video) {
    if (video.dataset.ready) return;
    video.dataset.ready = "true";
    video.muted = true; // the attribute counts only where a page is loaded
    const [start, end] = [Number(video.dataset.start), Number(video.dataset.end) || Infinity];
    video.addEventListener("timeupdate", () => {
      // Round about the match, unless one has gone elsewhere by the controls.
      const wentRound = video.currentTime < Math.min(start, 0.5) && !video.seeking;
      const passed = video.currentTime >= end && video.currentTime < end + 1;
      if (document.activeElement !== video && (wentRound || passed)) video.currentTime = start;
    });
    // The controls hide much of a small picture: they appear under the mouse or with the focus.
    const offerControls = () => {
      const isInUse = video === document.activeElement || video.matches(":hover");
      video.controls = isInUse || !canHover.matches;
    };
    for (const type of ["pointerenter", "pointerleave", "focus", "blur"]) {
      video.addEventListener(type, offerControls);
    }
    if (video.dataset.poster && canHover.matches) {
      video.addEventListener("pointerenter", () => play(video));
      video.addEventListener("pointerleave", () => video.pause());
    }
    video.tabIndex = 0;
    offerControls();
    video.addEventListener("play", () => keepFew(video));
    const saySo = () => {
      const note = document.createElement("p");
      note.className = "no-media";
      note.textContent = "this video cannot be played";
      video.parentElement?.replaceWith(note);
    };
    video.addEventListener("error", saySo);
    if (video.error) saySo(); // it has failed before this script came
  }

  // Called for every new list of videos.
  function start() {
    inSight.disconnect();
    loaded.filter((video) => !video.isConnected).forEach(release);
    loaded = loaded.filter((video) => video.isConnected);
    document.querySelectorAll(".hit .media img").forEach((picture) => {
      picture.addEventListener("error", () => picture.remove());
    });
    for (const video of all()) {
      prepare(video);
      inSight.observe(video);
    }
  }

  function toggleAll() {
    paused = all().some((video) => !video.paused);
    for (const video of all()) {
      if (paused) video.pause();
      else if (!video.dataset.poster) play(video);
    }
  }

  return { start, toggle, toggleAll, still };
})();
