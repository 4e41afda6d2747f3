"""Descriptions of data sets: published ones, one's own, and what is said when they do not fit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_loader.description import find_description, published_names
from data_loader.errors import UserError
from data_loader.layout import FileFinder, aggregated, expert_source
from tests.conftest import SHARED
from tests.own_data import OwnData

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


def test_published_descriptions_agree_with_the_facts(facts: dict[str, Any]) -> None:
    for name in published_names():
        found, expected = find_description(name), facts[name]
        assert str(found.root) == expected["data_dir"]
        splits = {
            key: {"train": split.train.file, "val": split.val.file}
            for key, split in found.splits.items()
        }
        assert splits == expected["splits"]
        assert found.captions == expected["raw_captions"]
        experts = {key: list(entry.files) for key, entry in found.experts.items()}
        assert experts == expected["expert_files"]
        text = {key: entry.files[0] for key, entry in found.text_features.items()}
        assert text == expected["text_feature_files"]
        assert list(found.aggregated_experts) == expected["visual_experts"]


def test_every_expert_of_the_published_configs_is_found(facts: dict[str, Any]) -> None:
    configs = json.loads((SHARED / "reference" / "resolved_configs.json").read_text())
    archives = SHARED / "reference" / "archives"
    members = {
        line.split("structured-symlinks/")[-1]
        for path in archives.glob("msrvtt-*.txt")
        for line in path.read_text().split()
    }
    checked = 0
    for config in configs.values():
        arguments = config["data_loader"].get("args", {})
        if arguments.get("dataset_name") != "MSRVTT":
            continue
        description = find_description("MSRVTT")
        split = description.split(arguments["split_name"])
        for name in config["experts"]["modalities"]:
            description.check_expert(name, split)
            if name not in {**description.experts, **split.experts}:
                files = aggregated(name, arguments["feat_aggregation"][name])
                checked += files[0] in members
        description.text_entry(config["experts"]["text_feat"])
    assert checked > 50


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
    with pytest.raises(UserError, match=r'no expert "speach" \(did you mean "speech"\?\).*audio'):
        source(tmp_path, "speach")
    with pytest.raises(UserError, match=r'no split "full-vl" \(did you mean "full-val"\?\)'):
        find_description("MSRVTT").split("full-vl")
    with pytest.raises(UserError, match=r'no text feature "gpt3".*w2v'):
        find_description("MSRVTT").text_entry("gpt3")
    # Its files differ in that one split, where it exists.
    with pytest.raises(UserError, match='no expert "flow"'):
        source(tmp_path, "flow")


def test_own_data_by_folder_name_or_data_dir(tmp_path: Path) -> None:
    OwnData(tmp_path)
    assert find_description(str(tmp_path)).name == "own"
    assert find_description("anything", tmp_path).root == tmp_path


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
    with pytest.raises(UserError, match=r'"tokens".*tokens\.npz.*check the path in.*dataset\.json'):
        data.loader()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert": {}}, r'no entry "expert" \(did you mean "experts"\?\)'),
        ({"name": ""}, '"name".*non-empty text'),
        ({"name": None}, '"name".*non-empty text'),
        ({"splits": []}, '"splits".*object'),
        ({"splits": {"a": {"train": "x"}}}, r'"splits\.a".*"val" is missing'),
        ({"splits": {"a": {"train": "x", "val": {"file": "y"}}}}, r'"splits\.a\.val".*"key"'),
        ({"experts": {"e": {}}}, r'"experts\.e".*"file" is missing'),
        ({"experts": {"e": {"file": "f", "sise": 3}}}, 'did you mean "size"'),
        ({"experts": {"e": {"file": "f", "size": "3"}}}, r'"experts\.e\.size".*whole number'),
        ({"experts": {"e": {"file": "f", "variable_length": 1}}}, "true or false"),
        ({"experts": {"e": {"file": []}}}, r'"experts\.e\.file"'),
        ({"text_features": {"t": {"size": 3}}}, 'either "file" or "word_vectors"'),
        ({"text_features": {"t": {"file": "a", "word_vectors": "b"}}}, 'either "file" or'),
        ({"feature_folders": "x"}, "list of texts"),
    ],
)
def test_descriptions_are_checked(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    data = OwnData(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({**data.description, **changes}))
    with pytest.raises(UserError, match=message) as error:
        find_description(str(tmp_path))
    assert str(tmp_path / "dataset.json") in str(error.value)


def test_a_description_lacks_captions(tmp_path: Path) -> None:
    data = OwnData(tmp_path)
    del data.description["captions"]
    data.write()
    with pytest.raises(UserError, match='"captions" is missing'):
        find_description(str(tmp_path))
