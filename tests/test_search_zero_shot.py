"""An index without training, and queries that are files: encoders of extraction are stand-ins."""

import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from misc.build_index.__main__ import main as build_main
from misc.search.__main__ import main as search_main
from misc.search.index.manifest import FILE_NAME
from misc.search.searcher import Searcher
from tests.tiny_set import WORD_SIZE, WORDS, make_tiny_set
from utils.errors import UserError


def vector_of(word: str) -> np.ndarray:
    return np.random.default_rng(WORDS.index(word)).standard_normal(WORD_SIZE)


def tower(texts: Sequence[str]) -> np.ndarray:
    """A stand-in for a text tower: the mean of its words."""
    found = [[vector_of(w) for w in text.split() if w in WORDS] for text in texts]
    return np.array([np.mean(vectors, axis=0) for vectors in found], dtype=np.float32)


@pytest.fixture(autouse=True)
def extraction(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand-ins for `misc.extract_experts`; returns what a file's experts are."""
    seen: dict[str, Any] = {}

    def query_tower(query: dict[str, Any], device: str) -> Any:
        assert query == {"row": "clip", "model": "m"} and device == "cpu"
        return tower

    def features_of(path: Path, experts: Sequence[str], device: str) -> dict[str, Any]:
        assert list(experts) == ["look=clip:m"]
        return {name: seen[path.name] for name in ("look",) if path.name in seen}

    for name, content in {
        "misc.extract_experts": {},
        "misc.extract_experts.experts": {},
        "misc.extract_experts.experts.hub_dual": {"query_tower": query_tower},
        "misc.extract_experts.one_file": {"features_of": features_of},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def make_extracted(folder: Path) -> tuple[Path, dict[str, list[str]]]:
    """A data set as extraction leaves it without captions: segments, a dual encoder, words."""
    data = make_tiny_set(folder)
    rng = np.random.default_rng(0)
    words = {f"s{n}": [str(w) for w in rng.choice(WORDS, 2, replace=False)] for n in range(20)}
    ids = list(words)
    frames = [np.stack([3 * vector_of(w) for w in words[key]]) for key in ids[:18]]
    offsets = np.arange(0, 37, 2)
    values = np.concatenate(frames).astype(np.float32)
    np.savez(data / "look.npz", ids=np.array(ids[:18]), feats=values, offsets=offsets)
    spoken = {key: [{"text": words[key][0], "start": 0.5, "end": 1.0}] for key in ids[10:]}
    (data / "texts").mkdir()
    (data / "texts" / "speech.json").write_text(json.dumps(spoken))
    files = {
        key: {
            "file": f"../v{n // 4}.mp4",
            "seconds": 20,
            "parent": f"v{n // 4}",
            "start": 5 * (n % 4),
        }
        for n, key in enumerate(ids)
    }
    for entry in files.values():
        entry["end"] = entry["start"] + 5
    (data / "videos.json").write_text(json.dumps(files))
    (data / "captions.json").write_text("{}")
    (data / "all.txt").write_text("\n".join(ids))
    made_by = {"spec": "look=clip:m", "query": {"row": "clip", "model": "m"}}
    look = {"file": "look.npz", "size": WORD_SIZE, "variable_length": True, "extractor": made_by}
    told = {
        "name": "mine",
        "experts": {"look": look},
        "captions": "captions.json",
        "text_features": {},
        "splits": {"all": {"train": "all.txt", "val": "all.txt"}},
    }
    (data / "dataset.json").write_text(json.dumps(told))
    return data, words


@pytest.fixture
def parser_knows_extractors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until descriptions name extractors, leave them out of what is parsed."""
    from data_loader.sets.description import DescriptionReader

    known = DescriptionReader.expert

    def expert(self: DescriptionReader, value: Any, where: str) -> Any:
        try:
            return known(self, value, where)
        except UserError:
            return known(self, {k: v for k, v in value.items() if k != "extractor"}, where)

    monkeypatch.setattr(DescriptionReader, "expert", expert)


def similarity_of(query: str, words: list[str]) -> float:
    one, other = tower([query])[0], tower([" ".join(words)])[0]
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.usefixtures("parser_knows_extractors")
def test_a_dual_encoder_needs_no_training(tmp_path: Path) -> None:
    data, words = make_extracted(tmp_path / "data")
    index = tmp_path / "index"
    build_main([str(data), "--zero_shot", "--output", str(index)])
    searcher = Searcher.open(index)
    assert len(searcher) == 18 and searcher.info.experts == ("look",)
    found = dict(zip(searcher.video_ids, searcher.similarities("red boat")[0], strict=True))
    for key, value in found.items():
        assert value == pytest.approx(similarity_of("red boat", words[key]), abs=1e-6)
    best = max(found, key=lambda key: found[key])
    [first, *_] = searcher.search("red boat", k=3)
    assert first.similarity == pytest.approx(found[best], abs=1e-6)
    assert first.path.parent == data.parent and first.parent == first.path.stem
    assert first.end - first.start >= 5
    # More videos come by the same encoder.
    build_main(["--add", str(index), "--dataset", str(data)])
    assert len(Searcher.open(index)) == 18


@pytest.mark.usefixtures("parser_knows_extractors")
def test_words_that_were_heard_are_an_expert(tmp_path: Path) -> None:
    data, words = make_extracted(tmp_path / "data")
    index = tmp_path / "index"
    rows = [f"{word} " + " ".join(map(str, vector_of(word))) for word in WORDS]
    table = tmp_path / "words.txt"
    table.write_text("\n".join([f"{len(WORDS)} {WORD_SIZE}", *rows]) + "\n")
    flags = ["--zero_shot", "--encoder", str(table), "--output", str(index)]
    build_main([str(data), *flags])
    searcher = Searcher.open(index)
    assert len(searcher) == 20 and searcher.info.experts == ("look", "words of speech")
    found = dict(zip(searcher.video_ids, searcher.similarities("red boat")[0], strict=True))
    for number, key in enumerate(words):
        each = [similarity_of("red boat", words[key])] if number < 18 else []
        each += [similarity_of("red boat", words[key][:1])] if number >= 10 else []
        assert found[key] == pytest.approx(np.mean(each), abs=1e-5)
    hits = searcher.search(words["s19"][0], k=20)
    [heard] = {word for h in hits if h.video_id == "s19" for word in h.words}
    assert (heard.expert, heard.text, heard.start) == ("speech", words["s19"][0], 0.5)


@pytest.mark.usefixtures("parser_knows_extractors")
def test_a_file_is_a_query(
    tmp_path: Path, extraction: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data, words = make_extracted(tmp_path / "data")
    index = str(tmp_path / "index")
    build_main([str(data), "--zero_shot", "--output", index])
    capsys.readouterr()
    extraction["dog.png"] = tower([" ".join(words["s7"])])[0]
    search_main([index, "--image", "dog.png", "-k", "1", "--json"])
    [found] = json.loads(capsys.readouterr().out)
    assert found["similarity"] == pytest.approx(1, abs=1e-5)
    with pytest.raises(UserError, match=r"sees anything in empty\.mp4"):
        search_main([index, "--video", "empty.mp4"])
    extraction["odd.mp4"] = np.zeros(3, dtype=np.float32)
    with pytest.raises(UserError, match="extracted otherwise"):
        search_main([index, "--video", "odd.mp4"])
    told = json.loads((tmp_path / "index" / FILE_NAME).read_text()) | {"extractors": {}}
    (tmp_path / "index" / FILE_NAME).write_text(json.dumps(told))
    with pytest.raises(UserError, match="does not know how the experts"):
        search_main([index, "--video", "dog.png"])


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    data = make_tiny_set(tmp_path / "data")
    with pytest.raises(UserError, match="Nothing of the data set tiny can be compared"):
        build_main([str(data), "--zero_shot", "--output", str(tmp_path / "index")])
    assert not (tmp_path / "index").exists()
