"""Descriptions of data sets: published ones, one's own, and what is said when they do not fit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_loader.formats.read import read_id_list
from data_loader.sets.declared import aggregated
from data_loader.sets.description import find_description, published_names
from data_loader.sets.layout import FileFinder, expert_source
from tests.conftest import SHARED
from tests.own_data import OwnData
from utils.errors import UserError

SENET = {
    "fps": 25,
    "pixel_dim": 256,
    "stride": 1,
    "offset": 0,
    "temporal": "avg",
    "type": "embed",
    "feat_dims": {"embed": 2048, "logits": 1000},
}


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    path = SHARED / "reference" / "datasets.json"
    if not path.is_file():
        pytest.skip("the tables of facts are not here")
    return json.loads(path.read_text())


def test_the_published_sets_parse() -> None:
    assert published_names() == [
        "ActivityNet",
        "DiDeMo",
        "LSMDC",
        "MSRVTT",
        "MSVD",
        "QuerYD",
        "QuerYDSegments",
        "VaTeX",
        "YouCook2",
    ]
    for name in published_names():
        found = find_description(name)
        assert found.name == name and found.published
        assert found.splits and found.text_features and found.aggregated_experts
        # Whatever a published config asks for, a model of it can be built without the files.
        assert all(entry.size for entry in found.text_features.values())
        for split in found.splits.values():
            for expert, entry in {**found.experts, **split.experts}.items():
                derived = expert == "face" or expert.count(".") == 2
                assert entry.size or derived, f"{name}: {expert}"


@pytest.mark.parametrize("name", published_names())
def test_published_descriptions_agree_with_the_facts(facts: dict[str, Any], name: str) -> None:
    found, expected = find_description(name), facts[name]
    assert str(found.root) == expected["data_dir"]
    splits = {
        key: {"train": split.train.file, "val": split.val.file}
        for key, split in found.splits.items()
    }
    assert splits == expected["splits"]
    assert found.captions == expected["raw_captions"]
    assert list(found.aggregated_experts) == expected["visual_experts"]
    other_names = facts["known_alternative_names"].get(name, {})
    for expert, files in expected["expert_files"].items():
        known = list(found.experts[expert].files)
        assert known[: len(files)] == files
        assert set(known) == {*files, *other_names.get(expert, ())}
    # The challenge knows the sound of two sets under a second name; it is the same file.
    aliases = set(found.experts) - set(expected["expert_files"])
    assert aliases <= {"audio.vggish.0"}
    assert all(found.experts[alias] == found.experts["audio"] for alias in aliases)
    assert set(found.text_features) == set(expected["text_feature_files"])
    for text, files in expected["text_feature_files"].items():
        entry = found.text_features[text]
        if isinstance(files, dict):
            assert set(entry.parts) == set(files.values())
            assert entry.parts_key_mapping == expected.get("video_key_mapping")
        else:
            assert entry.files[0] == files and not entry.parts
    for text, file in expected.get("challenge_text_feature_files", {}).items():
        assert file in found.text_features[text].files
    for split, entry in found.splits.items():
        assert entry.challenge_test == (split == "public_server_test")


def test_lists_of_the_published_splits(facts: dict[str, Any]) -> None:
    expected = {
        "ActivityNet": {"train_list.txt": 10009, "val_1_list.txt": 4917},
        "DiDeMo": {"train_list.txt": 8392, "val_list.txt": 1065, "test_list.txt": 1004},
        "MSVD": {"train_list.txt": 1200, "val_list.txt": 100, "test_list.txt": 670},
        "MSRVTT": {
            "train_list_full.txt": 6513,
            "val_list_full.txt": 497,
            "test_list_full.txt": 2990,
            "train_list_jsfusion.txt": 9000,
            "val_list_jsfusion.txt": 1000,
            "train_list_miech.txt": 6656,
            "test_list_miech.txt": 1000,
        },
    }
    for name, counts in expected.items():
        description = find_description(name)
        folder = SHARED / "reference" / "splits" / description.root.name.lower()
        entries = [e for split in description.splits.values() for e in (split.train, split.val)]
        named = {entry.file for entry in entries}
        here = {path.name for path in folder.iterdir()} - {"val_2_list.txt"}
        assert here == set(counts) and here <= named
        for file, count in counts.items():
            ids = description.video_ids(read_id_list(folder / file))
            assert len(set(ids)) == count
            if name == "DiDeMo":
                assert not any(key.endswith((".mp4", ".mov", ".avi")) for key in ids)


def test_every_expert_of_the_published_configs_is_found(facts: dict[str, Any]) -> None:
    configs = json.loads((SHARED / "reference" / "resolved_configs.json").read_text())
    members = {
        "/".join(line.split("/")[3 if "challenge-release" in line else -2 :])
        for path in (SHARED / "reference" / "archives").glob("*.txt")
        for line in path.read_text().split()
    }
    checked, absent = 0, set()
    for path, config in configs.items():
        arguments = config["data_loader"].get("args", {})
        if "dataset_name" not in arguments:
            continue
        description = find_description(arguments["dataset_name"])
        split = description.split(arguments["split_name"])
        description.split(
            (config.get("eval_settings") or config)["data_loader"]["args"]["split_name"]
        )
        for name in config["experts"]["modalities"]:
            entry = description.expert_entry(name, split)
            if entry is None and name not in description.aggregated_experts:
                absent.add((path, name))
                continue
            if entry is None:
                files = tuple(aggregated(name, arguments["feat_aggregation"][name]))
                checked += files[0] in members
        description.text_entry(config["experts"]["text_feat"])
    assert checked > 400
    # The published QuerYD has no speech; a config asks for it all the same.
    assert absent == {("configs/queryd/train-full-ce-only-scene-speech.json", "speech")}


def test_names_of_visual_experts() -> None:
    assert aggregated("imagenet.senet154.0", SENET) == [
        "aggregated_imagenet_25fps_256px_stride1_offset0/senet154-avg.pickle"
    ]
    changed = {**SENET, "temporal": "avg-std", "type": "logits", "inner_stride": 2}
    changed["num_segments"] = None
    assert aggregated("moments-static.m.1", changed) == [
        "aggregated_moments_static_25fps_256px_stride1_offset0_inner_stride2/m-avg-logits.pickle",
        "aggregated_moments_static_25fps_256px_stride1_offset0_inner_stride2/m-std-logits.pickle",
    ]
    with pytest.raises(UserError, match=r'"fps".*feat_aggregation\["a.b.0"\]'):
        aggregated("a.b.0", {})


def source(root: Path, name: str, split: str = "full-val", **aggregation: Any) -> Any:
    description = find_description("MSRVTT", root)
    finder = FileFinder(description, "high-quality/structured-symlinks")
    return expert_source(name, finder, description.split(split), aggregation, 512)


def test_declared_sizes_and_kinds(golden: Path) -> None:
    root = golden / "tiny_msrvtt" / "data" / "MSRVTT"
    assert source(root, "face").size == 512
    assert source(root, "imagenet.senet154.0", **SENET).size == 2048
    assert not source(root, "imagenet.senet154.0", **SENET).variable_length
    audio = source(root, "audio", temporal="vlad", binarise=True)
    assert (audio.size, audio.variable_length, audio.binarise) == (128, True, True)
    assert not source(root, "audio", temporal="avg").variable_length
    assert source(root, "speech").variable_length
    miech = source(root, "audio", split="miech")
    assert miech.files[0].name == "audio_features.pickle"


def test_files_of_the_other_release_are_used_and_mentioned(
    golden: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = golden / "tiny_msrvtt" / "data" / "MSRVTT" / "high-quality" / "structured-symlinks"
    other = tmp_path / "structured-symlinks" / "aggregated_speech"
    other.mkdir(parents=True)
    shutil.copyfile(held / "aggregated_speech" / "speech-w2v.pickle", other / "speech-w2v.pickle")
    with caplog.at_level("INFO"):
        found = source(tmp_path, "speech")
    assert found.files == (other / "speech-w2v.pickle",)
    assert str(other) in caplog.text


def test_a_missing_published_file_names_the_places_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        source(tmp_path, "ocr")
    message = str(error.value)
    for folder in ("high-quality/structured-symlinks", "structured-symlinks"):
        assert str(tmp_path / folder / "aggregated_ocr_feats" / "ocr-raw.pickle") in message
    assert "python3 misc/sync_experts.py --dataset MSRVTT" in message


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'"MSRVT" \(did you mean "MSRVTT"\?\).*dataset\.json'):
        find_description("MSRVT", tmp_path)
    with pytest.raises(UserError, match=r'"speach" \(did you mean "speech"\?\).*audio'):
        source(tmp_path, "speach")
    with pytest.raises(UserError, match=r'"full-vl" \(did you mean "full-val"\?\)'):
        find_description("MSRVTT").split("full-vl")
    with pytest.raises(UserError, match=r'"gpt3".*w2v.*"text_features".*json'):
        find_description("MSRVTT").text_entry("gpt3")
    # Its files differ in that one split, where it exists.
    with pytest.raises(UserError, match='no expert "flow"'):
        source(tmp_path, "flow")


def test_own_data_by_folder_name_or_data_dir(tmp_path: Path) -> None:
    OwnData(tmp_path)
    assert find_description(str(tmp_path)).name == "own"
    assert find_description("anything", tmp_path).root == tmp_path
    assert find_description(str(tmp_path), tmp_path / "." / "x" / "..").root == tmp_path
    with pytest.raises(UserError, match=r"would have no effect on .*: leave it out"):
        find_description(str(tmp_path), tmp_path / "elsewhere")


def test_root_may_be_relative_or_absolute(tmp_path: Path) -> None:
    data = OwnData(tmp_path)
    (tmp_path / "sets").mkdir()
    for root in ("..", str(tmp_path)):
        text = json.dumps({**data.description, "root": root})
        (tmp_path / "sets" / "dataset.json").write_text(text)
        found = find_description(str(tmp_path / "sets"))
        assert FileFinder(found).find(("fixed.npz",), "it").samefile(tmp_path / "fixed.npz")


def test_a_missing_file_of_ones_own_points_to_the_description(tmp_path: Path) -> None:
    data = OwnData(tmp_path)
    (tmp_path / "tokens.npz").unlink()
    with pytest.raises(UserError, match=r'"tokens".*tokens\.npz.*dataset\.json'):
        data.loader()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert": {}}, r'"expert" \(did you mean "experts"\?\)'),
        ({"name": ""}, '"name".*non-empty text'),
        ({"name": None}, '"name".*non-empty text'),
        ({"name": "own\ud800"}, "half of a character"),
        ({"name": "o" * 256}, '"name".*at most 255'),
        ({"captions": "c\0.json"}, '"captions"'),
        ({"root": "\udfff"}, "half of a character"),
        ({"splits": {"\ud800": {"train": "x", "val": "y"}}}, "half of a character"),
        ({"splits": {"s" * 256: {"train": "x", "val": "y"}}}, "splits.*at most 255"),
        ({"splits": {"a": {"train": "x\0", "val": "y"}}}, r"splits\.a\.train"),
        ({"e" * 10_000: 1}, r"no entry \"e{60}\.\.\."),
        ({"splits": []}, '"splits".*object'),
        ({"splits": {"a": {"train": "x"}}}, r'"splits\.a".*"val" is missing'),
        ({"splits": {"a": {"train": "x", "val": {"file": "y"}}}}, r'"splits\.a\.val".*"key"'),
        ({"experts": {"e": {}}}, r'"experts\.e".*either "file" or "parts"'),
        ({"experts": {"e": {"file": "f", "sise": 3}}}, 'did you mean "size"'),
        ({"experts": {"e": {"file": "f", "size": "3"}}}, r'"experts\.e\.size".*whole number'),
        ({"experts": {"e": {"file": "f", "variable_length": 1}}}, "true or false"),
        ({"experts": {"e": {"file": []}}}, r'"experts\.e\.file"'),
        ({"text_features": {"t": {"size": 3}}}, 'either "file" or "word_vectors"'),
        ({"text_features": {"t": {"file": "a", "word_vectors": "b"}}}, 'either "file" or'),
        ({"experts": {"e": {"file": "f", "size": 10**20}}}, "at most 1000000000"),
        ({"feature_folders": "x"}, "list"),
        ({"ids_end_at": ""}, '"ids_end_at".*non-empty text'),
        ({"splits": {"a": {"train": "x", "val": "y", "challenge_test": 1}}}, "true or false"),
        (
            {"splits": {"a": {"train": "x", "val": "y", "expected": {"videos": 3}}}},
            r'"splits\.a\.expected".*"queries" is missing',
        ),
        (
            {"splits": {"a": {"train": "x", "val": "y", "expected": {"videos": 0, "queries": 1}}}},
            r'"splits\.a\.expected\.videos".*at least 1',
        ),
        ({"text_features": {"t": {"word_vectors": "a", "parts": ["b"]}}}, 'only beside "file"'),
        (
            {"text_features": {"t": {"file": "a", "parts_key_mapping": "b"}}},
            r'"text_features\.t\.parts_key_mapping".*only beside "parts"',
        ),
    ],
)
def test_descriptions_are_checked(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    data = OwnData(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({**data.description, **changes}))
    with pytest.raises(UserError, match=message) as error:
        find_description(str(tmp_path))
    assert str(tmp_path / "dataset.json") in str(error.value)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "a\ud800b", "\x1b[31m"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    data = OwnData(tmp_path)
    for folder in (name, str(tmp_path / name)):
        with pytest.raises(UserError) as error:
            find_description(folder)
        assert str(error.value).isprintable()
    for changes in ({"split_name": name}, {"training_file": name}, {"caption_masks": name}):
        with pytest.raises(UserError) as error:
            data.loader(**changes)
        assert str(error.value).isprintable()
    if len(name) > 255:
        data.description["experts"]["fixed"]["file"] = name
        data.write()
        with pytest.raises(UserError, match=r"longer than"):
            data.loader()


def test_a_description_lacks_captions(tmp_path: Path) -> None:
    data = OwnData(tmp_path)
    del data.description["captions"]
    data.write()
    with pytest.raises(UserError, match='"captions" is missing'):
        find_description(str(tmp_path))
