"""Words of videos become vectors as words of captions do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from misc.extract_experts.decoding.media import End
from misc.extract_experts.expert import Loaded, Seen, Sound, Words, runs
from misc.extract_experts.experts.table import wanted_expert
from misc.extract_experts.running import Running, Work
from misc.extract_experts.texts import word_vectors
from misc.text_embeddings.captions import Captions
from misc.text_embeddings.encoders import make_job
from misc.text_embeddings.job import Settings, encoder_of
from tests.tiny_encoders import make_encoder
from utils.errors import UserError

TABLE = {"a": [1.0, 0.0], "dog": [0.0, 1.0], "don't": [2.0, 2.0], "runs": [3.0, 4.0]}
TEXTS = {
    "v1": [Words("A dog", 0, 1), Words("RUNS!", 1, 2), Words("xyzzy", 2, 3)],
    "none": [],
    "unknown": [Words("xyzzy", 0, 1), Words("...", 1, 2)],
    "v2": [Words("Don't", 5, 6)],
}


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    lines = [f"{word} {a} {b}" for word, (a, b) in TABLE.items()]
    (tmp_path / "words.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def found(folder: Path, entry: dict[str, Any], texts: Any = TEXTS) -> dict[str, list[list[float]]]:
    return {video: rows.tolist() for video, rows in word_vectors(folder, texts, entry)}


def record(settings: Settings) -> dict[str, Any]:
    """What the data set's description says of an encoder."""
    job = make_job(settings, Captions(Path("captions"), ["v"], [1], ["a dog"]))
    return json.loads(json.dumps(encoder_of(job.record)))


KNOWN = {"v1": [TABLE["a"], TABLE["dog"], TABLE["runs"]], "v2": [TABLE["don't"]]}


def test_known_words_are_looked_up_and_videos_without_are_left_out(vectors: Path) -> None:
    assert found(vectors, {"word_vectors": "words.txt", "size": 2}) == KNOWN


def test_a_table_that_is_recorded_as_an_encoder_gives_the_same(vectors: Path) -> None:
    encoder = record(Settings(str(vectors / "words.txt")))
    assert found(vectors, {"file": "text.npz", "encoder": encoder}) == KNOWN


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize("pooling", ["tokens", "mean"])
def test_an_encoder_gives_each_text_what_it_gives_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str, at_once: int
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr("misc.extract_experts.texts._TEXTS_AT_ONCE", at_once)
    model = make_encoder(tmp_path / "bert", "bert")
    encoder = record(Settings(str(model), pooling=pooling))
    entry = {"file": "text.npz", "encoder": encoder}
    together = dict(word_vectors(tmp_path, TEXTS, entry))
    assert list(together) == ["v1", "unknown", "v2"]
    for video, rows in together.items():
        apart = [dict(word_vectors(tmp_path, {"v": [text]}, entry))["v"] for text in TEXTS[video]]
        np.testing.assert_allclose(rows, np.concatenate(apart), atol=1e-5)
        if pooling == "mean":
            assert len(rows) == len(TEXTS[video])


def test_another_encoder_under_the_same_name_is_refused(vectors: Path) -> None:
    encoder = record(Settings(str(vectors / "words.txt")))
    with (vectors / "words.txt").open("a") as file:
        file.write("new 1 1\n")
    with pytest.raises(UserError, match=r"another one now than made .* \(its sha256 differs\)"):
        found(vectors, {"file": "text.npz", "encoder": encoder})


def test_text_features_of_unknown_origin_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Nobody has said what made the text features"):
        found(tmp_path, {"file": "text.npz"})


def test_words_last_no_longer_than_what_they_are_said_in() -> None:
    expert = Running(wanted_expert("rapidocr"), Loaded(lambda chunks: [], Sound(1), 0), "digest")
    work = Work([expert])
    work.take(expert, 1, Seen(words=(Words("a", 0, 1), Words("b", 1, 5), Words("c", 2.6, 5))))
    work.end = End(5.0, [(0.0, 2.5), (2.5, 5.0)])
    assert work.features()["rapidocr"].words == [
        [],
        [Words("a", 0, 1), Words("b", 1, 2.5), Words("c", 2.6, 2.6)],
    ]


def test_what_is_seen_twice_in_a_row_is_told_once() -> None:
    seen = [["news", "Paris"], ["news", "news"], [], ["news"], ["Rome", "news"]]
    assert runs(seen, np.array([0.0, 5.0, 10.0, 15.0, 20.0]), 5.0) == (
        Words("news", 0, 10),
        Words("Paris", 0, 5),
        Words("news", 15, 25),
        Words("Rome", 20, 25),
    )
