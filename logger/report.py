"""The last words of a run: its metrics, and where to find what it left."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from logger.tables import metrics_table


def describe_run(
    metrics: Mapping[str, Mapping[str, float]],
    split: str,
    checkpoint: Path,
    log: Path,
    page: Path | None,
    tensorboard: bool = False,
    predictions: Path | None = None,
) -> str:
    """Tell in a few lines how a run went and how to look at it.

    Args:
        metrics: metric name -> R1, R5, ...
        split: name of what was tested on.
        checkpoint: the weights that were tested.
        log: folder of the log.
        page: the rankings page, where one was drawn.
        tensorboard: whether there are curves beside the log.
        predictions: those for a challenge, which stand in place of metrics.
    """
    if predictions:
        lines = [f"Predictions for {split}, no metrics (challenge_mode):", ""]
        lines.append(f"predictions  {predictions}")
    else:
        lines = [f"Test on {split}:", metrics_table(metrics), ""]
    lines.append(f"checkpoint   {checkpoint}")
    lines.append(f"log          {log / 'info.log'}  (metrics as JSON beside it)")
    if tensorboard:
        lines.append(f"TensorBoard  tensorboard --logdir {shlex.quote(str(log))}")
    if page:
        lines.append(f"rankings     python3 -m misc.serve_rankings {shlex.quote(str(page.parent))}")
    return "\n".join(lines)
