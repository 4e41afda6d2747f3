// The search by key; the keys can be turned off in "How to read this page".
"use strict";

(() => {
  const part = (id) => document.getElementById(id);
  const box = part("keys");
  const q = part("q");
  const hits = () => [...document.querySelectorAll(".hit")];
  const current = () => document.activeElement.closest(".hit");
  const videoOf = (hit) => hit?.querySelector("video");
  document.querySelector(".keys").hidden = false;

  function step(by) {
    const all = hits();
    const at = all.indexOf(current());
    const hit = at < 0 ? all[0] : all[at + by];
    hit?.focus({ preventScroll: true });
    hit?.scrollIntoView({ block: "nearest" });
  }

  const actions = {
    j: () => step(1),
    k: () => step(-1),
    m: () => (current() ?? hits()[0])?.querySelector(".like a").click(),
    p: () => videos.toggleAll(),
    " ": () => videos.toggle(videoOf(current() ?? hits()[0])),
    "/": () => q.select(),
    "?": () => {
      part("help").open = true;
      part("help").scrollIntoView();
    },
  };
  for (let place = 1; place <= 9; place++) {
    actions[place] = () => videos.toggle(videoOf(hits()[place - 1]));
  }

  const writes = "input:not([type=checkbox], [type=range])";
  // The space bar already means something to these.
  const pressed = "input, button, a, summary, video";

  document.addEventListener("keydown", (event) => {
    if (!box.checked || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target === q && (event.key === "ArrowDown" || event.key === "Escape")) {
      if (event.key === "ArrowDown") step(1);
      else {
        q.value = "";
        q.dispatchEvent(new Event("input"));
      }
      event.preventDefault();
      return;
    }
    const action = actions[event.key];
    if (!action || event.target.matches(writes)) return;
    if (event.key === " " && (event.target.matches(pressed) || event.repeat)) return;
    event.preventDefault();
    action();
  });
})();
