"""Published checkpoints of both containers are read as plain data; crafted ones run nothing."""

import argparse
import io
import json
import logging
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from data_loader.formats.apart import apart
from tests.checkpoint_files import (
    CONTAINERS,
    Call,
    Outside,
    Weights,
    crafted,
    load_freely,
    pickled,
    save_published,
    tensor,
    write_legacy,
    write_zip,
)
from trainer.checkpoints.checkpoint import LARGE_KEYS, load_checkpoint, load_weights
from trainer.runs.finding import config_of_checkpoint
from utils.errors import UserError

VALUES = np.arange(6, dtype=np.float32)
RAW = {"0": VALUES.tobytes()}

containers = pytest.mark.parametrize("container", list(CONTAINERS))
zip_and_legacy = pytest.mark.parametrize("zipped", [True, False])


def trained(seed: int = 0) -> dict[str, Any]:
    """The content of a checkpoint after a step of training, without its config."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.randn(5, 3)).square().mean().backward()
    optimiser.step()
    return {
        "arch": "CENet",
        "epoch": 7,
        "state_dict": net.state_dict(),
        "optimizer": optimiser.state_dict(),
        "monitor_best": np.float64(12.5),
    }


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[k], expected[k]) for k in expected)
    if isinstance(expected, list | tuple):
        return (
            type(found) is type(expected)
            and len(found) == len(expected)
            and all(map(same, found, expected))
        )
    return found == expected


@zip_and_legacy
def test_weights_state_and_config_are_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    path, content = tmp_path / "trained_model.pth", trained()
    values = {"seed": 3, "trainer": {"epochs": 2}, "inherit_from": "configs/base.json"}
    save_published(
        monkeypatch, path, content, zipped, _config=OrderedDict(values), _exper_name="msrvtt-ce"
    )
    assert "parse_config" not in sys.modules
    loaded = load_checkpoint(path)
    assert "parse_config" not in sys.modules
    config = loaded.pop("config")
    assert config == {"seed": 3, "trainer": {"epochs": 2}, "experiment_name": "msrvtt-ce"}
    assert same(loaded, content)
    assert config_of_checkpoint(path).name == "msrvtt-ce"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
@zip_and_legacy
def test_views_types_and_empty_tensors(tmp_path: Path, dtype: torch.dtype, zipped: bool) -> None:
    whole = torch.arange(24).view(4, 6).to(dtype)
    weights = {
        "whole": whole,
        "part": whole[1:3, ::2],
        "turned": whole.T,
        "empty": whole[:, :0],
        "number": whole[2, 2],
        "flag": torch.tensor([True, False]),
        "parameter": nn.Parameter(torch.ones(2)),
    }
    content = {"arch": "CENet", "epoch": 0, "config": {}, "state_dict": weights}
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = load_checkpoint(path)["state_dict"]
    assert same(found, {name: value.detach() for name, value in weights.items()})
    assert found["part"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()


def test_the_header_reads_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    data = crafted(tensor((2, 3), (3, 1)))
    write_zip(path, data, RAW)
    broken = path.read_bytes().replace(RAW["0"], b"\xff" * len(RAW["0"]))
    path.write_bytes(broken)
    assert load_checkpoint(path, leave_out=LARGE_KEYS) == {
        "arch": "CENet",
        "epoch": 1,
        "config": {},
    }
    with pytest.raises(UserError, match=r"a\.pth.*checksum"):
        load_checkpoint(path)


def test_names_of_several_gpus_and_unused_layers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = nn.Linear(2, 3)
    unused = {
        f"{name}.weight": torch.ones(1)
        for name in ("ce.moe_fc_bottleneck1", "ce.moe_cg.fc", "ce.moe_fc_proj")
    }
    weights = {f"module.{name}": value for name, value in (net.state_dict() | unused).items()}
    path = tmp_path / "a.pth"
    torch.save({"arch": "CENet", "epoch": 1, "config": {}, "state_dict": weights}, path)
    loaded = load_checkpoint(path)["state_dict"]
    other = nn.Linear(2, 3)
    load_weights(other, loaded, path)
    assert torch.equal(other.weight, net.weight)
    assert all(name in caplog.text for name in unused)
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1


def test_the_parameter_of_mnnet_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    weights = {"dummy": torch.tensor([3.0])}
    torch.save({"arch": "MNNet", "epoch": 1, "config": {}, "state_dict": weights}, path)
    assert load_checkpoint(path)["state_dict"] == {"dummy_param": torch.tensor([3.0])}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"config": [1, 2]}, "no config"),
        ({"config": {"_config": "x"}}, "no config"),
        ({"state_dict": [1, 2]}, "tensors"),
        ({"state_dict": {"weight": 1.0}}, "tensors"),
        ({"state_dict": {1: torch.ones(1)}}, "tensors"),
    ],
)
def test_content_of_another_form_is_refused(tmp_path: Path, change: dict, sentence: str) -> None:
    path = tmp_path / "a.pth"
    torch.save({"arch": "CENet", "epoch": 1, "config": {}, "state_dict": {}} | change, path)
    with pytest.raises(UserError, match=sentence):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["..", "a/b", "", 3])
def test_names_that_lead_elsewhere_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    path = tmp_path / "a.pth"
    save_published(monkeypatch, path, trained(), _config={"seed": 0}, _exper_name=name)
    with pytest.raises(UserError, match="experiment_name"):
        config_of_checkpoint(path)


# What must never happen below: MARK appears.
def touch(mark: Path) -> Call:
    return Call(Path.touch, mark)


def set_state(mark: Path) -> Any:
    """An object whose state is set by the attribute of another class."""
    return argparse.Namespace(x=touch(mark))


ATTACKS: dict[str, Callable[[Path], bytes]] = {
    "as a weight": lambda mark: crafted(touch(mark)),
    "in the config": lambda mark: crafted(tensor((6,), (1,)), config={"seed": touch(mark)}),
    "deep in the config": lambda mark: crafted(
        tensor((6,), (1,)), config=argparse.Namespace(_config=set_state(mark))
    ),
    "as hooks of a tensor": lambda mark: crafted(
        Call(torch._utils._rebuild_tensor_v2, Weights(), 0, (6,), (1,), False, touch(mark))
    ),
    "in an ordered dict": lambda mark: crafted(1, config=OrderedDict(a=touch(mark))),
    "as the factory of a defaultdict": lambda mark: crafted(1, config=defaultdict(mark.touch)),
    "as a persistent id": lambda mark: crafted(Outside(touch(mark))),
    "as the type of a storage": lambda mark: crafted(
        tensor((6,), (1,), storage=Outside(("storage", touch(mark), "0", "cpu", 6)))
    ),
    "as the key of a storage": lambda mark: crafted(
        tensor((6,), (1,), storage=Outside(("storage", torch.FloatStorage, touch(mark), "cpu", 6)))
    ),
    "by eval": lambda mark: crafted(Call(eval, f"open({str(mark)!r}, 'w')")),
    "by a nested load": lambda mark: crafted(
        Call(torch.storage._load_from_bytes, pickle.dumps(touch(mark)))
    ),
    "by an attribute": lambda mark: crafted(Call(getattr, Path(mark), "touch")),
    "as the whole": lambda mark: pickled(touch(mark)),
    "by an old instruction": lambda mark: (
        b"(lp0\n(ios\nsystem\n" + b"(S'touch " + str(mark).encode() + b"'\nios\nsystem\n."
    ),
}


@containers
@pytest.mark.parametrize("attack", list(ATTACKS))
def test_code_is_refused_and_does_not_run(tmp_path: Path, container: str, attack: str) -> None:
    path, mark = tmp_path / "a.pth", tmp_path / "ran"
    CONTAINERS[container](path, ATTACKS[attack](mark), RAW)
    for leave_out in ((), LARGE_KEYS):
        with pytest.raises(
            UserError, match=r"a\.pth as a checkpoint: it (calls|holds|sets|refers)"
        ):
            load_checkpoint(path, leave_out)
    assert not mark.exists()


@pytest.mark.parametrize("attack", ["as a weight", "in the config", "by eval", "as the whole"])
def test_the_attacks_would_run_where_pickles_are_loaded_freely(tmp_path: Path, attack: str) -> None:
    mark = tmp_path / "ran"
    with suppress(AttributeError):  # of the stand-in for storages
        load_freely(ATTACKS[attack](mark))
    assert mark.exists()


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def repeated(doublings: int) -> list:
    value: list = [0]
    for _ in range(doublings):
        value = [value, value]
    return value


def circle() -> list:
    value: list = []
    value.append(value)
    return value


CRAFTED: dict[str, tuple[Any, str]] = {
    "too long": (tensor((7,), (1,)), "beyond the 6 values"),
    "beyond by stride": (tensor((2, 3), (4, 1)), "beyond the 6 values"),
    "beyond by offset": (tensor((6,), (1,), 1), "beyond the 6 values"),
    "offset beyond an empty tensor": (tensor((0,), (1,), 7), "beyond the 6 values"),
    "negative stride": (tensor((6,), (-1,), 5), "no plain numbers"),
    "negative offset": (tensor((6,), (1,), -1), "no plain numbers"),
    "negative size": (tensor((-6,), (1,)), "no plain numbers"),
    "enormous by stride 0": (tensor((10**9, 10**9), (0, 0)), "beyond the 6 values"),
    "repeated by stride 0": (tensor((7,), (0,)), "beyond the 6 values"),
    "enormous but empty": (tensor((0, 2**39, 2**39), (1, 1, 1)), "has the shape"),
    "fewer strides": (tensor((2, 3), (1,)), "2 sizes and 1 strides"),
    "many axes": (tensor((1,) * 99, (1,) * 99), "99 sizes"),
    "sizes in a list": (tensor([6], [1]), "no plain numbers"),
    "sizes of text": (tensor(("6",), (1,)), "no plain numbers"),
    "a true size": (tensor((True,), (1,)), "no plain numbers"),
    "no storage": (tensor((6,), (1,), storage=[1.0]), "has no storage"),
    "storage larger than the file": (
        tensor((6,), (1,), storage=Weights("0", 2**39)),
        "larger|another length",
    ),
    "storage of negative length": (tensor((6,), (1,), storage=Weights("0", -6)), "the length -6"),
    "storage of another length": (tensor((2,), (1,), storage=Weights("0", 2)), "another length"),
    "storage that is not there": (
        tensor((6,), (1,), storage=Weights("x")),
        "is missing|list of storages",
    ),
    "storage of two types": (
        [tensor((6,), (1,)), tensor((6,), (1,), storage=Weights(kind=torch.IntStorage))],
        "two types",
    ),
    "module outside": (Outside(("module", "a", "b", "c", 1)), "no storage"),
    "text outside": (Outside("file:///etc/passwd"), "no storage"),
    "bytes without end": (Call(bytearray, 10**12), "bytearray"),
    "a list without end": (Call(range, 10**12), "range"),
    "nested": ([nested(100), tensor((6,), (1,))], "nested too deeply"),
    "repeated": ([repeated(24), tensor((6,), (1,))], "outgrow the file"),
    "circle": ([circle(), tensor((6,), (1,))], "contains itself"),
    "a whole model": (nn.Linear(2, 2), "torch.nn"),
}


@containers
@pytest.mark.parametrize("case", list(CRAFTED))
def test_crafted_content_is_refused(tmp_path: Path, container: str, case: str) -> None:
    value, sentence = CRAFTED[case]
    path = tmp_path / "a.pth"
    CONTAINERS[container](path, crafted(value), RAW)
    with pytest.raises(UserError, match=rf"a\.pth as a checkpoint.*({sentence})"):
        load_checkpoint(path)


@containers
def test_the_crafting_writes_good_files_too(tmp_path: Path, container: str) -> None:
    path = tmp_path / "a.pth"
    CONTAINERS[container](path, crafted(tensor((3, 2), (1, 3))), RAW)
    found = load_checkpoint(path)["state_dict"]["w"]
    assert found.tolist() == VALUES.reshape(2, 3).T.tolist()


def test_compressed_parts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    length = 5_000_000
    bomb = tensor((length,), (1,), storage=Weights("0", length))
    write_zip(path, crafted(bomb), {"0": bytes(4 * length)}, compress=True)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"a\.pth.* compressed"):
        load_checkpoint(path)


def test_many_storages_cannot_share_the_same_bytes(tmp_path: Path) -> None:
    path, length = tmp_path / "a.pth", 10_000
    views = [tensor((length,), (1,), storage=Weights(str(n), length)) for n in range(4)]
    write_zip(path, crafted(views), {"0": bytes(4 * length)})
    with zipfile.ZipFile(path, "a") as archive:
        # Three more names in the directory for the one member.
        first = archive.getinfo("model/data/0")
        for n in range(1, 4):
            other = zipfile.ZipInfo(f"model/data/{n}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(other, field, getattr(first, field))
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
        archive._didModify = True
    with pytest.raises(UserError, match=r"larger|differ"):
        load_checkpoint(path)


def test_legacy_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    data = crafted(tensor((6,), (1,)))
    write_legacy(path, data, RAW)
    whole = path.read_bytes()
    little = pickle.dumps("little_endian", protocol=2)[2:-2]
    cases = {
        b"": "empty",
        pickle.dumps(5): "torch did not write it",
        b'{"arch": "CENet"}': "torch did not write it",
        whole.replace(struct.pack("<H", 1001), struct.pack("<H", 1000), 1): "version",
        whole.replace(little, little.replace(b"little", b"lottle")): "order of bytes",
        whole[:-4]: "end early",
        whole[: whole.index(RAW["0"]) - 8]: "end early",
        whole[: len(whole) // 2]: "truncated",
        whole.replace(struct.pack("<q", 6) + RAW["0"], struct.pack("<q", 5) + RAW["0"]): "another",
    }
    for content, sentence in cases.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            load_checkpoint(path)


def whole_file(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(trained() | {"config": {}}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@zip_and_legacy
def test_damaged_bytes_never_raise_anything_else(tmp_path: Path, zipped: bool) -> None:
    path, whole = tmp_path / "a.pth", whole_file(zipped)
    refused = 0

    @settings(max_examples=150, deadline=None)
    @given(places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
    def load(places: list[tuple[float, int]]) -> None:
        nonlocal refused
        raw = bytearray(whole)
        for place, value in places:
            raw[int(place * (len(raw) - 1))] = value
        path.write_bytes(raw)
        try:
            load_checkpoint(path)
        except UserError as error:
            assert str(path) in str(error)
            refused += 1

    def load_all() -> int:
        load()
        return refused

    assert apart([path], load_all) > 10  # one process for all


def test_the_golden_checkpoint(golden: Path) -> None:
    run = golden / "tiny_msrvtt" / "reference_run"
    loaded = load_checkpoint(run / "trained_model.pth")
    with np.load(run / "state_dict.npz") as expected:
        assert set(loaded["state_dict"]) == set(expected)
        for name, value in loaded["state_dict"].items():
            np.testing.assert_array_equal(value.numpy(), expected[name], err_msg=name)
    stored = json.loads((run / "config.json").read_text())
    del stored["inherit_from"]
    stored["data_loader"]["args"]["refresh_lru_cache"] = False  # set after the file was written
    assert loaded["config"] == stored | {"experiment_name": "msrvtt-tiny-ckpt"}
    assert loaded["epoch"] == 2
