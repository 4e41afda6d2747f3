"""Mean and standard deviation over the seeds of an experiment."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def summarise_seeds(metrics_by_seed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the metrics of several seeds, one dict each.

    Returns:
        For each metric `{"mean": ..., "std": ..., "values": [...]}` with the values in the order
        of the seeds. The standard deviation is that of a sample (divided by n - 1), None for one
        seed. A metric that is a dict of metrics is summarised entry by entry.

    Raises:
        ValueError: no seed at all, or seeds that do not have the same metrics.
    """
    if not metrics_by_seed:
        raise ValueError("There is no seed to summarise.")
    names = list(metrics_by_seed[0])
    for metrics in metrics_by_seed:
        odd = set(names) ^ set(metrics)
        if odd:
            raise ValueError(f"Not every seed has the metric {sorted(odd)[0]}.")
    return {name: _summary([metrics[name] for metrics in metrics_by_seed]) for name in names}


def _summary(values: list[Any]) -> dict[str, Any]:
    if isinstance(values[0], Mapping):
        return summarise_seeds(values)
    values = [float(value) for value in values]
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "values": values,
    }
