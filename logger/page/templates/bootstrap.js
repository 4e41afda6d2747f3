// How sure a difference of two runs is: the paired bootstrap (Efron and Tibshirani 1993).
"use strict";

globalThis.bootstrap = (() => {
  const RESAMPLES = 2000;
  const SEED = 1;

  // Numbers from 0 up to 1, the same for the same seed (mulberry32).
  function generator(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  // 95 % intervals of the mean differences of queries. Queries of one video are not independent:
  // videos are drawn, each with all of its queries.
  // `differences` has a list for each measure, `owners` the video of each query.
  function intervals(differences, owners) {
    const places = new Map();
    const groups = owners.map((owner) => {
      if (!places.has(owner)) places.set(owner, places.size);
      return places.get(owner);
    });
    const size = places.size;
    const counts = new Float64Array(size);
    groups.forEach((group) => (counts[group] += 1));
    const sums = differences.map((values) => {
      const sum = new Float64Array(size);
      values.forEach((value, query) => (sum[groups[query]] += value));
      return sum;
    });
    const draw = generator(SEED);
    const means = differences.map(() => new Float64Array(RESAMPLES));
    for (let resample = 0; resample < RESAMPLES; resample++) {
      const totals = new Float64Array(sums.length);
      let count = 0;
      for (let drawn = 0; drawn < size; drawn++) {
        const group = Math.floor(draw() * size);
        count += counts[group];
        for (let measure = 0; measure < sums.length; measure++) totals[measure] += sums[measure][group];
      }
      for (let measure = 0; measure < sums.length; measure++) {
        means[measure][resample] = totals[measure] / count;
      }
    }
    const at = (sorted, part) => sorted[Math.min(RESAMPLES - 1, Math.floor(part * RESAMPLES))];
    return means.map((values) => {
      const sorted = values.sort();
      return [at(sorted, 0.025), at(sorted, 0.975)];
    });
  }
  return intervals;
})();
