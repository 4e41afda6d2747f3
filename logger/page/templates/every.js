// Loads what lies beside the page in scripts: the index of all queries, and parts with their cards.
"use strict";

// Gives what the script `name` of a folder holds; `base` leads from this page to that of the folder.
globalThis.loadData = (() => {
  const loading = new Map();
  return (folder, name, base = "") => {
    const address = `${base}data/${folder}/${name}.js`;
    if (!loading.has(address)) {
      const loaded = new Promise((done, failed) => {
        const script = document.createElement("script");
        script.addEventListener("load", () => done(globalThis.rankingData[`${folder}/${name}`]));
        script.addEventListener("error", () => {
          loading.delete(address);
          failed(new Error(`${address} cannot be loaded`));
        });
        script.src = address;
        document.head.append(script);
      });
      loading.set(address, loaded);
    }
    return loading.get(address);
  };
})();

// The texts of a query, as a list.
globalThis.textsOf = (index, query) => [index.query.text[query]].flat();

// A rank counts as this place: a half as the one before it, but never as the first.
globalThis.placeOf = (rank) => (rank === 1 ? 1 : Math.max(2, Math.floor(rank)));
