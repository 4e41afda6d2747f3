"""A data set of the sizes of MSRVTT (or small ones) with random features, as files."""

import atexit
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.config import Config

CONFIG = Path("configs/msrvtt/train-full-ce.json")

CAPTIONS, WORDS = 20, (5, 14)
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
SMALL_EXPERTS = {"audio": (64, 8, 0.8), "i3d.i3d.0": (128, 1, 1.0)}
_POOL = 2000
# Makes a folder that lasts as long as the process which started this one, however that one ends.
_KEEPER = """
import sys, tempfile
with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def temporary_folder() -> Path:
    """Return a new folder that goes when this process ends, also when it is killed."""
    keeper = subprocess.Popen(
        [sys.executable, "-c", _KEEPER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # out of reach of Ctrl-C
    )
    atexit.register(keeper.communicate)  # closes its input, which tells it that this is the end
    folder = keeper.stdout.readline().strip() if keeper.stdout else ""
    if not folder:
        raise OSError("no temporary folder could be made")
    return Path(folder)


def temporary_files(train: int, test: int, experts: Mapping[str, Any] = EXPERTS) -> Path:
    """Write the files (see `make_files`) into a folder that goes when this process ends."""
    folder = temporary_folder()
    make_files(folder, train, test, experts)
    return folder


def make_files(
    folder: Path, train: int, test: int, experts: Mapping[str, Any] = EXPERTS, text: int = 768
) -> None:
    """Write features, captions, lists and description of `train` and `test` videos."""
    rng = np.random.default_rng(0)
    ids = [f"video{number}" for number in range(train + test)]

    def pieces(size: int, counts: list[int]) -> list[np.ndarray]:
        """Take (count, size) float32 out of a pool: drawing gigabytes would take minutes."""
        pool = rng.standard_normal((_POOL, size), dtype=np.float32)
        starts = rng.integers(0, _POOL - max(counts), len(counts))
        return [pool[at : at + n] for at, n in zip(starts, counts, strict=True)]

    for name, (size, most, share) in experts.items():
        found = pieces(size, rng.integers(1, most + 1, len(ids)).tolist())
        there = rng.random(len(ids)) < share
        rows = (x if is_there else float("nan") for x, is_there in zip(found, there, strict=True))
        _write(folder / f"{name}.pickle", dict(zip(ids, rows, strict=True)))
    lengths = rng.integers(WORDS[0], WORDS[1] + 1, len(ids) * CAPTIONS).tolist()
    words = pieces(text, lengths)
    of_video = {key: slice(n * CAPTIONS, (n + 1) * CAPTIONS) for n, key in enumerate(ids)}
    _write(folder / "text.pickle", {key: words[own] for key, own in of_video.items()})
    description = {
        "name": "benchmark",
        "experts": {
            name: {"file": f"{name}.pickle", "size": size, "variable_length": most > 1}
            for name, (size, most, _) in experts.items()
        },
        "captions": "captions.json",
        "text_features": {"text": {"file": "text.pickle", "size": text}},
        "splits": {
            "full-test": {role: {"file": "splits.json", "key": role} for role in ("train", "val")}
        },
    }
    for name, content in (
        ("captions", {k: ["word " * n for n in lengths[own]] for k, own in of_video.items()}),
        ("splits", {"train": ids[:train], "val": ids[train:]}),
        ("dataset", description),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def config_of(folder: Path, captions: int = CAPTIONS, size: int | None = None) -> Config:
    """Return the published config of MSRVTT's CE on what `make_files` wrote.

    Args:
        folder: with the files; results stay there too.
        captions: of a test video.
        size: of the embeddings; None for the published one.
    """
    experts = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["experts"]
    lists = {"dataset_name": str(folder), "split_name": "full-test", "num_test_captions": captions}
    args = {"data_dir": str(folder), "feat_aggregation": {}, **lists}
    sized = {"ce_shared_dim": size} if size else {}
    return Config.from_file(CONFIG).merged(
        {
            "experts": {"modalities": list(experts), "text_feat": "text", **sized},
            "data_loader": {"args": args},
            "eval_settings": {"data_loader": {"args": lists}},
            "trainer": {"save_dir": str(folder / "saved")},
        }
    )


def _write(path: Path, table: dict) -> None:
    with path.open("wb") as handle:
        pickle.dump(table, handle, protocol=4)
