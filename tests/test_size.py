"""What is larger than the memory is refused before any of it is taken."""

import resource
import subprocess
import sys

import pytest
import torch

import train
from model.collaborative_gating import GATINGS
from tests.conftest import ROOT
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from trainer import build
from trainer import memory as memory_module
from trainer.build import build_net, count_parameters, inputs_of
from utils.command_line import run_main
from utils.config import Config
from utils.errors import UserError

GIB = 2**30


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp("size")
    return Config.from_dict(tiny_config(make_tiny_set(folder / "set"), folder / "saved"))


@pytest.fixture
def memory(monkeypatch):
    """Sets the memory that the machine, and its GPU, seem to have."""

    def set_to(host: int, gpu: int | None = None) -> None:
        found = {"cpu": host, "cuda:0": host if gpu is None else gpu}
        monkeypatch.setattr(memory_module, "memory_of", lambda device="cpu": found[device])

    return set_to


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ("experts.ce_shared_dim@1000000", r"experts.ce_shared_dim \(1000000\)"),
        ("arch.args.vlad_clusters.text@10000", r"arch.args.vlad_clusters.text \(10000\)"),
        ("arch.args.vlad_clusters.sound@10000", r"arch.args.vlad_clusters.sound \(10000\)"),
        ("experts.ce_shared_dim@1000+arch.args.num_h_layers@100", r"num_h_layers \(100\)"),
    ],
)
@pytest.mark.parametrize("trained_on", [None, "cpu", "cuda:0"])
def test_a_model_larger_than_the_memory_is_refused(config, memory, overrides, key, trained_on):
    memory(2**22)
    changed = config.with_custom_args(overrides)
    with pytest.raises(UserError, match=rf"model of this config.*{key}"):
        build_net(changed, inputs_of(changed), trained_on)


def test_the_limit_is_the_number_of_bytes_that_are_needed(config, memory):
    data = inputs_of(config)
    weights = 4 * count_parameters(build_net(config, data))
    vast = 2**50
    for trained_on, limits in (
        (None, [(weights, 0)]),
        ("cpu", [(4 * weights, 0)]),
        ("cuda:0", [(weights, vast), (vast, 4 * weights)]),
    ):
        for host, gpu in limits:
            memory(host, gpu)
            assert build_net(config, data, trained_on)
            memory(host - (host < vast), gpu - (0 < gpu < vast))
            with pytest.raises(UserError, match="would take"):
                build_net(config, data, trained_on)


def test_looking_at_the_size_draws_no_random_numbers(config):
    data = inputs_of(config)
    torch.manual_seed(0)
    one = build_net(config, data)
    torch.manual_seed(0)
    other = build._make_net(config, data)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["", *GATINGS, "concat", "mimic"])
def test_the_size_is_that_of_the_model(config, kind):
    args = {
        "concat": "concat_mix_experts@true+arch.args.use_ce@",
        "mimic": "mimic_ce_dims@1+arch.args.use_ce@",
    }.get(kind, f"use_ce@{kind}")
    for more in ("num_h_layers@3", "vlad_clusters.text@300", "vlad_clusters.sound@300"):
        for wide in (8, 500):
            changed = config.with_custom_args(
                f"arch.args.{args}+arch.args.{more}+experts.ce_shared_dim@{wide}"
            )
            data = inputs_of(changed)
            net = build_net(changed, data)
            with memory_module.only_sizes():
                sizes = build._make_net(changed, data)
            assert [p.shape for p in sizes.parameters()] == [p.shape for p in net.parameters()]
            assert all(p.is_meta for p in sizes.parameters())


def test_sizes_alone_load_nothing_that_takes_seconds():
    """A draw on torch's meta device loads its symbolic shapes."""
    program = """
import sys
from model.net_vlad import NetVLAD
from trainer.memory import only_sizes
with only_sizes():
    net = NetVLAD(3, 5)
assert net.clusters.is_meta and net.clusters.shape == (5, 3) and "sympy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_batches_larger_than_the_memory_are_refused(config, memory):
    memory(2**20)
    changed = config.with_custom_args("data_loader.args.max_tokens.text@1000000")
    with pytest.raises(UserError, match=r"8 videos.*max_tokens.text \(1000000\)"):
        build.build_loader(changed, seed=0)


def test_a_training_of_absurd_size_ends_before_it_begins(tmp_path, capsys):
    values = tiny_config(make_tiny_set(tmp_path / "set"), tmp_path / "saved")
    values["experts"]["ce_shared_dim"] = 900_000
    assert run_main(train.main, ["--config", str(write_json(tmp_path / "c.json", values))]) == 2
    assert "experts.ce_shared_dim (900000)" in capsys.readouterr().err


def test_the_memory_is_that_of_the_control_group(tmp_path, monkeypatch):
    machine = memory_module.memory_of()
    assert 2**27 < machine < 2**50
    for version, own, name in (
        (2, "0::/job/step\n", "memory.max"),
        (1, "5:cpu,cpuacct:/a\n4:memory:/job/step\n", "memory/memory.limit_in_bytes"),
    ):
        root = tmp_path / str(version)
        group = root / name.rpartition("/")[0] / "job"
        group.mkdir(parents=True)
        (tmp_path / "own").write_text(own)
        monkeypatch.setattr(memory_module, "_GROUPS", root)
        monkeypatch.setattr(memory_module, "_OWN_GROUPS", tmp_path / "own")
        assert memory_module.memory_of() == machine
        (root / name).write_text("max\n")
        (group / name.rpartition("/")[2]).write_text("123456\n")
        assert memory_module.memory_of() == 123456
    monkeypatch.setattr(memory_module, "_OWN_GROUPS", tmp_path / "not there")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (4321, 4321))
    assert memory_module.memory_of() == 4321
