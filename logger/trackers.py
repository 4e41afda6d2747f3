"""Who is told how a training goes: TensorBoard, Weights & Biases, MLflow, any number of them.

`metrics.json` and the log keep the names of metrics that people parse (`val_t2v_metrics_R1`);
trackers show the same under groups (`val/t2v/R@1`).
"""

import importlib
import importlib.util
import io
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from logger.results import COLUMNS
from logger.tensorboard import TensorBoardWriter
from utils.errors import UserError, did_you_mean
from utils.files import make_folder
from utils.stopping import BASE_CODE, Stopped, stop_behind

_log = logging.getLogger(__name__)

_METRIC = re.compile(r"(val|test)_(t2v|v2t)_metrics(_corrected)?_(.+)")
_GROUPS = {
    "loss": "train/loss",
    "distil_loss": "train/loss from teachers",
    "lr": "train/learning rate",
    "gradient_norm": "train/gradient norm",
    "steps_per_second": "speed/steps per second",
    "seconds": "speed/seconds of an epoch",
    "seconds_data": "speed/seconds of waiting for data",
    "seconds_step": "speed/seconds of steps",
    "seconds_evaluation": "speed/seconds of evaluation",
}


def group_of(name: str) -> str:
    """The name of a value in trackers: its group first, so that curves of a kind stand together."""
    found = _METRIC.fullmatch(name)
    if not found:
        return _GROUPS.get(name, name)
    stage, direction, corrected, metric = found.groups()
    ending = ", hubs corrected" if corrected else ""
    label = "geometric mean" if metric.startswith("geometric_mean") else COLUMNS.get(metric, metric)
    return f"{stage}/{direction}{ending}/{label}"


@dataclass(frozen=True)
class About:
    """The run that is tracked.

    Attributes:
        save_dir: where all runs lie; what a tracker keeps for several runs lies there.
        folder: of this one's curves.
        experiment: its name.
        run: what tells this one from others of the experiment.
        purge_step: when a training resumes, its first step.
    """

    save_dir: Path
    folder: Path
    experiment: str
    run: str
    purge_step: int | None = None


class Tracker(Protocol):
    """What every tracker can be told; all names are those of `group_of`."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve."""

    def picture(self, name: str, jpeg: bytes, step: int) -> None:
        """Show a picture (a JPEG), where it shows pictures."""

    def end(self, hyperparameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Tell with what the training was made, and what its test measured."""

    def close(self, code: int) -> None:
        """Write what is still waiting; the training ends with an exit code, 0 where it succeeds."""


class _TensorBoard:
    def __init__(self, about: About) -> None:
        self.writer = TensorBoardWriter(about.folder, purge_step=about.purge_step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.writer.scalars("", values, step)

    def picture(self, name: str, jpeg: bytes, step: int) -> None:
        self.writer.picture(name, jpeg, step)

    def end(self, hyperparameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        self.writer.hyperparameters(hyperparameters, metrics)

    def close(self, code: int) -> None:
        self.writer.close()


class _Wandb:
    """Weights & Biases; without an account or a network the run lies in `wandb/offline-run-*`."""

    def __init__(self, about: About) -> None:
        wandb = importlib.import_module("wandb")
        # What the user has set wins; nothing is sent anywhere unless somebody has asked for it.
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", about.experiment),
            name=about.run,
            dir=str(make_folder(about.save_dir)),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        # Its own count may only grow: curves over steps and those over epochs each get an axis.
        self._run.define_metric("*", step_metric="epoch")
        self._run.define_metric("step/*", step_metric="steps")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        is_of_steps = all(name.startswith("step/") for name in values)
        self._run.log({**values, "steps" if is_of_steps else "epoch": step})

    def picture(self, name: str, jpeg: bytes, step: int) -> None:
        wandb, pillow = map(importlib.import_module, ("wandb", "PIL.Image"))
        image = wandb.Image(pillow.open(io.BytesIO(jpeg)), file_type="jpg")
        self._run.log({name: image, "epoch": step})

    def end(self, hyperparameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        self._run.config.update(dict(hyperparameters), allow_val_change=True)
        self._run.summary.update(dict(metrics))

    def close(self, code: int) -> None:
        self._run.finish(exit_code=code)


class _MLflow:
    """MLflow; without `MLFLOW_TRACKING_URI` it writes into `<save_dir>/mlflow.db`."""

    def __init__(self, about: About) -> None:
        client = importlib.import_module("mlflow").MlflowClient
        local = f"sqlite:///{make_folder(about.save_dir).resolve() / 'mlflow.db'}"
        self._client = client(os.environ.get("MLFLOW_TRACKING_URI", local))
        experiment = self._client.get_experiment_by_name(about.experiment)
        number = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(about.experiment)
        )
        self._run = self._client.create_run(number, run_name=about.run).info.run_id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        metric = importlib.import_module("mlflow.entities").Metric
        now = int(time.time() * 1000)
        # Its names may not hold an "@" or a comma.
        metrics = [
            metric(name.replace("@", "").replace(",", ""), float(value), now, step)
            for name, value in values.items()
        ]
        self._client.log_batch(self._run, metrics=metrics)

    def picture(self, name: str, jpeg: bytes, step: int) -> None:
        """Nothing: it keeps pictures in a store of its own, which need not be beside the runs."""

    def end(self, hyperparameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        param = importlib.import_module("mlflow.entities").Param
        params = [param(name, str(value)[:_LONGEST]) for name, value in hyperparameters.items()]
        self._client.log_batch(self._run, params=params[:_MOST_PARAMS])
        self.scalars(metrics, 0)

    def close(self, code: int) -> None:
        ended = "KILLED" if code > BASE_CODE else "FAILED" if code else "FINISHED"
        self._client.set_terminated(self._run, ended)


_FAILED = 1  # the exit code of a training that fails, whatever the reason
_LONGEST, _MOST_PARAMS = 6000, 100  # of a parameter, and of a batch of them in MLflow

# Name -> what makes it, and the package that it needs.
TRACKERS: dict[str, tuple[Callable[[About], Tracker], str]] = {
    "tensorboard": (_TensorBoard, "tensorboard"),
    "wandb": (_Wandb, "wandb"),
    "mlflow": (_MLflow, "mlflow"),
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse what cannot be used, before anything is opened.

    Raises:
        UserError: a tracker is not known, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(
                f'trainer.trackers: "{name}" is not known{did_you_mean(name, TRACKERS)}; there are '
                f"{', '.join(TRACKERS)}."
            )
        package = TRACKERS[name][1]
        if importlib.util.find_spec(package) is None:
            file = "pip" if name == "tensorboard" else "trackers"
            raise UserError(
                f'trainer.trackers names "{name}", whose package is not installed: '
                f"pip install -r requirements/{file}-requirements.txt, or leave it out."
            )


class Trackers:
    """All trackers of a training; none of them can stop it.

    Args:
        names: of `TRACKERS`.
        about: the run.

    Raises:
        UserError: one is not known, not installed, or cannot begin.
    """

    def __init__(self, names: Sequence[str], about: About) -> None:
        check_trackers(names)
        self._trackers: dict[str, Tracker] = {}
        for name in dict.fromkeys(names):
            try:
                self._trackers[name] = TRACKERS[name][0](about)
            except UserError:
                self.close(_FAILED)
                raise
            except Exception as error:  # a package may raise anything
                self.close(_FAILED)
                what = " ".join(str(error).split())[:200]
                raise UserError(f'The tracker "{name}" cannot begin: {what}.') from error

    @property
    def _tensorboard(self) -> TensorBoardWriter | None:
        tracker = self._trackers.get("tensorboard")
        return tracker.writer if isinstance(tracker, _TensorBoard) else None

    @property
    def is_enabled(self) -> bool:
        """Whether texts or pictures are shown: what costs time to make can be left out."""
        tensorboard = self._tensorboard
        return bool(tensorboard and tensorboard.is_enabled) or "wandb" in self._trackers

    def scalars(self, prefix: str, values: Mapping[str, float], step: int) -> None:
        """Add one point to the curve of each value: `prefix/name`, or that of its group."""
        grouped = {f"{prefix}/{k}" if prefix else group_of(k): v for k, v in values.items()}
        self._tell(lambda tracker: tracker.scalars(grouped, step))

    def histogram(self, name: str, values: Sequence[float], step: int) -> None:
        """Add how values are spread at one step."""
        if self._tensorboard:
            self._tensorboard.histogram(name, values, step)

    def text(self, name: str, markdown: str, step: int) -> None:
        """Add a text at one step."""
        if self._tensorboard:
            self._tensorboard.text(name, markdown, step)

    def picture(self, name: str, jpeg: bytes, step: int) -> None:
        """Show a picture (a JPEG) of one step."""
        self._tell(lambda tracker: tracker.picture(name, jpeg, step))

    def end(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Tell the values of a training's config, and what its test measured."""
        flat = flattened(config)
        grouped = {group_of(name): value for name, value in metrics.items()}
        self._tell(lambda tracker: tracker.end(flat, grouped))

    def close(self, code: int = 0) -> None:
        """Write what is still waiting, and stop; closing twice does nothing.

        Args:
            code: the exit code of the training: trackers tell whether it succeeded.
        """
        self._tell(lambda tracker: tracker.close(code))
        self._trackers = {}

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stop = stop_behind(error)
        code = 0 if error is None else _FAILED
        self.close(stop.exit_code if isinstance(stop, Stopped) else code)

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in [*self._trackers.items()]:
            try:
                what(tracker)
            except Exception as error:  # noqa: BLE001  # curves can be missed, a training cannot
                del self._trackers[name]
                what_failed = " ".join(str(error).split())[:200]
                _log.warning('The tracker "%s" ends here: %s.', name, what_failed)


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a nested dict by dotted keys; lists as texts."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{name}.")
        else:
            is_plain = isinstance(value, bool | int | float | str)
            flat[name] = value if is_plain else str(value)
    return flat
