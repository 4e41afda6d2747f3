"""Every shipped config builds a model with the published number of parameters, on meta."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_loader.sets.declared import ModelInputs
from misc.describe import describe, main, parameters_by_part
from misc.results.published import config_of, published_results
from tests.conftest import ROOT, SHARED
from tests.tiny_set import make_tiny_set, tiny_config
from trainer.build import build_loader, build_net, count_parameters, expert_dims, inputs_of
from trainer.memory import only_sizes
from utils.config import Config, resolve_config
from utils.errors import UserError

# A base without a data set, and one that names an expert whose kind it leaves open.
NOT_BUILT = {
    "configs/base_config.json": "dataset_name",
    "configs/base_config_queryd.json": "dataset_name",
    "configs/base_mnnet.json": "dataset_name",
    "configs/cvpr2020-challenge/base_config.json": "dataset_name",
    "configs/cvpr2020-challenge/data_loader_youcook2.json": "vlad_clusters.audio.vggish.0",
}


class Built:
    """What one config builds, without its weights."""

    def __init__(self, path: str) -> None:
        config = Config.from_file(ROOT / path)
        data = inputs_of(config)
        with only_sizes():
            net = build_net(config, data)
        self.parameters = count_parameters(net)
        self.by_part = parameters_by_part(net)
        self.dims = expert_dims(config, data)
        self.sizes = {expert.name: expert.size for expert in data.experts}
        self.text_size = data.text_size


@pytest.fixture(scope="module")
def built() -> dict[str, Built]:
    """All of published data sets, each built once; test_unpublished_configs.py has the others."""
    others = ("fragments", "demo", "own")
    paths = sorted((ROOT / "configs").rglob("*.json"))
    names = [str(p.relative_to(ROOT)) for p in paths if p.parent.name not in others]
    return {name: Built(name) for name in names if name not in NOT_BUILT}


def test_published_numbers_of_parameters(built: dict[str, Built]) -> None:
    counts = {
        experiment: result["parameters"]
        for experiment, result in published_results()["collaborative-experts"].items()
    }
    without_config = [experiment for experiment in counts if config_of(experiment) is None]
    assert without_config == ["msrvtt-train-full-ce-only-rgb"]
    compared = 0
    for experiment, expected in counts.items():
        path = config_of(experiment)
        if path:
            assert built[str(path.relative_to(ROOT))].parameters == expected, experiment
            compared += 1
    assert compared == 156


def test_parts_add_up(built: dict[str, Built]) -> None:
    for found in built.values():
        assert sum(found.by_part.values()) == found.parameters
    moe_fc = {
        stem: built[f"configs/msrvtt/train-full-{stem}.json"].by_part["ce.moe_fc"]
        for stem in ("ce", "moee-minus-moee-weights")
    }
    assert len(set(moe_fc.values())) == 1


def test_what_each_published_config_builds(built: dict[str, Built]) -> None:
    path = SHARED / "reference" / "param_counts.json"
    if not path.is_file():
        pytest.skip("the published counts are not here")
    facts: dict[str, Any] = json.loads(path.read_text())
    for name, fact in facts.items():
        fact = fact.get("if_key_added", fact)
        if "error" in fact:
            assert name in NOT_BUILT
            continue
        found = built[name]
        assert found.parameters == fact["params"], name
        assert found.sizes == fact["raw_input_dims"], name
        assert found.text_size == fact["text_dim"], name
        pooled = {expert: sizes[0] for expert, sizes in fact["expert_dims"].items()}
        assert {expert: sizes[0] for expert, sizes in found.dims.items()} == pooled, name
        for part, count in fact.get("by_module", {}).items():
            if part != "(own)":  # MNNet's one parameter
                assert found.by_part.get(part, 0) == count, f"{name}: {part}"
    assert len(facts) == 229


def test_teachtext_builds_the_student(built: dict[str, Built]) -> None:
    for data_set in ("msrvtt", "msvd", "lsmdc", "didemo", "activity-net"):
        taught = built[f"configs/{data_set}/train-ce-intra-mte.json"]
        assert taught.parameters == built[f"configs/{data_set}/train-full-ce.json"].parameters


@pytest.mark.parametrize("path", NOT_BUILT)
def test_a_base_says_what_it_lacks(path: str) -> None:
    with pytest.raises(UserError, match=NOT_BUILT[path]):
        Built(path)


def changed(**changes: Any) -> Config:
    values = resolve_config(ROOT / "configs/msrvtt/train-full-ce.json")
    for key, value in changes.items():
        section, name = key.split("__")
        values[section]["args" if section != "experts" else name] = (
            value if section == "experts" else values[section]["args"] | {name: value}
        )
    return Config.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts__modalities": ["detection-sem"]}, 'no expert "detection-sem"'),
        ({"experts__modalities": ["openpose"]}, 'no expert "openpose"'),
        ({"experts__modalities": ["antoine-rgb"], "data_loader__split_name": "full"}, "no split"),
        ({"experts__text_feat": "gpt3"}, '"gpt3"'),
        ({"data_loader__feat_aggregation": {}}, r"feat_aggregation"),
        ({"data_loader__max_tokens": {}}, r"captions vary.*max_tokens\.text"),
        ({"data_loader__dataset_name": "MSRVT"}, "did you mean"),
    ],
)
def test_what_cannot_be_built_from_a_config_alone(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        inputs_of(changed(**changes))


def told(data: ModelInputs) -> tuple[Any, ...]:
    return data.experts, data.text_size, data.max_text_tokens


def test_the_loader_finds_what_is_declared(tmp_path: Path) -> None:
    config = Config.from_dict(tiny_config(make_tiny_set(tmp_path / "tiny"), tmp_path / "saved"))
    assert told(inputs_of(config)) == told(build_loader(config, seed=0))


@pytest.mark.parametrize("name", ["tiny-ce", "tiny-miech-moee", "tiny-jsfusion-vis"])
def test_the_loader_finds_what_is_declared_of_a_published_set(
    golden: Path, tmp_path: Path, name: str
) -> None:
    folder = golden / "tiny_msrvtt"
    overrides = {"data_dir": folder / "data" / "MSRVTT", "cache_dir": tmp_path}
    config = Config.from_file(
        folder / "configs" / f"{name}.json",
        "+".join(f"data_loader.args.{key}@{path}" for key, path in overrides.items()),
    )
    assert told(inputs_of(config)) == told(build_loader(config, seed=0))


def test_the_description_of_a_model() -> None:
    text = "\n".join(describe(Config.from_file(ROOT / "configs/msrvtt/train-full-ce.json")))
    for line in (
        r"split full-test (test_list_full.txt), captions of a video: 20",
        "openai, 768 a word, 37 words kept, NetVLAD of 28 clusters (ghosts: 1) to 21504",
        "183,448,607",
        "t2v  R@1 10.0 (0.1)  R@5 29.0 (0.3)  R@10 41.2 (0.2)  MedR 16.0 (0.0)",
        "t2v  R@1 11.0 (0.0)  R@5 30.8 (0.1)  R@10 43.3 (0.3)  MedR 15.0 (0.0)",
    ):
        assert line in text
    ocr = next(line for line in text.splitlines() if line.startswith("ocr"))
    assert ocr.split() == ["ocr", "300", "49", "12900", "768"]


def test_a_set_of_ones_own_is_told_to_be_tested_on_all_captions(tmp_path: Path) -> None:
    values = tiny_config(make_tiny_set(tmp_path / "tiny"), tmp_path)
    del values["data_loader"]["args"]["num_test_captions"]
    text = "\n".join(describe(Config.from_dict(values)))
    assert "full-test (splits.json: test)" in text


def test_the_command_takes_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(ROOT / "configs/queryd/train-full-moee.json")
    main(["--config", path, "--custom_args", "experts.drop_feats@audio"])
    out = capsys.readouterr().out
    assert "mixture of embedding experts" in out and "Nothing is published" in out
    assert not any(line.startswith("audio") for line in out.splitlines())
