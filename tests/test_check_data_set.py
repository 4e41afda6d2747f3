"""The check of a data set: what it accepts loads, what the loader refuses it names, all at once."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_loader.sets.description import find_description
from misc.check_data_set.__main__ import main
from misc.check_data_set.problems import check_data_set
from misc.check_data_set.report import Finding, Report, Row, line_of, summary
from misc.check_data_set.use import Use
from tests.conftest import SHARED
from tests.own_data import OwnData, write_word_vectors
from tests.tiny_set import tiny_config, write_json
from utils.errors import UserError


def report_of(own: OwnData) -> Report:
    """Check a set of which everything is used."""
    return check_data_set(find_description(str(own.folder)), use=Use())


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


def strange_captions(own: OwnData) -> None:
    own.captions = {key: ["一个男人在跑"] * len(texts) for key, texts in own.captions.items()}
    own.write()


def without_words(own: OwnData) -> None:
    own.text = {key: [wide(0, 6)] * len(texts) for key, texts in own.text.items()}
    own.write()


def no_video(own: OwnData) -> None:
    own.write()
    np.savez(own.folder / "fixed.npz", ids=np.array([], "U1"), feats=np.empty((0, 4), "f4"))


def without_experts(own: OwnData) -> None:
    own.fixed, own.tokens = {"x": wide(1, 4)[0]}, {"x": wide(2, 3)}
    own.write()


def with_endings(own: OwnData) -> None:
    own.tokens = {f"{key}.avi": wide(1, 3) for key in own.tokens}
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
    "captions that are objects": (in_file("captions.json", '{"v0": {}}'), "not captions: write"),
    "captions that know no word": (strange_captions, r"written without spaces.*一个男人"),
    "texts without words": (without_words, r"text\.pkl\): it holds no word of any caption"),
    "an expert without a video": (no_video, r'"fixed" \(fixed\.npz\): it holds no video'),
    "videos without any expert": (without_experts, "no video has any of the experts"),
    "ids with endings": (with_endings, r'"tokens"; 7 of them.*ending.*"v0" from "v0\.avi"'),
    "a truncated expert": (in_file("tokens.npz", b"PK\x03\x04"), "truncated"),
    "no expert": (in_file("fixed.npz", None), r"fixed\.npz"),
    "an expert without vectors": (in_file("fixed.npz", None), r"fixed\.npz"),
    "no word vectors": (in_file("words.bin", b"1 2\n"), r"words\.bin"),
    "word vectors of another size": (other_vectors, "size 5, not 4"),
    "several vectors of a fixed size": (
        in_description(
            experts={
                "fixed": {"file": "tokens.npz", "variable_length": False},
                "tokens": {"file": "fixed.npz"},
            }
        ),
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


# What data sets in other people's hands had, and what is said of it.
CASES = {
    "bad-video-unnamed": 'the video "v007" it holds a dictionary',
    "chinese-captions": "written without spaces",
    "h5-group-per-video": None,
    "ids-with-folders": None,
    "nfd-ids": r"30 of them .* Unicode form, 'caf\\xe900'",
    "no-expert-at-all": '"v000.avi" from "v000"',
    "caption-is-text": None,
    "ids-end-at": None,
}


@pytest.mark.parametrize("name", CASES)
def test_cases_of_others(name: str) -> None:
    folder = SHARED / "cases" / "bug_reports" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    found = check_data_set(find_description(str(folder))).problems
    expected = CASES[name]
    if expected is None:
        assert not found
    else:
        assert any(re.search(expected, line_of(finding, None)) for finding in found)


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
    assert "8 arrays" in printed or "size 6" in printed
    assert "3 more (--all" in printed
    assert "non-finite value: v3" in printed
    assert "v4 (caption 0)" in printed
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--all"])
    assert "--all" not in capsys.readouterr().out


def test_a_good_set_prints_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    OwnData(tmp_path)
    main([str(tmp_path), "--split", "val"])
    printed = capsys.readouterr().out
    assert "Nothing stands in the way" in printed
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
    own.captions["v3"][0] = "an unheard tale"
    (tmp_path / "captions.json").write_text(json.dumps(own.captions))
    notes = report_of(own).notes
    assert any("none of whose words is known" in note.what for note in notes)


# --- Ids, as the loader reads them ----------------------------------------------------------------


def test_ids_end_where_the_loader_ends_them(tmp_path: Path) -> None:
    own = OwnData(tmp_path)
    own.description["ids_end_at"] = ".avi"
    own.write()
    (tmp_path / "train.txt").write_text("".join(f"{key}.avi\n" for key in own.train_ids))
    assert not told(own) and loads(own)
    (tmp_path / "train.txt").write_text("v0.avi\nv1.avi\nv0.avi.part\n")
    assert any('"v0" twice' in line for line in told(own))
    with pytest.raises(UserError, match='"v0" twice'):
        own.loader()


@pytest.mark.parametrize("table", ["tokens", "captions", "text"])
def test_near_misses_are_told_with_their_cause(tmp_path: Path, table: str) -> None:
    own = OwnData(tmp_path)
    values = getattr(own, table)
    changed = [key for key in own.train_ids if values[key] is not None][:2]
    setattr(own, table, {f"c/{k}" if k in changed else k: v for k, v in values.items()})
    own.write()
    report = report_of(own)
    cause = f'only by folders in front of them, "{changed[0]}" from "c/{changed[0]}"'
    # A video may lack an expert, but not its captions.
    found = report.notes if table == "tokens" else report.problems
    assert any(cause in line_of(finding, None) for finding in found)
    assert bool(report.problems) == (table != "tokens")


# --- What a config uses ---------------------------------------------------------------------------


def config_of(own: OwnData, **changes: object) -> Path:
    """Write a config that trains on the set, with changed arguments of the loader."""
    values = tiny_config(own.folder, own.folder / "saved")
    values["experts"] = {"modalities": ["fixed"], "text_feat": "words", "ce_shared_dim": 8}
    values["data_loader"]["args"] = {
        "dataset_name": str(own.folder),
        "split_name": "val",
        "batch_size": 3,
        "max_tokens": {"text": 6},
    } | changes
    values["eval_settings"] = {"data_loader": {"args": {"split_name": "test"}}}
    return write_json(own.folder / "train.json", values)


def set_with_a_test(folder: Path) -> OwnData:
    own = OwnData(folder)
    own.description["splits"]["test"] = {"train": "train.txt", "val": "test.txt"}
    own.write()
    (folder / "test.txt").write_text("\n".join(own.val_ids[:2]))
    return own


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the exit code and what was printed."""
    code = 0
    try:
        main(list(arguments))
    except SystemExit as stopped:
        code = stopped.code
    return code, capsys.readouterr().out


def test_what_is_not_used_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = set_with_a_test(tmp_path)
    (tmp_path / "text.pkl").unlink()
    (tmp_path / "tokens.npz").write_bytes(b"PK\x03\x04")
    # Without a config, the text features of configs/own count, and all experts.
    code, shown = answer(capsys, str(tmp_path))
    notes, problems = shown.split("Problems:")
    assert code == 1 and "tokens" in problems
    assert "text.pkl" in notes and "text.pkl" not in problems
    config = config_of(own)
    for arguments in ((str(tmp_path), "--config", str(config)), ("--config", str(config))):
        code, shown = answer(capsys, *arguments)
        assert code == 0 and "text.pkl" in shown and "truncated" in shown
    # The config that lies in the folder needs no flag.
    config.rename(tmp_path / "config.json")
    assert answer(capsys, str(tmp_path))[0] == 0
    values = json.loads((tmp_path / "config.json").read_text())
    values["experts"]["text_feat"] = "file"
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert answer(capsys, str(tmp_path))[0] == 1
    (tmp_path / "config.json").write_text("no config")
    code, shown = answer(capsys, str(tmp_path))
    assert code == 1 and "config.json: " in shown


def test_ids_of_an_expert_that_is_not_used_are_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = set_with_a_test(tmp_path)
    with_endings(own)
    assert answer(capsys, str(tmp_path))[0] == 1
    code, shown = answer(capsys, "--config", str(config_of(own)))
    assert code == 0 and 'no video has the expert "tokens"' in shown


def test_the_words_that_a_config_uses_are_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = set_with_a_test(tmp_path)
    (tmp_path / "words.bin").unlink()
    assert answer(capsys, str(tmp_path))[0] == 1
    assert answer(capsys, str(tmp_path), "--config", str(config_of(own)))[0] == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda own: (own.folder / "test.txt").unlink(), r"test\.txt"),
        (lambda own: (own.folder / "test.txt").write_text("v7\nv99\n"), "v99"),
        (lambda own: own.description["splits"].pop("test"), 'no split "test"'),
        (lambda own: own.description["experts"].pop("fixed"), 'no expert "fixed"'),
        (lambda own: own.description["text_features"].pop("words"), 'no text feature "words"'),
    ],
)
def test_the_test_is_looked_at_too(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[OwnData], object],
    message: str,
) -> None:
    own = set_with_a_test(tmp_path)
    config = str(config_of(own))
    assert answer(capsys, "--config", config)[0] == 0
    damage(own)
    (tmp_path / "dataset.json").write_text(json.dumps(own.description))
    code, shown = answer(capsys, "--config", config)
    assert code == 1 and re.search(message, shown.split("Problems:")[1])
    # It comes with whatever else is wrong, which keeps the data from being opened.
    (tmp_path / "train.txt").write_text("v0\n")
    code, shown = answer(capsys, "--config", config)
    assert "at least 2" in shown
    assert re.search(message, shown.split("Problems:")[1])


def test_a_test_on_another_data_set_is_no_matter_of_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own").mkdir()
    own = OwnData(tmp_path / "own")
    config = config_of(own)
    assert answer(capsys, "--config", str(config))[0] == 1
    values = json.loads(config.read_text())
    values["eval_settings"]["data_loader"]["args"]["dataset_name"] = str(tmp_path / "other")
    write_json(config, values)
    assert answer(capsys, "--config", str(config))[0] == 0


def test_with_a_config_the_data_are_opened_as_a_training_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = set_with_a_test(tmp_path)
    assert answer(capsys, "--config", str(config_of(own)))[0] == 0
    # Only the loader knows of these.
    for changes, message in (
        ({"max_tokens": {}}, '"max_tokens": {"text": 6}'),
        ({"batch_size": 1}, "batch_size is 1"),
    ):
        code, shown = answer(capsys, "--config", str(config_of(own, **changes)))
        assert code == 1 and message in shown


def test_a_missing_test_split_is_mentioned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    OwnData(tmp_path)
    assert 'there is no "test"' in answer(capsys, str(tmp_path))[1]
    set_with_a_test(tmp_path)
    assert 'there is no "test"' not in answer(capsys, str(tmp_path))[1]


def test_nothing_that_is_printed_steers_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = OwnData(tmp_path)
    own.description["name"] = "own\x1b[2J"
    own.description["experts"]["\x9b31m"] = {"file": "none\u202e.npz"}
    own.description["splits"]["v\x07"] = own.description["splits"]["val"]
    own.write()
    (tmp_path / "train.txt").write_text("v0\nv1\nx\x1b]0;title\x07\n")
    shown = answer(capsys, str(tmp_path), "--all")[1]
    assert r"x\x1b]0;title\x07" in shown and r"own\x1b[2J" in shown and r"\u202e" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_nothing_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys)[0] == 2


def test_how_findings_and_rows_are_told() -> None:
    finding = Finding("here", "sick videos", ("a", "b", "c"))
    assert line_of(finding, 2) == "here: 3 sick videos: a, b, and 1 more (--all shows them)"
    assert line_of(Finding("here", "all is lost"), 2) == "here: all is lost"
    lines = summary([Row("e", "val", "train", 3, 1, (2, 4)), Row("f", "val", "val", 1, 1, ())])
    assert lines[1].split() == ["e", "val", "train", "3", "1", "2", "3.0", "4"]
    assert lines[2].split() == ["f", "val", "val", "1", "1", "-", "-", "-"]
