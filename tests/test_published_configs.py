"""The shipped configs: they resolve to the published values, pass the check, stay readable."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, SHARED
from utils.config import INHERIT, Config, resolve_config
from utils.config_schema import SCHEMA
from utils.errors import UserError

CONFIGS = sorted((ROOT / "configs").rglob("*.json"))
FRAGMENTS = [path for path in CONFIGS if path.parent.name == "fragments"]
BASES = [path for path in CONFIGS if path.name.startswith(("base_", "data_loader_"))]
EXPERIMENTS = [path for path in CONFIGS if path not in (*FRAGMENTS, *BASES)]
UNPUBLISHED = ("demo", "own")
TAUGHT = ("msrvtt", "msvd", "lsmdc", "didemo", "activity-net")


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    path = SHARED / "reference" / "resolved_configs.json"
    if not path.is_file():
        pytest.skip("the published values are not here")
    return json.loads(path.read_text())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "configs"))


def leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, (*path, key))
        else:
            found[*path, key] = value
    return found


def same(value: Any, other: Any) -> bool:
    """Equal in kind, too: 0 is not false."""
    return json.dumps(value, sort_keys=True) == json.dumps(other, sort_keys=True)


def test_published_paths_resolve_to_the_published_values(published: dict[str, Any]) -> None:
    assert len(published) == 229
    for path, expected in published.items():
        found = leaves(resolve_config(path))
        for key, value in leaves(expected).items():
            assert key in found, f"{path} lacks {key}"
            assert same(found[key], value), f"{path}: {key} is {found[key]}, not {value}"


@pytest.mark.parametrize("path", BASES + EXPERIMENTS, ids=name)
def test_every_config_passes_the_check(path: Path) -> None:
    config = Config.from_file(path)
    assert config.name == f"{path.parent.name}-{path.stem}"
    config.eval_config()


@pytest.mark.parametrize("path", FRAGMENTS, ids=name)
def test_fragments_hold_known_keys_alone(path: Path) -> None:
    assert list(SCHEMA.problems(resolve_config(path), ())) == []


def test_fragments_and_bases_are_used() -> None:
    used = {
        parent.strip()
        for path in CONFIGS
        for parent in json.loads(path.read_text()).get(INHERIT, "").split(",")
    }
    for path in FRAGMENTS + BASES:
        assert f"configs/{name(path)}" in used


def test_no_config_repeats_what_it_inherits(tmp_path: Path) -> None:
    for path in CONFIGS:
        own = json.loads(path.read_text())
        if path.parent.name in UNPUBLISHED or INHERIT not in own:
            continue
        parents = tmp_path / "parents.json"
        parents.write_text(json.dumps({INHERIT: own.pop(INHERIT)}))
        inherited = leaves(resolve_config(parents))
        for key, value in leaves(own).items():
            assert not (key in inherited and same(inherited[key], value)), f"{path}: {key}"


def test_experiments_show_only_what_makes_them() -> None:
    for path in EXPERIMENTS:
        own = json.loads(path.read_text())
        if path.parent.name not in UNPUBLISHED:
            assert INHERIT in own, f"{path} stands alone"
            assert len(leaves(own)) < 20, f"{path} is more than its difference"


@pytest.mark.parametrize("data_set", TAUGHT)
def test_teachtext_of_ce_is_ce_with_teachers(data_set: str) -> None:
    student = resolve_config(f"configs/{data_set}/train-full-ce.json")
    taught = resolve_config(f"configs/{data_set}/train-ce-intra-mte.json")
    assert taught.pop("distil_loss") is True
    params = taught.pop("distil_params")
    assert taught == student
    other = resolve_config(f"configs/{data_set}/train-gpt2-xl-finetuned-mte-adam.json")
    assert params == other["distil_params"] and len(params["teachers"]) == 3


def test_configs_that_inherit_from_the_published_ones(golden: Path) -> None:
    paths = sorted((golden / "tiny_msrvtt" / "configs").glob("*.json"))
    for path in paths:
        config = Config.from_file(path)
        assert config["data_loader.args.dataset_name"] == "MSRVTT"
    assert len(paths) >= 9


def test_paths_of_the_published_code_that_are_not_wanted() -> None:
    values = resolve_config("configs/msrvtt/train-full-ce.json")
    values["arch"]["args"]["task"] = "classification"
    with pytest.raises(UserError, match=r'task" must be one of "retrieval"'):
        Config.from_dict(values)
