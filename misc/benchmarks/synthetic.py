"""A data set of the sizes of MSRVTT with random features, as files and as the loader opens it."""

import atexit
import fcntl
import json
import pickle
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from data_loader.loader import ExpertDataLoader
from data_loader.sets.declared import LoaderSettings
from utils.config import Config

CONFIG = Path(__file__).parents[2] / "configs/msrvtt/train-full-ce.json"

CAPTIONS, WORDS, TEXT_SIZE = 20, (5, 14), 768
# Name -> (size, most vectors of a video; 1 is a fixed size), and how many videos have it.
EXPERTS = {
    "audio": (128, 29, 0.9),
    "face": (512, 1, 0.6),
    "i3d.i3d.0": (1024, 1, 1.0),
    "imagenet.resnext101_32x48d.0": (2048, 1, 1.0),
    "imagenet.senet154.0": (2048, 1, 1.0),
    "ocr": (300, 49, 0.4),
    "r2p1d.r2p1d-ig65m.0": (512, 1, 1.0),
    "scene.densenet161.0": (2208, 1, 1.0),
    "speech": (300, 32, 0.6),
}
_POOL = 2000
# Folders of benchmarks, and in them a file that their process keeps locked.
_PREFIX, _MARK = "benchmark-", ".held-by-a-benchmark"
_held: list[IO[str]] = []


def temporary_files(train: int, test: int) -> Path:
    """Write the files (see `make_files`) into a folder that goes when the process ends.

    That of a process which was killed goes when the next one begins.
    """
    for mark in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_MARK}"):
        with suppress(OSError), mark.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(mark.parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    atexit.register(shutil.rmtree, folder)
    held = (folder / _MARK).open("w")
    with suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_EX)
    _held.append(held)
    make_files(folder, train, test)
    return folder


def make_files(folder: Path, train: int, test: int) -> None:
    """Write features, captions, lists and description of `train` and `test` videos."""
    rng = np.random.default_rng(0)
    ids = [f"video{number}" for number in range(train + test)]
    pools: dict[int, np.ndarray] = {}
    for name, (size, most, share) in EXPERTS.items():
        table = {}
        for key in ids:
            rows = _pieces(rng, pools, size, int(rng.integers(1, most + 1)))
            table[key] = rows if rng.random() < share else float("nan")
        _write(folder / f"{name}.pickle", table)
    lengths = rng.integers(WORDS[0], WORDS[1] + 1, (len(ids), CAPTIONS))
    text = {
        key: [_pieces(rng, pools, TEXT_SIZE, count) for count in row]
        for key, row in zip(ids, lengths, strict=True)
    }
    _write(folder / "text.pickle", text)
    captions = {
        key: ["word " * count for count in row] for key, row in zip(ids, lengths, strict=True)
    }
    (folder / "captions.json").write_text(json.dumps(captions))
    (folder / "splits.json").write_text(json.dumps({"train": ids[:train], "val": ids[train:]}))
    (folder / "dataset.json").write_text(json.dumps(_description()))


def open_loader(folder: Path, config: Config, captions: int = CAPTIONS) -> ExpertDataLoader:
    """Load what `make_files` wrote, with as many tokens as a config of MSRVTT keeps."""
    settings = LoaderSettings(
        dataset_name=str(folder),
        split_name="full-test",
        batch_size=config["data_loader.args.batch_size"],
        max_tokens=config["data_loader.args.max_tokens"],
        modalities=list(EXPERTS),
        text_feat="text",
        num_test_captions=captions,
    )
    return ExpertDataLoader(settings)


def _pieces(
    rng: np.random.Generator, pools: dict[int, np.ndarray], size: int, rows: int
) -> np.ndarray:
    """Return (rows, size) float32 out of a pool: drawing gigabytes would take minutes."""
    if size not in pools:
        pools[size] = rng.standard_normal((_POOL, size), dtype=np.float32)
    start = int(rng.integers(0, _POOL - rows))
    return pools[size][start : start + rows]


def _write(path: Path, table: dict) -> None:
    with path.open("wb") as handle:
        pickle.dump(table, handle, protocol=4)


def _description() -> dict:
    lists = {role: {"file": "splits.json", "key": role} for role in ("train", "val")}
    return {
        "name": "benchmark",
        "experts": {
            name: {"file": f"{name}.pickle", "size": size, "variable_length": most > 1}
            for name, (size, most, _) in EXPERTS.items()
        },
        "captions": "captions.json",
        "text_features": {"text": {"file": "text.pickle", "size": TEXT_SIZE}},
        "splits": {"full-test": lists},
    }
