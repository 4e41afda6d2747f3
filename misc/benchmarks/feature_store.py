"""Loading a data set as large as a quarter of MSRVTT: 1,628 training and 748 test videos.

The plain formulation has Python's own unpickler read every file, one after the other, and keeps
nothing. Ours packs the files at the first start, and maps what it packed from then on. All of them
find the files in the system's page cache.
"""

import gc
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

from data_loader.loader import ExpertDataLoader
from misc.benchmarks import synthetic
from misc.benchmarks.measure import Job, Workload
from utils.config import Config

TRAIN, TEST = 1628, 748


def reference(scale: float) -> Job:
    folder = files(scale)

    def run() -> None:
        for path in sorted(folder.glob("*.pickle")):
            with path.open("rb") as handle:
                pickle.load(handle)  # noqa: S301 (it was written just now, by this program)

    return Job(run, repeats=3)


def first_start(scale: float) -> Job:
    folder = files(scale)

    def undo() -> None:
        gc.collect()
        shutil.rmtree(folder / ".cache")

    return Job(_opening(folder), repeats=3, undo=undo)


def later_start(scale: float) -> Job:
    return Job(_opening(files(scale)))  # the first run, which packs, is not counted


def _opening(folder: Path) -> Callable[[], ExpertDataLoader]:
    config = Config.from_file(synthetic.CONFIG)
    return lambda: synthetic.open_loader(folder, config)


def files(scale: float) -> Path:
    train, test = (max(2, round(count * scale)) for count in (TRAIN, TEST))
    return synthetic.temporary_files(train, test)


WORKLOADS = (
    Workload("first-start", "loading a data set for the first time", first_start, reference),
    Workload("later-start", "loading it again", later_start, reference),
)
