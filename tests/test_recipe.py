"""A recipe with everything, by the real programs on a small set: it runs, and goes on exactly."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import test as test_program
import train as train_program
from data_loader.batches import CaptionChoice
from model.ce_net import CENet
from model.dropout import Dropout
from model.loss import MaxMarginRankingLoss, NormSoftmaxLoss
from tests.rankings_html import Page
from tests.run_files import Run, beside, only_run
from tests.test_accumulation import make_batch, make_net
from tests.test_runs import changed, results, stop_after  # noqa: F401  (a fixture)
from trainer.build import build_loss
from trainer.optimisation.optimisers import build_optimiser
from trainer.recipe.averaging import mean_weights
from trainer.recipe.recipe import Recipe
from trainer.step import TrainingStep
from utils.config import Config
from utils.errors import UserError


def modern(values: dict) -> None:
    values["loss"] = {
        "type": "NormSoftmaxLoss",
        "args": {"temperature": 0.1, "learned": True, "label_smoothing": 0.05},
    }
    values["optimizer"] = {
        "type": "AdamW",
        "args": {"lr": 0.01, "weight_decay": 0.1},
        "decay_biases": False,
    }
    values["lr_scheduler"] = {"type": "WarmupCosineLR", "args": {"warmup": 0.2}}
    values["data_loader"]["args"] |= {"captions_per_video": 2, "text_dropout": 0.5}
    values["trainer"] |= {
        "epochs": 6,
        "save_only_best": True,
        "log_every": 2,
        "clip_norm": 1.0,
        "accumulate": 2,
        "ema": 0.9,
        "average_best": 3,
        "dropout": {"features": 0.2, "text": 0.1, "experts": 0.1},
    }
    values["correction"] = {"kinds": ["nearest", "inverted_softmax"], "bank_size": 20}


def stored(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_a_modern_training_that_is_stopped_ends_as_an_unbroken_one(
    run: Run,
    config_path: Path,
    tmp_path: Path,
    stop_after: Callable,  # noqa: F811
) -> None:
    changed(config_path, modern)
    whole = ["--custom_args", f"trainer.save_dir@{tmp_path / 'whole'}"]
    code, output = run(train_program, "--config", config_path, *whole)
    assert code == 0, output
    expected = only_run(tmp_path / "whole")

    stop_after(5, signal.SIGTERM)
    assert run(train_program, "--config", config_path)[0] == 143
    models = only_run(tmp_path / "saved")
    for steps in (1, 4, 0):
        stop_after(steps, signal.SIGTERM)
        code, output = run(train_program, "--resume", models)
        assert code == (143 if steps else 0), output
    one, other = stored(expected / "trained_model.pth"), stored(models / "trained_model.pth")
    for key in ("state_dict", "trained_weights", "loss_state"):
        assert one[key].keys() == other[key].keys()
        assert all(torch.equal(one[key][name], other[key][name]) for name in one[key]), key
    assert one["moving_average"]["updates"] == other["moving_average"]["updates"]
    assert results(models) == results(expected)


def test_what_a_modern_training_leaves(run: Run, config_path: Path, tmp_path: Path) -> None:
    changed(config_path, modern)
    code, output = run(train_program, "--config", config_path)
    assert code == 0, output
    models = only_run(tmp_path / "saved")
    log_file = beside(models, "log") / "info.log"
    metrics = json.loads(log_file.with_name("metrics.json").read_text())
    for name in ("t2v_metrics", "v2t_metrics"):
        plain, corrected = metrics["test"][name], metrics["test"][f"{name}_corrected"]
        assert plain.keys() == corrected.keys()
        assert f"test_{name}_corrected_R1: {corrected['R1']}" in log_file.read_text()
    chosen = metrics["test_correction"]
    assert chosen["chosen"] == "on the validation split" and chosen["t2v"]
    assert chosen == metrics["tests"][0]["test_correction"]
    page = Page(beside(models, "web") / "index.html")
    [note] = page.words("p", "note")
    assert "chosen on the validation split" in note and chosen["v2t"] in note
    heads = [head for head in page.words("th") if head.startswith(("text to", "video to"))]
    assert [head.endswith("corrected") for head in heads] == [False, False, True, True]
    cells = page.words("td")  # of the charts, then of the metrics, whose first cell is empty
    firsts = cells[cells.index("") + 1 :: len(metrics["test"]["t2v_metrics"])][:4]
    assert firsts == [f"{values['R1']:.1f}" for values in metrics["test"].values()]
    rates = [record["lr"] for record in metrics["epochs"]]
    assert rates[0] < max(rates) and rates[-1] < 0.3 * max(rates)
    log = log_file.read_text()
    assert "step 2: loss" in log and "gradient_norm" in log and "step 3:" not in log

    checkpoint = stored(models / "trained_model.pth")
    assert checkpoint["moving_average"]["updates"] == 3 * checkpoint["epoch"]
    kept = checkpoint["best_weights"]
    assert len(kept) == min(3, checkpoint["epoch"]) and all(
        not torch.equal(checkpoint["trained_weights"][n], v)
        for n, v in checkpoint["state_dict"].items()
        if n.endswith("fc.weight")
    )
    if epochs := checkpoint.get("averaged_epochs"):
        assert epochs == sorted(entry["epoch"] for entry in kept)
        mean = mean_weights(entry["weights"] for entry in kept)
        assert all(torch.equal(mean[n], v) for n, v in checkpoint["state_dict"].items())
        assert metrics["averaged_epochs"] == epochs
    assert checkpoint["loss_state"]["position"].item() != NormSoftmaxLoss(learned=True).position

    # A test of its own gives the same, and one without other videos to choose on says so.
    code, output = run(test_program, "--resume", models, "--eval_from_training_config")
    recall = f"test_t2v_metrics_corrected_R1: {metrics['test']['t2v_metrics_corrected']['R1']}\n"
    assert code == 0 and log_file.read_text().count(recall) == 2
    code, output = run(test_program, "--resume", models)
    assert code == 0 and "chosen by default" in output
    # Weights of a modern training start another one, and it goes without what it does not have.
    plain = ["--init_from", models, "--custom_args", f"trainer.save_dir@{tmp_path / 'next'}"]
    assert run(train_program, "--config", config_path, *plain)[0] == 0


def test_rules_do_not_depend_on_the_test_queries(
    run: Run, config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other test captions the rules are the same, and so is every other query's row."""
    changed(config_path, modern)
    assert run(train_program, "--config", config_path)[0] == 0
    models = only_run(tmp_path / "saved")
    rules = []
    for restrict in (1, 3):
        flag = f"eval_settings.data_loader.args.num_test_captions@{restrict}"
        arguments = ["--resume", models, "--eval_from_training_config", "--custom_args", flag]
        code, output = run(test_program, *arguments)
        assert code == 0, output
        rules.append(
            [line.split("chosen ")[1] for line in output.splitlines() if "chosen " in line]
        )
    assert rules[0] == rules[1] and rules[0]


def test_nothing_is_chosen_on_the_videos_that_are_reported(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    def same_videos(values: dict) -> None:
        modern(values)
        values["eval_settings"] = {"data_loader": {"args": {"num_test_captions": 2}}}

    changed(config_path, same_videos)
    code, output = run(train_program, "--config", config_path)
    assert code == 0 and "chosen by default" in output


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer.ema", 1, "trainer.ema is 1"),
        ("trainer.dropout.features", 1.0, "trainer.dropout.features is 1"),
        ("trainer.dropout.feature", 0.1, "trainer.dropout.features"),
        ("trainer.clip_norm", 1e-300, '"trainer.clip_norm" must be a finite number of at least'),
        ("correction.kinds", ["nearst"], "nearest"),
        ("correction.bank_size", 0, "bank_size"),
        ("loss.args.temperature", 0.0, "temperature"),
        ("loss.args.temprature", 0.1, "temperature"),
        ("lr_scheduler.args.warmup", 1.5, "warmup"),
        ("compile", True, "exclude each other"),
        ("arch.type", "MNNet", "MNNet"),
    ],
)
def test_what_makes_no_sense_is_refused_before_work_starts(
    run: Run, config_path: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    def wrong(values: dict) -> None:
        modern(values)
        *path, last = key.split(".")
        for part in path:
            values = values[part]
        values[last] = value

    changed(config_path, wrong)
    code, output = run(train_program, "--config", config_path)
    assert code == 2 and message in output and "Traceback" not in output
    assert not (tmp_path / "saved").exists()


def test_bounds_of_a_fixed_temperature_are_refused(config_path: Path) -> None:
    asked = "loss.type@NormSoftmaxLoss+loss.args.lowest@0.05"
    with pytest.raises(UserError, match=r"loss\.args\.lowest bounds a learned temperature"):
        build_loss(Config.from_file(config_path, asked))
    assert build_loss(Config.from_file(config_path, f"{asked}+loss.args.learned@true"))


def test_a_training_by_steps_cannot_be_made_longer(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    changed(config_path, modern)
    assert run(train_program, "--config", config_path)[0] == 0
    longer = ["--custom_args", "trainer.epochs@9"]
    code, output = run(train_program, "--resume", only_run(tmp_path / "saved"), *longer)
    assert code == 2 and "trainer.epochs" in output


# --- A step ---------------------------------------------------------------------------------------


def make_step(net: CENet, **recipe: object) -> TrainingStep:
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    return TrainingStep(net, MaxMarginRankingLoss(0.2), optimiser, recipe=Recipe(**recipe))


def test_a_step_with_dropout_in_parts_is_that_of_the_whole_batch() -> None:
    """Where statistics are fixed: an item loses the same, whatever part it is in."""
    dropout = Dropout(features=0.3, text=0.2, experts=0.3, seed=5)
    nets = [make_net().eval(), make_net().eval()]
    batch = make_batch(7, captions=2)
    losses = [
        make_step(net, accumulate=parts, dropout=dropout)(batch, 2)[0]
        for net, parts in zip(nets, (1, 3), strict=True)
    ]
    torch.testing.assert_close(*losses)
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)
    plain = make_step(make_net().eval())(batch, 2)[0]
    assert abs((plain - losses[0]).item()) > 1e-3
    assert nets[0].dropout is None  # only within a step


def test_several_captions_are_compared_each_by_itself() -> None:
    batch, net = make_batch(5, captions=3), make_net().eval()
    found = make_step(net)(batch, 1)[0]
    net = make_net().eval()
    losses = [
        MaxMarginRankingLoss(0.2)(
            net(batch.experts, batch.ind, batch.text[:, c : c + 1])["cross_view_conf_matrix"]
        )
        for c in range(3)
    ]
    torch.testing.assert_close(found, sum(losses).detach() / 3)


@pytest.mark.parametrize("longest", [0.01, 1000.0])
def test_gradients_are_clipped_to_a_length(longest: float) -> None:
    batch = make_batch(5)
    nets = [make_net(), make_net()]
    before = [p.detach().clone() for p in nets[0].parameters()]
    step = make_step(nets[0], clip_norm=longest)
    step(batch, 1)
    make_step(nets[1])(batch, 1)
    moved = [
        torch.cat(
            [(p.detach() - b).flatten() for p, b in zip(net.parameters(), before, strict=True)]
        )
        for net in nets
    ]
    norm = step.recipe.gradient_norm
    torch.testing.assert_close(norm, moved[1].norm() / 0.1)
    shorter = min(1.0, longest / norm.item())
    torch.testing.assert_close(moved[0], moved[1] * shorter, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("also", [{}, {"log_every": 2}, {"clip_norm": 0.01}])
def test_the_norm_of_an_epoch_is_that_of_its_last_gradients(
    run: Run, config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, also: dict
) -> None:
    nets, norms = [], []
    step, backward = TrainingStep.__call__, torch.Tensor.backward

    def noting_net(self: TrainingStep, *given: object) -> object:
        nets.append(self.net)
        return step(self, *given)

    def noting_norm(loss: torch.Tensor) -> None:
        backward(loss)
        gradients = [p.grad for p in nets[-1].parameters() if p.grad is not None]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())

    monkeypatch.setattr(TrainingStep, "__call__", noting_net)
    monkeypatch.setattr(torch.Tensor, "backward", noting_norm)
    changed(config_path, lambda values: values["trainer"].update(also, epochs=2))
    code, output = run(train_program, "--config", config_path)
    assert code == 0, output
    log = beside(only_run(tmp_path / "saved"), "log")
    epochs = json.loads((log / "metrics.json").read_text())["epochs"]
    assert len(norms) == 6
    assert [e["gradient_norm"] for e in epochs] == pytest.approx([norms[2], norms[5]], 1e-4)


def test_biases_and_norms_do_not_decay() -> None:
    net = make_net().float()
    optimiser = build_optimiser("AdamW", {"lr": 0.1, "weight_decay": 0.5}, net, decay_biases=False)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()
    for name, p in net.named_parameters():
        factor = 0.95 if p.dim() > 1 else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor)


def test_following_captions_are_drawn_with_the_first_one() -> None:
    choice = CaptionChoice.among_first(np.array([1, 3, 5]))
    videos, uniform = np.array([0, 1, 2]), np.array([0.5, 0.7, 0.95])
    several = choice.draw_several(videos, uniform, 3)
    assert several[:, 0].tolist() == choice.draw(videos, uniform).tolist()
    assert several.tolist() == [[0, 0, 0], [2, 0, 1], [4, 0, 1]]


def test_the_mean_of_the_best_epochs_is_tested_and_the_training_goes_on_from_its_own_weights(
    run: Run, config_path: Path, tmp_path: Path
) -> None:
    def averaging(values: dict) -> None:
        values["trainer"] |= {"epochs": 4, "monitor": "off", "average_best": 3}

    changed(config_path, averaging)
    whole = ["--custom_args", f"trainer.save_dir@{tmp_path / 'whole'}+trainer.epochs@6"]
    assert run(train_program, "--config", config_path, *whole)[0] == 0
    expected = stored(only_run(tmp_path / "whole") / "trained_model.pth")
    code, output = run(train_program, "--config", config_path)
    assert code == 0 and "The mean of the epochs 2, 3, 4 is the best model." in output
    models = only_run(tmp_path / "saved")
    checkpoint = stored(models / "trained_model.pth")
    states = [entry["weights"] for entry in checkpoint["best_weights"]]
    for name, value in mean_weights(states).items():
        assert torch.equal(checkpoint["state_dict"][name], value)
    more = ["--custom_args", "trainer.epochs@6"]
    assert run(train_program, "--resume", models, *more)[0] == 0
    found = stored(models / "trained_model.pth")
    assert found["averaged_epochs"] == expected["averaged_epochs"] == [4, 5, 6]
    for name in expected["state_dict"]:
        assert torch.equal(found["state_dict"][name], expected["state_dict"][name])
