// Next, previous, play and search by key; each can be turned off in "How to read this page".
"use strict";

(() => {
  const box = document.getElementById("keys");
  const help = document.querySelector(".keys");
  if (!document.querySelector(".card")) return;
  help.hidden = false;

  const shown = () => [...document.querySelectorAll(".cards:not([hidden]) .card:not([hidden])")];

  // The card with the focus, else the one that was last led to.
  const current = () =>
    document.activeElement.closest(".card") ??
    document.querySelector(".cards:not([hidden]) .card[aria-current]:not([hidden])");

  function step(by) {
    const cards = shown();
    const at = cards.indexOf(current());
    const card = at < 0 ? cards[0] : cards[at + by];
    if (card) showCard(card);
  }

  function toggle(selector) {
    const place = (current() ?? shown()[0])?.querySelector(selector);
    place?.dispatchEvent(new CustomEvent("toggle-video", { bubbles: true }));
  }

  const actions = {
    j: () => step(1),
    k: () => step(-1),
    " ": () => toggle(".truth .media"),
    "/": () => document.getElementById("search").focus(),
  };
  for (let place = 1; place <= 9; place++) {
    actions[place] = () => toggle(`.videos li:nth-child(${place}) .media`);
  }

  const writes = "input:not([type=checkbox], [type=radio]), select, textarea";
  // The space bar already means something to these.
  const pressed = "input, button, a, summary, video";

  document.addEventListener("keydown", (event) => {
    const isOurs = box.checked && !event.ctrlKey && !event.altKey && !event.metaKey;
    const action = actions[event.key];
    if (!isOurs || !action || event.target.matches(writes)) return;
    if (event.key === " " && (event.target.matches(pressed) || event.repeat)) return;
    event.preventDefault();
    action();
  });

  // Only once the key is up: browsers refuse an address that changes many times a second.
  document.addEventListener("keyup", (event) => {
    const card = current();
    if ((event.key === "j" || event.key === "k") && box.checked && card === document.activeElement) {
      history.replaceState(null, "", `#${card.id}`);
    }
  });
})();
