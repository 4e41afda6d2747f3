// Tells which cards are near the window, for what is made only there.
"use strict";

(() => {
  const MOMENT = 120; // milliseconds
  const observers = [];

  // Calls `arrive` with each card that stays within `margin` pixels of the window for a moment (one
  // that only flies past is left alone), and `leave` with each that is no longer there.
  globalThis.whenNear = (margin, arrive, leave = () => {}) => {
    const waiting = new Map();
    const observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          clearTimeout(waiting.get(target));
          if (isIntersecting) waiting.set(target, setTimeout(arrive, MOMENT, target));
          else leave(target);
        }
      },
      { rootMargin: `${margin}px 0px` }
    );
    observers.push(observer);
    document.querySelectorAll(".card").forEach((card) => observer.observe(card));
  };

  // For cards that were not there from the beginning.
  globalThis.watchCard = (card) => observers.forEach((observer) => observer.observe(card));
})();
