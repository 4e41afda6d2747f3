"""Whatever a file of captions holds, it is imported or refused with one sentence."""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from misc.import_data_set.fields import CAPTION_FIELDS, Known
from misc.import_data_set.layouts import read_layout
from utils.errors import UserError

KEYS = st.sampled_from(
    [
        *CAPTION_FIELDS[:4],
        "video_id",
        "video",
        "train",
        "test",
        "sentences",
        "annotations",
        "videos",
        "database",
        "timestamps",
        "segment",
        "split",
        "x",
    ]
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.floats(-1, 1),
        st.just("a dog"),
        st.just(""),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def outcome(path: Path, needs_captions: bool) -> None:
    try:
        found = read_layout(path, Known(ids=frozenset({"a"})), needs_captions)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    assert found.entries and all(isinstance(entry.video, str) for entry in found.entries)
    assert all(
        isinstance(text, str) and text.strip() for entry in found.entries for text in entry.captions
    )


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES, st.booleans())
def test_any_json(tmp_path: Path, value: object, needs_captions: bool) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(value))
    outcome(path, needs_captions)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text('ab,;\t"\n #', max_size=60).map(str.encode),
        st.lists(VALUES, max_size=3).map(lambda v: "\n".join(map(json.dumps, v)).encode()),
    ),
    st.sampled_from(["csv", "tsv", "jsonl", "txt", "pkl"]),
    st.booleans(),
)
def test_any_bytes(tmp_path: Path, data: bytes, ending: str, needs_captions: bool) -> None:
    path = tmp_path / f"c.{ending}"
    path.write_bytes(data)
    outcome(path, needs_captions)


def test_a_pickle_executes_nothing(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "trapped",))

    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"v1": Trap()}))
    with pytest.raises(UserError, match=r"c\.pkl"):
        read_layout(tmp_path / "c.pkl", Known())
    assert not (tmp_path / "trapped").exists()
