// Videos that exist only while their card is near the window.
// Without this script they are plain links.
"use strict";

(() => {
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const canHover = window.matchMedia("(hover: hover)");
  const linkOf = new WeakMap(); // video -> the link whose place it takes

  function attach(link) {
    const video = document.createElement("video");
    Object.assign(video, { muted: true, loop: true, playsInline: true, preload: "metadata" });
    video.setAttribute("aria-label", link.getAttribute("aria-label"));
    const thumbnail = link.querySelector("img");
    if (thumbnail) Object.assign(video, { poster: thumbnail.src, preload: "none" });
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

  // Played by key: the event names the place of the video, which may not be there yet.
  document.addEventListener("toggle-video", ({ target }) => {
    target.querySelectorAll("a.play").forEach(attach);
    const video = target.querySelector("video");
    if (!video) return;
    if (video.paused) video.play().catch(() => {}); // the note in its place says what is wrong
    else video.pause();
  });

  whenNear(
    100,
    (card) => card.querySelectorAll("a.play").forEach(attach),
    (card) => card.querySelectorAll("video").forEach(release)
  );
})();
