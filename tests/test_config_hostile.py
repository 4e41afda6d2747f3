"""Configs and overrides that no one writes on purpose: every one is answered in one sentence."""

import copy
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import train
from tests.test_config import EXAMPLE, leaves, sections, with_value
from utils.command_line import run_main
from utils.config import Config
from utils.config_kinds import FilePath, is_too_deep, shown
from utils.config_schema import SCHEMA, check, kind_at
from utils.errors import UserError, printable

UNUSABLE = {
    "NUL": "a\0b",
    "half a pair": "a\ud800b",
    "a byte that is no text": "a\udcffb",
    "terminal": "a\x1b[31mb",
    "line": "a\nb",
    "C1": "a\x9bb",
}
PATHS = [
    "experiment_name",
    "trainer.save_dir",
    "data_loader.args.dataset_name",
    "data_loader.args.data_dir",
    "data_loader.args.root_feat_folder",
    "data_loader.args.split_name",
    "data_loader.args.cache_dir",
    "experts.text_feat",
    "experts.modalities",
    "training_file",
    "caption_masks",
    "init_from",
    "visualizer.args.src_video_dir",
    "distil_params.base_path",
    "distil_params.teachers",
]
LONG = {"part": "x" * 256, "letters": "ü" * 128, "whole": "/".join(["y" * 100] * 40)}


def with_text(key: str, text: str) -> dict:
    values = copy.deepcopy(EXAMPLE)
    place = values
    *parts, last = key.split(".")
    for part in parts:
        place = place.setdefault(part, {"type": "Visualizer"} if part == "visualizer" else {})
    place[last] = [text] if last in ("modalities", "teachers") else text
    return values


def sentence(call, *args) -> str:
    """The one sentence that a mistake is answered with; it can be shown on any terminal."""
    with pytest.raises(UserError) as caught:
        call(*args)
    text = str(caught.value)
    assert printable(text) == text and len(text) < 1500, ascii(text)
    return text


@pytest.mark.parametrize("text", UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("key", [*PATHS, "experts.drop_feats", "trainer.monitor"])
def test_texts_that_no_file_or_log_can_hold_are_refused(key, text):
    if key == "experiment_name":
        assert "control character" in sentence(Config.from_dict, with_text(key, text))
    assert f'"{key}' in sentence(check, with_text(key, text), "c")
    given_text = f"{key}@{text}"
    assert "--custom_args" in sentence(Config.from_dict(EXAMPLE).with_custom_args, given_text)


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
@pytest.mark.parametrize("key", PATHS)
def test_names_that_are_too_long_for_a_file_are_refused(key, text):
    if key == "experiment_name" and "/" in text:
        return
    assert re.search(rf'"{key}.*(255|3000) bytes', sentence(check, with_text(key, text), "c"))
    check(with_text(key, "x" * 255), "c")
    check(with_text(key, "日本 語 ü-é"), "c")


@pytest.mark.parametrize("text", [*UNUSABLE.values(), "x" * 256])
def test_keys_that_are_no_names_are_refused(text):
    for path in [(), ("optimizer", "args"), ("arch", "args", "vlad_clusters"), ("trainer",)]:
        values = copy.deepcopy({**EXAMPLE, "optimizer": {"type": "Adam", "args": {}}})
        values["arch"]["args"]["vlad_clusters"] = {}
        found = sentence(check, with_value(values, (*path, text), 3), "c")
        assert "cannot be one" in found and ".".join(path) in found
    for path in ("", "optimizer.args.", "arch.args.vlad_clusters."):
        sentence(Config.from_dict(EXAMPLE).with_custom_args, f"{path}{text}@1")


@pytest.mark.parametrize("key", [3, None, ("a",), 1.5])
def test_keys_that_are_no_texts_are_refused(key):
    for path in sections(EXAMPLE):
        sentence(check, with_value(EXAMPLE, (*path, key), 3), "c")


@pytest.mark.parametrize(
    "name",
    ["a\0b", "\ud800", "x" * 300, "no/" + "y" * 300 + "/z.json", "a\x1b[2Jb", "/".join("z" * 9000)],
)
def test_config_paths_that_cannot_be_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "does not exist" in sentence(Config.from_file, name)
    child = tmp_path / "child.json"
    child.write_text(json.dumps({"inherit_from": name}))
    said = sentence(Config.from_file, "child.json")
    assert "does not exist" in said or "half of a character" in said
    assert run_main(train.main, ["--config", name]) == 2


def test_an_experiment_is_not_named_longer_than_a_folder_can_be(tmp_path):
    folder = tmp_path / ("d" * 150)
    folder.mkdir()
    path = folder / f"{'c' * 120}.json"
    path.write_text(json.dumps(EXAMPLE))
    assert '"experiment_name"' in sentence(Config.from_file, path)
    path.write_text(json.dumps({**EXAMPLE, "experiment_name": "short"}))
    assert Config.from_file(path).name == "short"


# ------------------------------------------------------------------------- depth and digits


def nested(depth: int, kind: type = list):
    value = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize("depth", [31, 400, 5_000])
def test_values_nested_deeper_than_any_config_are_refused(depth, kind):
    for path, _ in [*leaves(EXAMPLE), (("new",), 0), (("arch", "args", "trn_config"), 0)]:
        found = sentence(check, with_value_of(path, nested(depth, kind)), "c")
        assert "nested deeper" in found


def with_value_of(path: tuple, value) -> dict:
    """As `with_value`, without copying the value: copying recurses."""
    values = copy.deepcopy(EXAMPLE)
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return values


def test_a_config_file_nested_too_deeply_is_refused(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(EXAMPLE)[:-1] + ', "x": ' + "[" * 300 + "]" * 300 + "}")
    assert "nested deeper" in sentence(Config.from_file, path)


def test_a_dict_within_itself_is_refused():
    values = copy.deepcopy(EXAMPLE)
    values["optimizer"] = {"type": "Adam", "args": {}}
    values["optimizer"]["args"]["more"] = values["optimizer"]["args"]
    assert "nested deeper" in sentence(check, values, "c")
    wide = [[]]
    for _ in range(60):  # 2^60 values, were each counted where it stands
        wide = [wide, wide]
    assert is_too_deep(wide)


@pytest.mark.parametrize(
    "key", ["optimizer.args.x", "experts.modalities", "trainer.epochs", "arch"]
)
@pytest.mark.parametrize(
    "text",
    ["[" * 400 + "]" * 400, "[" * 100_000 + "]" * 100_000, '{"a":' * 400 + "1" + "}" * 400],
    ids=["lists", "many lists", "dicts"],
)
def test_overrides_nested_too_deeply_are_refused(key, text):
    config = Config.from_dict({**EXAMPLE, "optimizer": {"type": "Adam", "args": {}}})
    sentence(config.with_custom_args, f"{key}@{text}")


@pytest.mark.parametrize(("sign", "digits"), [(1, 5000), (-1, 5000), (1, 4000), (1, 400)])
def test_numbers_of_thousands_of_digits_are_refused(sign, digits):
    number = sign * 10**digits
    for path, value in leaves(EXAMPLE):
        if isinstance(value, int | float) and not isinstance(value, bool):
            sentence(check, with_value(EXAMPLE, path, number), "c")
    values = {**EXAMPLE, "optimizer": {"type": "Adam", "args": {"eps": number}}}
    sentence(check, values, "c")
    sentence(check, {**EXAMPLE, number: 1}, "c")


@pytest.mark.parametrize("text", ["9" * 5000, "-" + "9" * 5000, "1e99999", "9" * 4000], ids=len)
def test_overrides_with_thousands_of_digits_are_refused(text):
    config = Config.from_dict({**EXAMPLE, "optimizer": {"type": "Adam", "args": {}}})
    for key in ("trainer.epochs", "optimizer.args.lr", "experts.ce_shared_dim", "loss.args.margin"):
        assert key in sentence(config.with_custom_args, f"{key}@{text}")


@pytest.mark.parametrize(
    ("key", "size"),
    [
        ("experts.ce_shared_dim", 10**7),
        ("arch.args.vlad_clusters.text", 10**9),
        ("arch.args.ghost_clusters.text", 10**9),
        ("arch.args.num_g_layers", 10**6),
        ("arch.args.num_h_layers", 10**6),
        ("data_loader.args.batch_size", 10**12),
        ("data_loader.args.num_workers", 10**6),
        ("data_loader.args.num_test_captions", 10**9),
        ("data_loader.args.max_tokens.text", 10**9),
        ("experts.text_dim", 10**9),
        ("trainer.epochs", 10**12),
        ("trainer.val_freq", 10**12),
    ],
)
def test_absurd_sizes_are_refused(key, size):
    found = sentence(Config.from_dict(EXAMPLE).with_custom_args, f"{key}@{size}")
    assert re.search(rf'"{key}" must be at most \d+, not {size}', found)
    Config.from_dict(EXAMPLE).with_custom_args(f"{key}@100")


# ------------------------------------------------------------------------------ everything

anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just("\ud800")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([path for path, _ in leaves(EXAMPLE)] + sections(EXAMPLE)[1:]), anything)
def test_any_value_at_any_place_is_accepted_or_answered(path, value):
    try:
        Config.from_dict(with_value(EXAMPLE, path, value)).stored()
    except UserError as error:
        assert printable(str(error)) == str(error)


@settings(deadline=None, max_examples=200)
@given(st.text() | st.text(alphabet='arch.gsoptimizer@+_[]{}"0123456789\0\ud800', max_size=40))
def test_any_override_is_accepted_or_answered(text):
    try:
        Config.from_dict(EXAMPLE).with_custom_args(text)
    except UserError as error:
        assert "\0" not in str(error) and "\ud800" not in str(error)


def test_what_is_shown_can_be_written_anywhere():
    for text in UNUSABLE.values():
        assert shown(text).isprintable()
        assert not FilePath().accepts(text)
    assert shown(10**5000) == "a value too large to show"
    assert shown("日本") == 'the string "日本"'
    assert kind_at(("init_from",)).kind == FilePath() and "init_from" in SCHEMA.keys
