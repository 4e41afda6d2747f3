// Which experts speak for a match: small bars, made when their card comes near the window.
"use strict";

(() => {
  const main = document.querySelector("main");
  const names = JSON.parse(main.dataset.experts);
  const choice = document.getElementById("experts-choice");
  if (!names.length || !choice || !main.querySelector("[data-experts]")) return;

  // Rounded first, so that no zero bears a minus sign.
  const shown = (number) => (Math.round(100 * number) / 100 || 0).toFixed(2).replace("-", "−");

  function element(name, className, text = "") {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  }

  function bars(weight, similarity) {
    const space = "http://www.w3.org/2000/svg";
    const drawing = document.createElementNS(space, "svg");
    drawing.setAttribute("viewBox", "0 0 100 8");
    drawing.setAttribute("preserveAspectRatio", "none");
    drawing.setAttribute("aria-hidden", "true");
    for (const [kind, value, y, height] of [
      ["weight", weight, 0, 2],
      ["says", similarity, 3, 5],
    ]) {
      const bar = document.createElementNS(space, "rect");
      bar.setAttribute("class", kind);
      bar.setAttribute("y", y);
      bar.setAttribute("height", height);
      bar.setAttribute("width", Math.min(100, Math.max(0, 100 * value)));
      drawing.append(bar);
    }
    return drawing;
  }

  function line(name, text) {
    const [weight, similarity] = text.split(":");
    const isMissing = similarity === "-";
    const item = element("li", isMissing ? "missing" : "");
    const label = element("span", "name", name);
    item.append(label);
    if (isMissing) {
      item.append(" ", element("span", "note", "missing"));
      item.title = `${name}: missing`;
      return item;
    }
    const says = `similarity ${shown(similarity)}`;
    const asks = weight === "" ? "" : `weight ${shown(weight)}`;
    item.title = `${name}: ${[asks, says].filter(Boolean).join(", ")}`;
    item.append(bars(Number(weight), Number(similarity)));
    item.append(element("span", "unseen", ` ${asks} similarity `));
    item.append(element("span", "number", shown(similarity)));
    return item;
  }

  function fill(tile) {
    if (tile.querySelector(".experts")) return;
    const list = element("ul", "experts");
    list.setAttribute("aria-label", "experts");
    list.append(...tile.dataset.experts.split(" ").map((text, i) => line(names[i], text)));
    (tile.querySelector("figcaption") ?? tile).append(list);
  }

  const box = document.getElementById("experts");
  const choose = () => main.classList.toggle("without-experts", !box.checked);
  box.addEventListener("change", choose);
  choice.hidden = false;
  choose();
  whenNear(400, (card) => card.querySelectorAll("[data-experts]").forEach(fill));
})();
