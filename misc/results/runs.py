"""Runs on the disk: what each has measured, with which config, and how far it came."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.runs.folder import BEST, RunFolder, age_of, has_ended
from utils.config import NAME_KEY, Config
from utils.errors import UserError
from utils.files import read_json

Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        log: the folder of its log.
        metrics: what its `metrics.json` holds.
        folder: all of its folders; None where its log was copied elsewhere, alone.
        config: the values it was made with; None where they do not lie beside its checkpoints.
    """

    log: Path
    metrics: Mapping[str, Any]
    folder: RunFolder | None
    config: Mapping[str, Any] | None

    @property
    def seed(self) -> int | None:
        """The seed of a finished training; a checkpoint that was only tested has none."""
        seed = self.metrics.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def parameters(self) -> int | None:
        count = self.metrics.get("parameters")
        return count if isinstance(count, int) else None

    @property
    def is_quick_try(self) -> bool:
        return bool(self.metrics.get("quick_try"))

    @property
    def is_finished(self) -> bool:
        """Whether it has the test (or predictions) that end a training, or is but a test."""
        return has_ended(self.metrics)

    @property
    def final_split(self) -> str:
        return self.metrics.get("test_split", "")

    def test_on(self, split: str) -> Metrics | None:
        """Return the metrics of its best model on a split, None where it was not tested there.

        Raises:
            UserError: what stands there are no metrics.
        """
        if self.is_finished and split == self.final_split and "test" in self.metrics:
            return self._checked(self.metrics["test"])
        tests = self.metrics.get("tests", [])
        if not isinstance(tests, list) or not all(isinstance(test, dict) for test in tests):
            raise self._damage()
        found = [t for t in tests if t.get("test_split") == split]
        best = [t for t in found if t.get("checkpoint") == BEST] or found
        return self._checked(best[-1].get("test")) if best and self.is_finished else None

    def ended_with(self, split: str) -> bool:
        """Whether its training ended with a test on a split, or with predictions for it.

        Raises:
            UserError: what stands there are no metrics.
        """
        if not self.is_finished or split != self.final_split:
            return False
        return "predictions" in self.metrics or self.test_on(split) is not None

    def predictions_on(self, split: str) -> Path | None:
        """Return the predictions of its best model for a challenge, None where there are none.

        Raises:
            UserError: what stands there are no predictions.
        """
        made = self.metrics.get("predictions", [])
        if not isinstance(made, list) or not all(isinstance(entry, dict) for entry in made):
            raise self._damage()
        for entry in made:
            if entry.get("test_split") == split and entry.get("checkpoint") == BEST:
                path = self.log / Path(str(entry.get("file"))).name
                return path if self.is_finished and path.is_file() else None
        return None

    def _checked(self, metrics: Any) -> Metrics:
        rows = metrics.values() if isinstance(metrics, dict) else [None]
        for row in rows:
            values = row.values() if isinstance(row, dict) else [None]
            if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
                raise self._damage()
        return metrics

    def _damage(self) -> UserError:
        return UserError(
            f"The metrics file {self.log / 'metrics.json'} does not hold what a test measured: "
            "remove it and test the run's checkpoint again (test.py --resume)."
        )


def runs_under(log: Path) -> list[Run]:
    """Read the runs whose logs lie under a folder, from the oldest to the newest.

    Raises:
        UserError: a metrics file or a stored config cannot be read.
    """
    return [
        _read_run(path)
        for path in sorted(log.rglob("metrics.json"), key=lambda path: age_of(path.parent))
    ]


def readable_runs(log: Path) -> tuple[list[Run], list[str]]:
    """Read those runs under a folder that can be read, oldest first, and say why others cannot."""
    runs, faults = [], []
    for path in sorted(log.rglob("metrics.json"), key=lambda path: age_of(path.parent)):
        try:
            run = _read_run(path)
            epochs = run.metrics.get("epochs", [])
            is_whole = isinstance(epochs, list) and all(isinstance(e, dict) for e in epochs)
            if not is_whole or not isinstance(run.final_split, str):
                raise run._damage()
            run.test_on(run.final_split)
            runs.append(run)
        except UserError as error:
            faults.append(str(error))
    return runs, faults


def runs_of(config: Config) -> list[Run]:
    """Read the runs of a config's experiment, with these or other values, oldest first."""
    return runs_under(Path(config["trainer.save_dir"], "log", config.name))


def experiment_name(run: Run, default: str) -> str:
    """Name the experiment of a run; `default` where neither its files nor its place do."""
    if "name" in run.metrics:
        return str(run.metrics["name"])
    if run.folder is None:
        return default
    return run.folder.experiment


def newest_by_seed(runs: Iterable[Run]) -> list[Run]:
    """Keep the newest run of each seed, in the order of the seeds; `runs` are oldest first."""
    by_seed = {run.seed: run for run in runs}
    return [by_seed[seed] for seed in sorted(by_seed, key=lambda s: -1 if s is None else s)]


def _read_run(path: Path) -> Run:
    metrics = read_json(path, "metrics file")
    if not isinstance(metrics, dict):
        raise UserError(f"The metrics file {path} must hold a JSON dict ({{...}}).")
    folder = RunFolder.of_log(path.parent)
    config = None
    if folder is not None and folder.config.is_file():
        config = read_json(folder.config, "config")
        if not isinstance(config, dict):
            raise UserError(f"The config {folder.config} must hold a JSON dict ({{...}}).")
        config = {key: value for key, value in config.items() if key != NAME_KEY}
    return Run(path.parent, metrics, folder, config)
