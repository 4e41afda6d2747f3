// Why a match is where it is: a bar of what each expert adds, made when its card comes near.
"use strict";

(() => {
  const main = document.querySelector("main");
  const names = JSON.parse(main.dataset.experts);
  const choice = document.getElementById("experts-choice");
  if (!names.length || !choice || !main.querySelector("[data-experts]")) return;
  const COLOURS = 10;

  // Rounded first, so that no zero bears a minus sign.
  const shown = (number) => (Math.round(1000 * number) / 1000 || 0).toFixed(3).replace("-", "−");

  function element(name, className, text = "") {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.textContent = text;
    return made;
  }

  // What a tile's attribute says of each expert, null where one is missing.
  function parse(tile) {
    return tile.dataset.experts.split(" ").map((text) => {
      const [weight, similarity] = text.split(":");
      if (similarity === "-") return null;
      const hasWeight = weight !== "";
      const says = Number(similarity);
      return { hasWeight, weight: Number(weight), says, adds: hasWeight ? weight * says : says };
    });
  }
  const sum = (experts, sign) =>
    experts.reduce((total, one) => total + Math.max(0, sign * (one?.adds ?? 0)), 0);

  const space = "http://www.w3.org/2000/svg";
  function drawn(name, attributes) {
    const made = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  // From `low` (at most 0) to `high`: positive parts stand to the right of zero, negative to the left.
  function stack(experts, low, high) {
    const bar = drawn("svg", { class: "stack", viewBox: "0 0 100 10", preserveAspectRatio: "none" });
    bar.setAttribute("aria-hidden", "true");
    const width = high - low || 1;
    const at = (value) => (100 * (value - low)) / width;
    let [left, right] = [0, 0];
    experts.forEach((one, place) => {
      if (!one || !one.adds) return;
      const start = one.adds > 0 ? right : left + one.adds;
      const size = (100 * Math.abs(one.adds)) / width;
      const colour = `part e${place % COLOURS}`;
      bar.append(drawn("rect", { class: colour, x: at(start), y: 1, width: size, height: 8 }));
      if (one.adds > 0) right += one.adds;
      else left += one.adds;
    });
    const zero = at(0);
    bar.append(drawn("line", { class: "zero", x1: zero, x2: zero, y1: 0, y2: 10 }));
    return bar;
  }

  function line(name, { hasWeight, weight, says, adds }, place) {
    const item = element("li");
    const swatch = drawn("svg", { class: "key", viewBox: "0 0 8 8", "aria-hidden": "true" });
    swatch.append(drawn("rect", { class: `part e${place % COLOURS}`, width: 8, height: 8 }));
    item.append(swatch, element("span", "name", name), " ", element("span", "number", shown(adds)));
    if (hasWeight) {
      const how = `weight ${shown(weight)} times similarity ${shown(says)}`;
      item.title = `${name}: ${how}`;
      item.append(element("span", "unseen", ` (${how})`));
    }
    return item;
  }

  function fill(tile, experts, low, high) {
    const list = element("ul", "experts");
    list.setAttribute("aria-label", "experts");
    experts.forEach((one, place) => {
      if (one) list.append(line(names[place], one, place));
    });
    const missing = names.filter((_, place) => !experts[place]);
    if (missing.length) list.append(element("li", "missing", `without ${missing.join(", ")}`));
    tile.querySelector(".similarity .bar").after(stack(experts, low, high));
    tile.querySelector(".similarity").after(list);
  }

  function fillCard(card) {
    if (card.querySelector(".experts")) return;
    const tiles = [...card.querySelectorAll("[data-experts]")].map((tile) => [tile, parse(tile)]);
    const high = Math.max(0, ...tiles.map(([, experts]) => sum(experts, 1)));
    const low = -Math.max(0, ...tiles.map(([, experts]) => sum(experts, -1)));
    for (const [tile, experts] of tiles) fill(tile, experts, low, high);
  }

  const box = document.getElementById("experts");
  const choose = () => main.classList.toggle("without-experts", !box.checked);
  box.addEventListener("change", choose);
  choice.hidden = false;
  choose();
  whenNear(400, fillCard);
})();
