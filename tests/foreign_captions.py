"""Writes captions in the layouts that people keep them in, all of the same few videos."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.every_format import write_pickle

WORDS = [
    "a",
    "dog",
    "cat",
    "man",
    "runs",
    "over",
    "the",
    "red",
    "bridge",
    "at",
    "night",
    "slowly",
    "and",
    "sings",
]


def invented(videos: int = 20, seed: int = 0) -> dict[str, list[str]]:
    """Captions of videos with the ids that a CSV or a number would spoil."""
    rng = np.random.default_rng(seed)
    return {f"0{n:02}_é": [" ".join(rng.choice(WORDS, 5)) for _ in range(2)] for n in range(videos)}


def role_of(number: int, videos: int = 20) -> str:
    return "train" if number < videos - 8 else "validation" if number < videos - 4 else "test"


Captions = dict[str, list[str]]


def _json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def _pairs(captions: Captions) -> list[tuple[str, str]]:
    return [(key, text) for key, texts in captions.items() for text in texts]


def _rows(path: Path, rows: list[list[str]], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as handle:
        csv.writer(handle, delimiter=delimiter).writerows(rows)
    return path


def _lines(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _folder(path: Path, captions: Captions) -> Path:
    (path / "texts" / "deep").mkdir(parents=True)
    for key, texts in captions.items():
        (path / "texts" / "deep" / f"{key}.txt").write_text("\n".join(texts), encoding="utf-8")
    return path / "texts"


def _msrvtt(path: Path, captions: Captions) -> Path:
    videos = [
        {"video_id": key, "category": 1, "split": role_of(n), "id": n}
        for n, key in enumerate(captions)
    ]
    sentences = [
        {"caption": text, "video_id": key, "sen_id": n}
        for n, (key, text) in enumerate(_pairs(captions))
    ]
    return _json(path / "m.json", {"info": {}, "videos": videos, "sentences": sentences})


def _coco(path: Path, captions: Captions) -> Path:
    number = {key: 100 + n for n, key in enumerate(captions)}
    images = [
        {"id": n, "file_name": f"{key}.jpg", "split": role_of(n - 100)} for key, n in number.items()
    ]
    annotations = [
        {"id": n, "image_id": number[key], "caption": text}
        for n, (key, text) in enumerate(_pairs(captions))
    ]
    return _json(path / "o.json", {"licenses": [], "images": images, "annotations": annotations})


def _parquet(path: Path, captions: Captions) -> Path:
    import pyarrow
    from pyarrow import parquet

    columns = {"video_id": list(captions), "caption": list(captions.values())}
    columns["picture"] = [{"bytes": b"\x00"}] * len(captions)
    parquet.write_table(pyarrow.table(columns), path / "c.parquet")
    return path / "c.parquet"


def _youcook(path: Path, captions: Captions) -> Path:
    database = {
        key: {
            "duration": 9.0,
            "subset": role_of(n),
            "annotations": [
                {"segment": [at, at + 1], "id": at, "sentence": text}
                for at, text in enumerate(texts)
            ],
        }
        for n, (key, texts) in enumerate(captions.items())
    }
    return _json(path / "y.json", {"database": database})


def _by_split(path: Path, captions: Captions) -> Path:
    value: dict[str, list] = {"train": [], "validation": [], "test": []}
    for n, (key, texts) in enumerate(captions.items()):
        value[role_of(n)] += [{"video": f"{key}.mp4", "caption": text} for text in texts]
    return _json(path / "s.json", value)


def _activitynet(path: Path, captions: Captions) -> Path:
    return _json(
        path / "a.json",
        {
            key: {"duration": 9, "timestamps": [[0, 3.5], [3.5, 9]], "sentences": texts}
            for key, texts in captions.items()
        },
    )


# Name -> writes captions into a folder; returns the file.
LAYOUTS: dict[str, Callable[[Path, Captions], Path]] = {
    "texts by id": lambda p, c: _json(p / "c.json", c),
    "tokens by id, pickled": lambda p, c: (
        write_pickle(p / "c.pkl", {k: [t.split() for t in v] for k, v in c.items()}) or p / "c.pkl"
    ),
    "records": lambda p, c: _json(
        p / "c.json", [{"videoID": k, "enCap": v, "n": 3} for k, v in c.items()]
    ),
    "JSON lines": lambda p, c: _lines(
        p / "c.jsonl", [json.dumps({"clip_id": f"x/{k}.avi", "desc": t}) for k, t in _pairs(c)]
    ),
    "JSON lines called json": lambda p, c: _lines(
        p / "c.json", [json.dumps({"video": k, "sentence": t}) for k, t in _pairs(c)]
    ),
    "CSV": lambda p, c: _rows(
        p / "c.csv", [["caption", "video_id"], *([t, k] for k, t in _pairs(c))]
    ),
    "CSV, Excel's": lambda p, c: _rows(
        p / "c.csv", [["Video ID", "Text"], *([k, t] for k, t in _pairs(c))], ";", "utf-8-sig"
    ),
    "CSV, UTF-16": lambda p, c: _rows(
        p / "c.csv", [["video", "text"], *([k, t] for k, t in _pairs(c))], "\t", "utf-16"
    ),
    "CSV, column names unknown": lambda p, c: _rows(
        p / "c.csv", [["datei", "satz"], *([f"{k}.mp4", t] for k, t in _pairs(c))]
    ),
    "TSV without names": lambda p, c: _lines(
        p / "c.csv", [f"{k}\t00:00:01\t00:00:02\t{t}" for k, t in _pairs(c)]
    ),
    "numbered lines": lambda p, c: _lines(
        p / "c.txt", [f"{k}#enc#{n} {t}" for k, v in c.items() for n, t in enumerate(v)]
    ),
    "lines": lambda p, c: _lines(
        p / "c.txt", ["# who wrote this", *(f"{k} {t}" for k, t in _pairs(c))]
    ),
    "a text for each video": _folder,
    "MSR-VTT": _msrvtt,
    "COCO": _coco,
    "parquet": _parquet,
    "YouCook2": _youcook,
    "ActivityNet": _activitynet,
    "a part for each split": _by_split,
    "a record for each id": lambda p, c: _json(
        p / "c.json", {k: {"captions": v, "url": "u"} for k, v in c.items()}
    ),
}
# Those that say which videos are for training.
WITH_SPLITS = ("MSR-VTT", "COCO", "YouCook2", "a part for each split")
