"""Layouts of captions and lists that are told from others by little."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from misc.import_data_set.fields import Known
from misc.import_data_set.ids import FORMS
from misc.import_data_set.layouts import read_layout
from tests.foreign_captions import invented
from utils.errors import UserError

CAPTIONS = invented()
PAIRS = [(key, n, text) for key, texts in CAPTIONS.items() for n, text in enumerate(texts)]
MOST = max(map(len, CAPTIONS.values()))
form = FORMS["folders and endings"]
KNOWN = Known(ids=frozenset(map(form, CAPTIONS)), form=form)


def columns(mark: str) -> str:
    """A column for each caption of a video."""
    head = mark.join(["video", *(f"caption_{n}" for n in range(MOST))])
    rows = [
        mark.join([key, *texts, *[""] * (MOST - len(texts))]) for key, texts in CAPTIONS.items()
    ]
    return "\n".join([head, *rows])


def records(**beside: object) -> str:
    rows = [{"video_id": key, "caption": text} for key, _, text in PAIRS]
    return json.dumps({"data": rows, **beside})


# File -> what is in it.
LAYOUTS: dict[str, Callable[[], str]] = {
    "flickr.token": lambda: "\n".join(f"{key}.jpg#{n}\t{text}" for key, n, text in PAIRS),
    "bars.csv": lambda: "\n".join(
        ["image_name| comment_number| comment", *(f"{k}.jpg| {n}| {t}" for k, n, t in PAIRS)]
    ),
    "columns.csv": lambda: columns(","),
    "semicolons.csv": lambda: columns(";"),
    "charades_sta.txt": lambda: "\n".join(f"{k} {n}.5 {n + 2}.0##{t}" for k, n, t in PAIRS),
    "under_a_name.json": lambda: records(),
    "beside_remarks.json": lambda: records(version=1, info={"year": 2020}),
    "karpathy.json": lambda: json.dumps(
        {
            "images": [
                {"filename": f"{k}.jpg", "sentences": [{"tokens": t.split(), "raw": t} for t in v]}
                for k, v in CAPTIONS.items()
            ],
            "dataset": "flickr",
        }
    ),
    "records_by_id.json": lambda: json.dumps(
        {k: [{"id": n, "caption": t} for n, t in enumerate(v)] for k, v in CAPTIONS.items()}
    ),
    "numbered_by_id.json": lambda: json.dumps(
        {k: {str(n): t for n, t in enumerate(v)} for k, v in CAPTIONS.items()}
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_captions(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(LAYOUTS[name](), encoding="utf-8")
    found: dict[str, list[str]] = {}
    for entry in read_layout(tmp_path / name, KNOWN).entries:
        found.setdefault(form(entry.video), []).extend(entry.captions)
    assert found == CAPTIONS


def test_a_column_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(columns(","))
    known = Known(caption_column="caption_1", ids=KNOWN.ids, form=form)
    found = read_layout(tmp_path / "c.csv", known).entries
    assert {e.video: e.captions for e in found} == {k: v[1:2] for k, v in CAPTIONS.items() if v[1:]}


@pytest.mark.parametrize("label", [" 0", "  1 2.5", "\t3"])
def test_labels_of_a_list_are_no_sentences(tmp_path: Path, label: str) -> None:
    (tmp_path / "list.txt").write_text("".join(f"/data/{key}.mp4{label}\n" for key in CAPTIONS))
    found = read_layout(tmp_path / "list.txt", KNOWN, needs_captions=False).entries
    assert [form(entry.video) for entry in found] == list(CAPTIONS)
    assert not any(entry.captions for entry in found)


def test_ids_with_spaces_are_no_captions(tmp_path: Path) -> None:
    ids = [f"my video {n}" for n in range(4)]
    (tmp_path / "list.txt").write_text("\n".join(ids))
    known = Known(ids=frozenset(ids))
    found = read_layout(tmp_path / "list.txt", known, needs_captions=False).entries
    assert [entry.video for entry in found] == ids


def test_a_folder_without_texts_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.srt").touch()
    with pytest.raises(UserError, match="without texts"):
        read_layout(tmp_path, KNOWN)
