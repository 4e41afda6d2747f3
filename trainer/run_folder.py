"""A run is its folder: checkpoints and config, log and metrics, and the rankings page."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from data_loader.errors import UserError
from data_loader.files import make_folder, read_json, write_json


@dataclass(frozen=True)
class RunFolder:
    """The three folders of one run, alike but for their first name.

    `<save_dir>/{models,log,web}/<experiment>/[<group_id>/][seed-<s>/]<timestamp>/`
    """

    models: Path
    log: Path
    web: Path

    @classmethod
    def create(
        cls, save_dir: Path, experiment: str, seed: int | None = None, group_id: str = ""
    ) -> "RunFolder":
        """Make the folders of a new run, named after this moment.

        `seed` and `group_id` are named where the run is one of several of the experiment.

        Raises:
            UserError: the folder cannot be written.
        """
        place = Path(experiment, group_id, "" if seed is None else f"seed-{seed}")
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        number = 1
        name = stamp
        while (save_dir / "models" / place / name).exists():
            number += 1
            name = f"{stamp}_{number}"
        return cls._at(save_dir, place / name)._made()

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "RunFolder | None":
        """Find the run that a checkpoint belongs to; None where it lies in no run's folder."""
        folder = checkpoint.resolve().parent
        if not (folder / "config.json").is_file():
            return None
        for ancestor in folder.parents:
            if ancestor.name == "models":
                return cls._at(ancestor.parent, folder.relative_to(ancestor))._made()
        return None

    @classmethod
    def of_log(cls, log: Path) -> "RunFolder | None":
        """Find the run whose log lies in a folder; None where that lies in no folder of logs."""
        folder = log.resolve()
        for ancestor in folder.parents:
            if ancestor.name == "log":
                return cls._at(ancestor.parent, folder.relative_to(ancestor))
        return None

    @classmethod
    def _at(cls, save_dir: Path, place: Path) -> "RunFolder":
        return cls(*(save_dir / kind / place for kind in ("models", "log", "web")))

    def _made(self) -> "RunFolder":
        for folder in (self.models, self.log, self.web):
            make_folder(folder)
        return self

    @contextmanager
    def kept_if_used(self) -> Iterator[None]:
        """Remove the folders again where a mistake of the user's ended the run before any result.

        What a run has measured or saved is never removed.
        """
        try:
            yield
        except UserError:
            if not self.metrics.exists() and not any(self.models.glob("*.pth")):
                for folder in (self.models, self.log, self.web):
                    shutil.rmtree(folder, ignore_errors=True)
            raise

    @property
    def experiment(self) -> str:
        """Name of the experiment: the folder next below `log`."""
        place = [parent.name for parent in (self.log, *self.log.parents)]
        return place[place.index("log", 1) - 1]

    @property
    def config(self) -> Path:
        return self.models / "config.json"

    @property
    def best_checkpoint(self) -> Path:
        return self.models / "trained_model.pth"

    @property
    def metrics(self) -> Path:
        return self.log / "metrics.json"

    def predictions(self, split: str) -> Path:
        """The predictions of a challenge on one split."""
        return self.log / f"predictions-{split}.csv"

    def epoch_checkpoint(self, epoch: int) -> Path:
        return self.models / f"checkpoint-epoch{epoch}.pth"

    def read_metrics(self) -> dict[str, Any]:
        """Metrics written so far; empty for a new run."""
        return read_json(self.metrics, "metrics file") if self.metrics.is_file() else {}

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        write_json(self.metrics, metrics)


def purge_experiment(save_dir: Path, experiment: str) -> None:
    """Remove every earlier run of an experiment: checkpoints, logs and pages."""
    for kind in ("models", "log", "web"):
        shutil.rmtree(save_dir / kind / experiment, ignore_errors=True)
