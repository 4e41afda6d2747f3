"""The last words of a run: its metrics, and where to find what it left."""

import shlex
from collections.abc import Mapping, Sequence
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
    note: str = "",
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
        note: a last line.
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
    return "\n".join([*lines, note] if note else lines)


_TEST_SPLIT = "--eval_from_training_config"


def other_split(splits: tuple[str, str], arguments: Sequence[str]) -> str:
    """Say which split a test was on, and how to test on the other one.

    Args:
        splits: the one that training validates on, and the one of its final test.
        arguments: the command line of the test.
    """
    validation, test = splits
    if validation == test:
        return ""
    others = [argument for argument in arguments if argument != _TEST_SPLIT]
    command = f"python3 test.py {shlex.join(others)}"
    if len(others) < len(arguments):
        return f"This was the test split. For the validation split {validation}: {command}"
    return (
        f"This was the validation split {validation}. For the test split {test}: {command} "
        f"{_TEST_SPLIT}"
    )
