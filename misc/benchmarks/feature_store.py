"""How long a data set of the size of MSRVTT takes to load, and how much memory.

python3 -m misc.benchmarks.feature_store [--scale 0.25] [--folder /tmp]

Makes random features of the published sizes (6513 training and 2990 test videos, 9 experts, 20
captions of 5 to 14 words) as pickles in a temporary folder, which is removed at the end, and loads
them, each time in a process of its own:

  parse   Python's own unpickler reads every file, one after the other, and keeps nothing
  cold    the loader packs them, with an empty cache
  warm    the loader again, with the cache

All of them find the files in the system's page cache; `--folder /dev/shm` takes the disk out of the
figures, and CPU seconds tell more than seconds where other programs run. Memory is the largest
resident set of the process less what it had before it began; `held` is what is left of it at the
end that is no mapped file.
"""

import argparse
import gc
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from data_loader.loader import ExpertDataLoader

TRAIN, TEST = 6513, 2990
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure loading a data set as large as MSRVTT.")
    parser.add_argument(
        "--scale", type=float, default=0.25, help="part of the videos (default: a quarter)"
    )
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--step", choices=["parse", "cold", "warm"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        measure(options.step, options.folder)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make_files(folder, options.scale)
        size = sum(path.stat().st_size for path in folder.glob("*.pickle"))
        results = {step: run(step, folder) for step in ("parse", "cold", "warm")}
        packed = sum(path.stat().st_size for path in (folder / ".cache").iterdir())
    print(f"files {size / 1e6:.0f} MB, packed {packed / 1e6:.0f} MB, scale {options.scale}")
    heads = ("seconds", "of parse", "CPU s", "of parse", "peak MB", "of packed", "held MB")
    print(" " * 6 + "".join(f"{head:>10}" for head in heads))
    first = results["parse"]
    for step, (seconds, worked, peak, held) in results.items():
        cells = [seconds, seconds / first[0], worked, worked / first[1]]
        cells += [peak / 1e6, peak / packed, held / 1e6]
        print(f"{step:6}" + "".join(f"{cell:10.2f}" for cell in cells))


def make_files(folder: Path, scale: float) -> None:
    """Write features, captions, lists and description."""
    rng = np.random.default_rng(0)
    counts = {"train": round(TRAIN * scale), "val": round(TEST * scale)}
    ids = [f"video{number}" for number in range(sum(counts.values()))]
    for name, (size, most, share) in EXPERTS.items():
        table = {}
        for key in ids:
            rows = pieces(rng, size, int(rng.integers(1, most + 1)))
            table[key] = rows if rng.random() < share else float("nan")
        write(folder / f"{name}.pickle", table)
    lengths = rng.integers(WORDS[0], WORDS[1] + 1, (len(ids), CAPTIONS))
    text = {
        k: [pieces(rng, TEXT_SIZE, n) for n in row] for k, row in zip(ids, lengths, strict=True)
    }
    write(folder / "text.pickle", text)
    captions = {k: ["word " * n for n in row] for k, row in zip(ids, lengths, strict=True)}
    (folder / "captions.json").write_text(json.dumps(captions))
    splits = {"train": ids[: counts["train"]], "val": ids[counts["train"] :]}
    (folder / "splits.json").write_text(json.dumps(splits))
    (folder / "dataset.json").write_text(json.dumps(description()))


def pieces(rng: np.random.Generator, size: int, rows: int) -> np.ndarray:
    """Return (rows, size) float32 out of a pool: drawing gigabytes would take minutes."""
    if size not in _pools:
        _pools[size] = rng.standard_normal((_POOL, size), dtype=np.float32)
    start = int(rng.integers(0, _POOL - rows))
    return _pools[size][start : start + rows]


_pools: dict[int, np.ndarray] = {}


def write(path: Path, table: dict) -> None:
    """Write a pickle, and have it on the disk before anything is measured."""
    with path.open("wb") as handle:
        pickle.dump(table, handle, protocol=4)


def description() -> dict:
    """Return the description of the data set."""
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


def run(step: str, folder: Path) -> list[float]:
    """Measure one step in a process of its own: seconds, CPU seconds, peak and held bytes."""
    command = [sys.executable, "-m", "misc.benchmarks.feature_store", "--step", step]
    done = subprocess.run(
        [*command, "--folder", str(folder)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def measure(step: str, folder: Path) -> None:
    """Do one step and print its figures."""
    before = resident()
    start, worked = time.perf_counter(), time.process_time()
    kept = None
    if step == "parse":
        for path in folder.glob("*.pickle"):
            with path.open("rb") as handle:
                pickle.load(handle)  # noqa: S301 (it was written just now, by this program)
    else:
        kept = ExpertDataLoader(
            data_dir=None,
            dataset_name=str(folder),
            split_name="full-test",
            batch_size=128,
            max_tokens=dict.fromkeys([*EXPERTS, "text"], 30),
            modalities=list(EXPERTS),
            text_feat="text",
            num_test_captions=CAPTIONS,
        )
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    gc.collect()
    _, peak, held = resident()
    print(json.dumps([seconds, worked, peak - before[0], held - before[2]]))
    del kept


def resident() -> list[int]:
    """Return resident bytes of this process: now, at most, and those now that no file backs."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM", "RssAnon")]


if __name__ == "__main__":
    main()
