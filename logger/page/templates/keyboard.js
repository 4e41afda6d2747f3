// Next, previous, play and filter by key; "?" tells them, and there they can be turned off.
"use strict";

(() => {
  const box = document.getElementById("keys");
  if (!document.querySelector(".card")) return;
  const dialog = document.getElementById("keys-help");
  const help = document.getElementById("help");
  help.hidden = false;
  help.addEventListener("click", () => dialog.showModal());
  document.getElementById("keys-close").addEventListener("click", () => dialog.close());

  const shown = () => [...document.querySelectorAll(".cards:not([hidden]) .card")];

  // The card with the focus, else the one that was last led to.
  const current = () =>
    document.activeElement.closest(".card") ??
    document.querySelector(".cards:not([hidden]) .card[aria-current]");

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

  function filter() {
    document.querySelector(".tools").open = true;
    document.getElementById("search").focus();
  }

  const actions = {
    j: () => step(1),
    k: () => step(-1),
    " ": () => toggle(".is-true .media, .truth .media"),
    "/": filter,
    "?": () => dialog.showModal(),
  };
  for (let place = 1; place <= 9; place++) {
    actions[place] = () => toggle(`.videos li:nth-child(${place}) .media`);
  }

  const writes = "input:not([type=checkbox], [type=radio]), select, textarea";
  // The space bar already means something to these.
  const pressed = "input, button, a, summary, video";

  document.addEventListener("keydown", (event) => {
    const isOurs = box.checked && !dialog.open && !event.ctrlKey && !event.altKey && !event.metaKey;
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
      history.replaceState(null, "", `${location.pathname}${location.search}#${card.id}`);
    }
  });
})();
