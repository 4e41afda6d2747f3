"""What a data set and a config may leave out, and what is said where they leave out too much."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from data_loader.loader import ExpertDataLoader
from data_loader.sets.description import find_description, parse_description
from data_loader.sets.layout import FileFinder
from misc.check_data_set.problems import check_data_set
from misc.check_data_set.use import use_by
from tests.conftest import SHARED
from tests.own_data import OwnData
from tests.tiny_set import tiny_config
from trainer.build import build_loader, build_net
from utils.config import Config
from utils.errors import UserError


@pytest.fixture
def own(tmp_path: Path) -> OwnData:
    return OwnData(tmp_path)


def config_of(own: OwnData, **changes: Any) -> Config:
    values = tiny_config(own.folder, own.folder / "saved")
    values["experts"] |= {"modalities": ["fixed", "tokens"], "text_feat": "file"}
    values["data_loader"]["args"] |= {"split_name": "val", "batch_size": 3}
    values["data_loader"]["args"]["max_tokens"] = {"text": 5, "tokens": 4}
    values["arch"]["args"]["vlad_clusters"] = {"text": 2, "tokens": 2}
    values["eval_settings"] = {}
    return Config.from_dict(values).merged(changes)


def test_sizes_and_kinds_are_found_in_the_files(own: OwnData) -> None:
    whole = own.loader()
    for entry in own.description["experts"].values():
        entry.pop("size", None), entry.pop("variable_length", None)
    del own.description["text_features"]["file"]["size"]
    own.write()
    assert not check_data_set(find_description(str(own.folder))).problems
    found = own.loader()
    assert (found.experts, found.text_size) == (whole.experts, whole.text_size)
    [before], [after] = (one.retrieval.video_blocks(100) for one in (whole, found))
    for name, values in before.experts.items():
        assert (after.experts[name] == values).all()


def test_a_kind_that_is_declared_still_has_to_be_so(own: OwnData) -> None:
    own.description["experts"]["tokens"] = {"file": "tokens.npz", "variable_length": False}
    own.write()
    with pytest.raises(UserError, match="one was expected"):
        own.loader()


def test_auto_takes_the_experts_of_the_data_set(own: OwnData) -> None:
    named = build_loader(config_of(own), 0)
    config = config_of(own, experts={"modalities": "auto"})
    assert build_loader(config, 0).experts == named.experts
    left = config.merged({"experts": {"drop_feats": "fixed"}})
    assert [expert.name for expert in build_loader(left, 0).experts] == ["tokens"]
    use = use_by(config, find_description(str(own.folder)))
    assert use.experts == {"fixed", "tokens"}
    changed = config.with_custom_args("data_loader.args.max_tokens.tokens@3")
    assert build_loader(changed, 0).experts[1].max_tokens == 3
    with pytest.raises(UserError, match='"auto" or a list'):
        config_of(own, experts={"modalities": "all"})


def test_all_that_a_config_lacks_is_said_at_once_and_can_be_pasted(own: OwnData) -> None:
    values = config_of(own).values
    values["data_loader"]["args"]["max_tokens"] = {}
    del values["arch"]["args"]["vlad_clusters"]
    config = Config.from_dict(values)
    with pytest.raises(UserError) as caught:
        build_loader(config, 0)
    text = str(caught.value)
    decoder, lines = json.JSONDecoder(), []
    for part in text.split("{", 1)[1].join(["{", ""]).split(" and "):
        lines.append(decoder.raw_decode(part.strip())[0])
    assert [list(line) for line in lines] == [["data_loader"], ["arch"]]
    for line in lines:
        config = config.merged(line)
    build_net(config, build_loader(config, 0))


def test_clusters_alone_are_said_for_all_experts(own: OwnData) -> None:
    own.description["experts"]["more"] = {"file": "tokens.npz"}
    own.write()
    tokens = {"data_loader": {"args": {"max_tokens": {"more": 4}}}}
    config = config_of(own, experts={"modalities": "auto"}).merged(tokens)
    del config.values["arch"]["args"]["vlad_clusters"]["tokens"]
    loader = build_loader(config, 0)
    with pytest.raises(UserError, match=r'experts more, tokens .*{"more": 8, "tokens": 8}}}}'):
        build_net(config, loader)


def test_all_missing_keys_are_named_at_once() -> None:
    with pytest.raises(UserError, match=r'"experts\.text_feat", .*"data_loader\.args\.max_tokens"'):
        build_loader(Config.from_dict({"experts": {"modalities": "auto"}}), 0)


@pytest.mark.parametrize("splits", [None, {}])
def test_missing_splits_come_with_the_command_that_draws_them(own: OwnData, splits: Any) -> None:
    own.description["splits"] = splits
    if splits is None:
        del own.description["splits"]
    own.write()
    with pytest.raises(UserError) as caught:
        own.loader()
    command = f"python3 -m misc.import_data_set --output {own.folder}-with-splits"
    assert command in str(caught.value) and f"tokens={own.folder}/tokens.npz" in str(caught.value)


def test_published_experts_that_were_placed_by_hand(tmp_path: Path) -> None:
    description = find_description("MSVD", tmp_path)
    entry = next(iter(description.experts.values()))
    path = tmp_path / "symlinked-feats" / entry.files[0]
    path.parent.mkdir(parents=True)
    path.touch()
    assert FileFinder(description).find(entry.files, "an expert") == path
    own = parse_description({**OwnData(tmp_path).description}, tmp_path / "dataset.json")
    assert tmp_path / "symlinked-feats" not in FileFinder(own).folders


# --- What others handed in ------------------------------------------------------------------------


def copy_of(name: str, folder: Path) -> Path:
    source = SHARED / "cases" / "bug_reports" / name
    if not source.is_dir():
        pytest.skip(f"{source} is not here")
    return Path(shutil.copytree(source, folder / name))


def opened(folder: Path) -> ExpertDataLoader:
    values = tiny_config(folder, folder / "saved")
    values["experts"]["modalities"] = ["motion"]
    values["data_loader"]["args"] |= {"split_name": "val", "max_tokens": {"text": 9}}
    return build_loader(Config.from_dict(values), 0)


def motion_of(folder: Path) -> torch.Tensor:
    [videos] = opened(folder).retrieval.video_blocks(100)
    return videos.experts["motion"]


def test_a_group_for_each_video(tmp_path: Path) -> None:
    folder = copy_of("h5-group-per-video", tmp_path)
    assert motion_of(folder).any(dim=1).all()


def test_ids_with_folders(tmp_path: Path) -> None:
    folder = copy_of("ids-with-folders", tmp_path)
    groups = motion_of(folder)
    description = json.loads((folder / "dataset.json").read_text())
    description["experts"]["motion"]["file"] = "m"
    (folder / "dataset.json").write_text(json.dumps(description))
    assert groups.any(dim=1).all() and (motion_of(folder) == groups).all()


def test_features_in_the_place_of_others_are_noticed(tmp_path: Path) -> None:
    folder = copy_of("stale-cache", tmp_path)
    before, state = motion_of(folder), (folder / "motion.npz").stat()
    (folder / "motion.npz").write_bytes((folder / "motion-new.npz").read_bytes())
    os.utime(folder / "motion.npz", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (folder / "motion.npz").stat().st_size == state.st_size
    assert not (motion_of(folder) == before).all()


def test_a_data_set_without_any_expert_is_not_trained_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'any of the experts motion.*"v0\d\d\.avi" from "v0\d\d"'):
        opened(copy_of("no-expert-at-all", tmp_path))
