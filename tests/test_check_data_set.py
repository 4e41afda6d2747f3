"""The check of a data set: what it accepts loads, what the loader refuses it names, all at once."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_loader.description import find_description
from data_loader.errors import UserError
from misc.check_data_set import main
from misc.checking.problems import check_data_set
from misc.checking.report import Finding, Report, Row, line_of, summary
from tests.own_data import OwnData, write_word_vectors


def report_of(own: OwnData) -> Report:
    return check_data_set(find_description(str(own.folder)))


def told(own: OwnData) -> list[str]:
    return [line_of(finding, None) for finding in report_of(own).problems]


def loads(own: OwnData) -> bool:
    """Tell whether the loader takes every split with every expert and text feature."""
    try:
        description = find_description(str(own.folder))
        for split in description.splits:
            for text in description.text_features:
                loader = own.loader(
                    split_name=split, text_feat=text, batch_size=2, cache_dir=str(own.folder / "c")
                )
                assert len(list(loader.train.batches(0))) == len(loader.train)
                for _ in loader.retrieval.text_blocks(3):
                    pass
    except UserError:
        return False
    return True


def in_table(name: str, key: str, value: object) -> Callable[[OwnData], None]:
    def change(own: OwnData) -> None:
        getattr(own, name)[key] = value
        own.write()

    return change


def in_file(name: str, content: str | bytes | None) -> Callable[[OwnData], None]:
    def change(own: OwnData) -> None:
        own.write()
        if content is None:
            (own.folder / name).unlink()
        else:
            data = content.encode() if isinstance(content, str) else content
            (own.folder / name).write_bytes(data)

    return change


def in_description(**changes: object) -> Callable[[OwnData], None]:
    def change(own: OwnData) -> None:
        own.description |= changes
        own.write()

    return change


def add_caption(own: OwnData) -> None:
    own.captions["v10"].append("one more")
    own.write()


def other_vectors(own: OwnData) -> None:
    own.description["text_features"]["words"]["size"] = 4
    own.write()


def wide(rows: int, size: int, value: float = 1.0) -> np.ndarray:
    return np.full((rows, size), value, dtype=np.float32)


CHANGES = {
    "nothing": (lambda own: None, None),
    "a text of another size": (in_table("text", "v1", [wide(2, 5)]), r"size 6: v1 \(2, 5\)"),
    "a text that is not finite": (
        in_table("text", "v2", [wide(2, 6, np.nan)]),
        "non-finite value: v2",
    ),
    "an expert of another size": (
        in_table("tokens", "v3", wide(2, 3, np.inf)),
        'expert "tokens".*non-finite value: v3',
    ),
    "captions that are missing": (in_table("captions", "v10", []), "without captions: v10"),
    "an empty caption": (in_table("captions", "v9", ["a dog", " "]), r"v9 \(caption 1\)"),
    "a caption too many": (add_caption, "differs from the raw captions: v10"),
    "text features too few": (in_table("text", "v0", []), "without text features: v0"),
    "lists that overlap": (in_file("train.txt", "v0\nv1\nv10\n"), r"retrieval set: v10"),
    "a video that nobody knows": (in_file("train.txt", "v0\nv1\nx7\n"), "no file knows: x7"),
    "a video listed twice": (in_file("train.txt", "v0\nv1\nv0\n"), '"v0" twice'),
    "a list of one video": (in_file("train.txt", "v0\n"), "at least 2"),
    "an empty list": (in_file("train.txt", ""), "at least 2"),
    "a list that is missing": (in_file("train.txt", None), r"train\.txt"),
    "another key": (in_file("splits.json", "{}"), 'no list "val"'),
    "no captions": (in_file("captions.json", None), r"captions\.json"),
    "captions twice": (in_file("captions.json", '{"v0": ["a"], "v0": ["b"]}'), '"v0" twice'),
    "captions that are texts": (in_file("captions.json", '{"v0": "a"}'), "no list of captions"),
    "a truncated expert": (in_file("tokens.npz", b"PK\x03\x04"), "truncated"),
    "no expert": (in_file("fixed.npz", None), r"fixed\.npz"),
    "an expert without vectors": (in_file("fixed.npz", None), r"fixed\.npz"),
    "no word vectors": (in_file("words.bin", b"1 2\n"), r"words\.bin"),
    "word vectors of another size": (other_vectors, "size 5, not 4"),
    "several vectors of a fixed size": (
        in_description(experts={"fixed": {"file": "tokens.npz"}, "tokens": {"file": "fixed.npz"}}),
        "several vectors",
    ),
    "sizes as declared": (
        in_description(
            experts={
                "fixed": {"file": "fixed.npz", "size": 9},
                "tokens": {"file": "tokens.npz", "variable_length": True},
            }
        ),
        r"size 9: v0 \(1, 4\)",
    ),
    "an index of captions": (
        in_description(
            splits={"val": {"train": "train.txt", "val": "few.txt", "test_caption_index": "i.json"}}
        ),
        r"few\.txt",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_check_names_what_is_wrong(tmp_path: Path, name: str) -> None:
    change, expected = CHANGES[name]
    own = OwnData(tmp_path)
    change(own)
    found = told(own)
    if expected is None:
        assert not found and loads(own)
    else:
        assert any(re.search(expected, line) for line in found), found


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=st.lists(st.sampled_from(sorted(CHANGES)), max_size=2), seed=st.integers(0, 99))
def test_what_the_check_accepts_is_loaded_and_what_is_refused_is_found(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], seed: int
) -> None:
    own = OwnData(tmp_path_factory.mktemp("own"), seed=seed)
    for name in names:
        CHANGES[name][0](own)
    if not report_of(own).problems:
        assert loads(own)


def test_the_index_of_captions(tmp_path: Path) -> None:
    own = OwnData(tmp_path)
    (tmp_path / "i.json").write_text(json.dumps({"v7": 0, "v8": 99, "v9": "1"}))
    own.description["splits"]["val"]["test_caption_index"] = "i.json"
    own.write()
    assert any("names no caption: v8 (99), v9 ('1'), v10 (None)" in line for line in told(own))
    assert not loads(own)
    (tmp_path / "i.json").write_text(json.dumps(dict.fromkeys(own.val_ids, 0)))
    assert not told(own) and loads(own)


def test_all_problems_come_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = OwnData(tmp_path, videos=20)
    for key in own.ids[:8]:
        own.text[key] = [wide(2, 5)] * len(own.captions[key])
    own.tokens["v3"] = wide(1, 3, np.nan) * np.array([[1, 1, np.nan]])
    own.tokens["v3"][0, 0] = 1.0
    own.captions["v4"][0] = ""
    own.write()
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path)])
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert "8 arrays" in printed or "arrays of another shape than vectors of size 6" in printed
    assert "and 3 more (--all shows them)" in printed
    assert "non-finite value: v3" in printed
    assert "v4 (caption 0)" in printed
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--all"])
    assert "--all" not in capsys.readouterr().out


def test_a_good_set_prints_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    OwnData(tmp_path)
    main([str(tmp_path), "--split", "val"])
    printed = capsys.readouterr().out
    assert "Nothing stands in the way of a training." in printed
    assert 'videos without the expert "fixed": v1, v6' in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["none"], "no data set"), ([".", "--split", "vl"], 'did you mean "val"')],
)
def test_what_cannot_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    OwnData(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(arguments)


def test_captions_of_unknown_words_are_a_note(tmp_path: Path) -> None:
    own = OwnData(tmp_path)
    write_word_vectors(tmp_path / "words.bin", ["unheard"], np.ones((1, 5)))
    notes = report_of(own).notes
    assert any("none of whose words is known" in note.what for note in notes)


def test_how_findings_and_rows_are_told() -> None:
    finding = Finding("here", "sick videos", ("a", "b", "c"))
    assert line_of(finding, 2) == "here: 3 sick videos: a, b, and 1 more (--all shows them)"
    assert line_of(Finding("here", "all is lost"), 2) == "here: all is lost"
    lines = summary([Row("e", "val", "train", 3, 1, (2, 4)), Row("f", "val", "val", 1, 1, ())])
    assert lines[1].split() == ["e", "val", "train", "3", "1", "2", "3.0", "4"]
    assert lines[2].split() == ["f", "val", "val", "1", "1", "-", "-", "-"]
