"""Who multiplies matrices: numbers are float32's, and a training keeps to its first choice."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import train as train_program
from model import fast
from model.fast import ONEDNN, TORCH, choose_products, fan_out, products_by
from tests.run_files import Run, only_run, weights
from tests.test_step import KINDS, make_batch, make_step
from tests.tiny_set import make_tiny_set, tiny_config
from trainer.build import build_net, inputs_of
from utils.config import Config

needs_onednn = pytest.mark.skipif(
    not fast.onednn_is_exact(), reason="oneDNN does not multiply in float32 here"
)
ZEN_5 = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\n\nprocessor\t: 1\n"


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Pretend to run on another processor."""

    def become(facts: str | None, capability: str = "AVX512", is_exact: bool = True) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
        monkeypatch.setattr(fast, "_CPU_FACTS", tmp_path / "cpuinfo")
        (tmp_path / "cpuinfo").unlink(missing_ok=True)
        if facts is not None:
            (tmp_path / "cpuinfo").write_text(facts)
        monkeypatch.setattr(fast, "onednn_is_exact", lambda: is_exact)
        fast._onednn_is_faster.cache_clear()

    yield become
    fast._onednn_is_faster.cache_clear()


@pytest.mark.parametrize(
    ("facts", "capability", "is_exact", "chosen"),
    [
        (ZEN_5, "AVX512", True, ONEDNN),
        (ZEN_5, "AVX2", True, TORCH),
        (ZEN_5, "AVX512", False, TORCH),
        (ZEN_5.replace("26", "25"), "AVX512", True, TORCH),
        (ZEN_5.replace("AuthenticAMD", "GenuineIntel"), "AVX512", True, TORCH),
        (ZEN_5.replace("26", "many"), "AVX512", True, TORCH),
        ("Processor: another kind\n", "AVX512", True, TORCH),
        (None, "AVX512", True, TORCH),
    ],
)
def test_the_processor_decides(
    processor: Callable, facts: str | None, capability: str, is_exact: bool, chosen: str
) -> None:
    processor(facts, capability, is_exact)
    assert choose_products(nn.Linear(128, 128)) == chosen


def test_the_sizes_decide_and_the_device(processor: Callable) -> None:
    processor(ZEN_5)
    small = nn.ModuleList(nn.Linear(16, 16) for _ in range(100))
    assert choose_products(small) == choose_products(nn.Module()) == TORCH
    assert choose_products(nn.ModuleList([*small, nn.Linear(512, 512)])) == ONEDNN
    assert choose_products(nn.Linear(512, 512, device="meta")) == TORCH


def test_whoever_builds_a_model_has_the_choice(processor: Callable, tmp_path: Path) -> None:
    processor(ZEN_5)
    config = Config.from_dict(tiny_config(make_tiny_set(tmp_path / "set"), tmp_path / "saved"))
    for size, chosen in ((256, ONEDNN), (8, TORCH)):
        config = config.merged({"experts": {"ce_shared_dim": size}})
        assert build_net(config, inputs_of(config)).products == chosen


def test_what_was_recorded_is_kept(processor: Callable, caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Linear(512, 512)
    processor(ZEN_5)
    assert choose_products(net, TORCH) == TORCH
    processor(None)
    assert choose_products(net, ONEDNN) == ONEDNN
    for damaged in ("another", 3, [ONEDNN]):
        assert choose_products(net, damaged) == TORCH
    assert not caplog.records
    processor(ZEN_5, is_exact=False)
    with caplog.at_level(logging.WARNING):
        assert choose_products(net, ONEDNN) == TORCH
    [record] = caplog.records
    assert "oneDNN" in record.message


def test_the_setting_holds_within_its_block_only() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    for kernel in (TORCH, ONEDNN):
        with pytest.raises(ZeroDivisionError), products_by(kernel):
            assert (torch.backends.mkldnn.matmul.fp32_precision == "bf16") is (kernel == ONEDNN)
            _ = 1 / 0
        assert torch.backends.mkldnn.matmul.fp32_precision == before


@needs_onednn
@pytest.mark.parametrize("rows", [3, 64, 200])  # from either side of a weight
def test_layers_of_both_give_the_same(rows: int) -> None:
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(700, size) for size in (30, 128, 257))
    x = torch.randn(rows, 700, requires_grad=True)
    results = []
    for precise in (False, True):
        twins = [nn.Linear(700, layer.out_features) for layer in layers]
        for twin, layer in zip(twins, layers, strict=True):
            twin.load_state_dict(layer.state_dict())
        kind = torch.float64 if precise else torch.float32
        here = x.detach().to(kind).requires_grad_()
        with products_by(TORCH if precise else ONEDNN):
            outputs = fan_out(here, [twin.to(kind) for twin in twins])
            assert all(y.is_contiguous() for y in outputs)
            sum((y.square() * 0.1).sum() for y in outputs).backward()
        grads = [p.grad for twin in twins for p in twin.parameters()]
        results.append([*outputs, here.grad, *grads])
    for one, other in zip(*results, strict=True):
        size = float(other.detach().abs().max())
        torch.testing.assert_close(one.double(), other, atol=3e-6 * size, rtol=0)


@needs_onednn
@pytest.mark.parametrize("use_ce", KINDS)
def test_a_step_of_both_gives_the_same(use_ce: str) -> None:
    losses, gradients = [], []
    for kernel in (TORCH, ONEDNN):
        torch.manual_seed(0)
        step = make_step(use_ce=use_ce)
        step.net.products = kernel
        loss, _ = step(make_batch(), 1)
        losses.append(loss)
        gradients.append([p.grad for p in step.net.parameters() if p.grad is not None])
    torch.testing.assert_close(*losses, atol=1e-6, rtol=1e-6)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@needs_onednn
def test_a_training_keeps_to_what_it_began_with(
    run: Run, config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "_onednn_is_faster", lambda: True)
    monkeypatch.setattr(fast, "_LARGE_WEIGHT", 1)
    changes = "trainer.save_only_best@false+trainer.keep_last@9"
    assert run(train_program, "--config", config_path, "--custom_args", changes)[0] == 0
    models = only_run(tmp_path / "saved")
    checkpoint = torch.load(models / "checkpoint-epoch1.pth", weights_only=True)
    assert checkpoint["products"] == ONEDNN
    whole = weights(models / "trained_model.pth")
    used = []
    monkeypatch.setattr(fast, "_onednn_is_faster", lambda: False)
    original = fast._by_onednn
    monkeypatch.setattr(fast, "_by_onednn", lambda dtype: used.append(original(dtype)) or used[-1])
    assert run(train_program, "--resume", models / "checkpoint-epoch1.pth")[0] == 0
    assert used and all(used)
    again = weights(models / "trained_model.pth")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
