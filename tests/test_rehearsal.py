"""Settings of optimisers and schedules: what cannot work is refused before training, in words."""

import copy
import math

import pytest
import torch
from torch import nn

import train
from misc.make_data_set import make_data_set
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from trainer.build import build_optimiser_of, build_schedule_of, check_training
from trainer.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from trainer.optimisation.optimisers import OPTIMISERS, build_optimiser
from trainer.optimisation.schedules import SCHEDULES, build_schedule, step_schedule
from utils.config import Config
from utils.config_schema import TRAINING_KEYS
from utils.errors import UserError

# What each schedule cannot do without, for ten epochs.
NEEDED = {
    "StepLR": {"step_size": 2},
    "CosineAnnealingWithRestartsLR": {"T_max": 3},
    "CosineAnnealingLR": {"T_max": 10},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
    "ExponentialLR": {"gamma": 0.9},
    "MultiStepLR": {"milestones": [3, 6]},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 10},
}


@pytest.fixture(scope="module")
def values(tmp_path_factory) -> dict:
    """A config whose data do not exist: nothing here may look for them."""
    folder = tmp_path_factory.mktemp("nothing")
    return tiny_config(folder / "no data", folder / "no runs")


def with_parts(
    values: dict, epochs: int = 10, monitor: str | None = None, **parts: tuple
) -> Config:
    changed = copy.deepcopy(values)
    changed["trainer"]["epochs"] = epochs
    if monitor:
        changed["trainer"]["monitor"] = monitor
    for section, (kind, args) in parts.items():
        changed[section] = {"type": kind, "args": args}
    return Config.from_dict(changed, "c")


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimiser", ["Ranger", "SGD"])
def test_every_schedule_goes_with_our_optimisers(values, optimiser, schedule):
    args = NEEDED.get(schedule, {})
    config = with_parts(values, optimizer=(optimiser, {"lr": 0.1}), lr_scheduler=(schedule, args))
    check_training(config)
    net = nn.Linear(2, 2)
    build_schedule_of(config, build_optimiser_of(config, net))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_optimiser_goes_with_its_defaults(values, optimiser):
    check_training(with_parts(values, optimizer=(optimiser, {})))


@pytest.mark.parametrize(
    ("kind", "args", "sentence"),
    [
        ("Adam", {"betas": [0.9, 0.99, 0.999]}, "optimizer.args.betas.*list of 2"),
        ("Ranger", {"betas": [0.9]}, "optimizer.args.betas.*list of 2"),
        ("RAdam", {"betas": 0.9}, "optimizer.args.betas.*list of 2"),
        ("Adam", {"betas": [0.9, "x"]}, "optimizer.args.betas.1.*number.*x"),
        ("NAdam", {"betas": [0.9, 1.5]}, "optimizer.args.*NAdam.*1.5"),
        ("Adam", {"amsgrad": "false"}, "optimizer.args.amsgrad.*true or false"),
        ("SGD", {"nesterov": 1.0}, "optimizer.args.nesterov.*true or false"),
        ("SGD", {"nesterov": True}, "optimizer.args.*SGD.*[Mm]omentum"),
        ("SGD", {"momentum": -1}, "optimizer.args.*SGD.*-1"),
        ("SGD", {"momentum": "0.9"}, "optimizer.args.momentum.*number"),
        ("AdamW", {"eps": None}, "optimizer.args.eps.*number"),
        ("AdamW", {"foreach": "yes"}, "optimizer.args.foreach.*null"),
        ("Adam", {"fused": True, "foreach": True}, "optimizer.args.*Adam"),
        ("Adam", {"differentiable": True}, "optimizer.args.*Adam"),
        ("Adam", {"weight_decays": 0.1}, 'no setting "weight_decays".*"weight_decay"'),
        ("Adam", {"params": []}, 'no setting "params"'),
        ("Ranger", {"k": 0}, "optimizer.args.*Ranger"),
        ("Ranger", {"k": 2.5}, "optimizer.args.k"),
        ("Ranger", {"alpha": 2}, "optimizer.args.*Ranger"),
        ("Rprop", {"weight_decay": 0.1}, 'no setting "weight_decay"'),
        ("Adam", {"lr": 1e300}, "optimizer.args.*Adam.*diverged"),
        ("RMSprop", {"lr": 1e300}, "optimizer.args.*RMSprop"),
    ],
)
def test_settings_of_an_optimiser_that_cannot_work_are_refused(values, kind, args, sentence):
    config = with_parts(values, optimizer=(kind, args))
    with pytest.raises(UserError, match=sentence):
        check_training(config)


@pytest.mark.parametrize(
    ("kind", "args", "sentence"),
    [
        ("StepLR", {}, '"lr_scheduler.args.step_size" is missing.*StepLR'),
        ("StepLR", {"step_size": 0}, "StepLR.*epoch 1 of 10"),
        ("StepLR", {"step_size": -2}, "lr_scheduler.args.step_size.*at least 0"),
        ("StepLR", {"step_size": "1"}, "lr_scheduler.args.step_size.*whole number"),
        ("StepLR", {"step_size": 4, "gamma": -1}, "epoch 4 of 10.*-"),
        ("StepLR", {"step_size": 1, "gamma": 1e300}, "epoch 2 of 10.*inf"),
        ("StepLR", {"step_size": 1, "last_epoch": 3}, "lr_scheduler.args.last_epoch"),
        ("MultiStepLR", {"milestones": 3}, "lr_scheduler.args.milestones.*list"),
        ("MultiStepLR", {"milestones": ["a"]}, "lr_scheduler.args.milestones.0.*whole number"),
        ("OneCycleLR", {"max_lr": 0.1}, "OneCycleLR"),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9}, "9 steps.*10"),
        ("OneCycleLR", {"max_lr": [1, 2], "total_steps": 10}, "OneCycleLR"),
        ("CyclicLR", {"base_lr": 0, "max_lr": 1, "mode": "up"}, "args.mode.*triangular"),
        ("CyclicLR", {"base_lr": 0, "max_lr": 1, "scale_fn": "abs"}, "CyclicLR"),
        ("CosineAnnealingLR", {"T_max": 0}, "epoch 1 of 10"),
        ("CosineAnnealingLR", {"T_max": 5, "eta_min": -1}, "rate.* -"),
        ("CosineAnnealingWithRestartsLR", {"T_max": 0}, "T_max > 0"),
        ("CosineAnnealingWithRestartsLR", {"T_max": "3"}, "lr_scheduler.args.T_max.*number"),
        ("PolynomialLR", {"power": -1}, "epoch 5 of 10"),
        ("ReduceLROnPlateau", {"factor": 2}, "ReduceLROnPlateau"),
        ("ReduceLROnPlateau", {"mode": "maximum"}, "lr_scheduler.args.mode.*min"),
        ("ReduceLROnPlateau", {"patiance": 2}, 'no setting "patiance".*"patience"'),
    ],
)
def test_settings_of_a_schedule_that_cannot_work_are_refused(values, kind, args, sentence):
    config = with_parts(values, lr_scheduler=(kind, args))
    with pytest.raises(UserError, match=sentence):
        check_training(config)


def test_a_schedule_that_ends_with_the_training_is_long_enough(values):
    cycle = ("OneCycleLR", {"max_lr": 0.1, "total_steps": 5000})
    check_training(with_parts(values, epochs=5000, lr_scheduler=cycle))
    with pytest.raises(UserError, match=r"5000 steps.*trainer.epochs.*5001"):
        check_training(with_parts(values, epochs=5001, lr_scheduler=cycle))


def test_a_rehearsal_draws_no_random_numbers(values):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_training(with_parts(values))
    assert torch.equal(before, torch.get_rng_state())


# ------------------------------------------------------------------------------ the plateau


def plateau(direction: str | None, **settings: object) -> tuple:
    optimiser = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    return optimiser, build_schedule("ReduceLROnPlateau", settings, optimiser, direction)


@pytest.mark.parametrize(
    ("direction", "settings", "rates"),
    [
        ("max", {}, [1, 1, 0.1, 0.1]),
        ("min", {}, [1, 1, 1, 1]),
        ("max", {"mode": "min"}, [1, 1, 1, 1]),
    ],
)
def test_the_rate_falls_when_the_monitored_metric_no_longer_improves(direction, settings, rates):
    optimiser, schedule = plateau(direction, patience=1, **settings)
    found = []
    for value in (5.0, 4.0, 3.0, 2.0):
        optimiser.step()
        step_schedule(schedule, value)
        found.append(optimiser.param_groups[0]["lr"])
    assert found == pytest.approx(rates)


def test_epochs_without_a_validation_leave_the_plateau_as_it_is():
    optimiser, schedule = plateau("max", patience=1)
    for value in (5.0, None, None, None, 4.0, None, None):
        optimiser.step()
        step_schedule(schedule, value)
    assert optimiser.param_groups[0]["lr"] == 1
    assert schedule.num_bad_epochs == 1
    step_schedule(schedule, 3.0)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_plateau_without_a_monitored_metric_is_refused(values):
    config = with_parts(values, monitor="off", lr_scheduler=("ReduceLROnPlateau", {}))
    with pytest.raises(UserError, match=r'"ReduceLROnPlateau".*trainer.monitor'):
        check_training(config)


def test_the_direction_is_that_of_the_monitor(values):
    metric = "val_t2v_metrics_MedR"
    for text, mode in ((f"min {metric}", "min"), (f"max {metric}", "max")):
        config = with_parts(values, monitor=text, lr_scheduler=("ReduceLROnPlateau", {}))
        schedule = build_schedule_of(config, torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1))
        assert schedule.mode == mode


@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_state_of_every_schedule_survives_a_checkpoint(kind, tmp_path):
    def made() -> tuple:
        optimiser = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.5)
        return optimiser, build_schedule(kind, NEEDED.get(kind, {}), optimiser, "max")

    def rates(optimiser, schedule, values) -> list[float]:
        found = []
        for value in values:
            optimiser.step()
            step_schedule(schedule, value)
            found.append(optimiser.param_groups[0]["lr"])
        return found

    optimiser, schedule = made()
    falling = [float(-n) for n in range(9)]
    unbroken = rates(optimiser, schedule, falling)
    optimiser, schedule = made()
    rates(optimiser, schedule, falling[:4])
    state = {"optimizer": optimiser.state_dict(), "lr_scheduler": schedule.state_dict()}
    save_checkpoint(
        tmp_path / "c.pth", {"arch": "", "config": {}, "state_dict": {}, "epoch": 4, **state}
    )
    state = load_checkpoint(tmp_path / "c.pth")
    optimiser, schedule = made()
    optimiser.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["lr_scheduler"])
    assert rates(optimiser, schedule, falling[4:]) == unbroken[4:]
    assert all(math.isfinite(rate) for rate in unbroken)


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_the_state_of_every_optimiser_survives_a_checkpoint(kind, tmp_path):
    def steps(net, optimiser, numbers) -> None:
        for number in numbers:
            for parameter in net.parameters():
                parameter.grad = torch.full_like(parameter, 1 / (1 + number))
            optimiser.step()

    def made() -> tuple:
        net = nn.ParameterDict({"weight": torch.ones(3, 2), "bias": torch.ones(2)})
        return net, build_optimiser(kind, {"lr": 0.01}, net)

    unbroken, optimiser = made()
    steps(unbroken, optimiser, range(9))
    net, optimiser = made()
    steps(net, optimiser, range(4))
    weights = {name: p.detach() for name, p in net.items()}
    header = {"arch": "", "config": {}, "epoch": 4, "state_dict": weights}
    save_checkpoint(tmp_path / "c.pth", header | {"optimizer": optimiser.state_dict()})
    found = load_checkpoint(tmp_path / "c.pth")
    net, optimiser = made()
    net.load_state_dict(found["state_dict"])
    optimiser.load_state_dict(found["optimizer"])
    steps(net, optimiser, range(4, 9))
    for name, parameter in net.items():
        assert torch.equal(parameter, unbroken[name])


# ------------------------------------------------------------------------- before any data


@pytest.mark.parametrize("key", TRAINING_KEYS)
def test_a_config_without_a_needed_key_is_refused_by_its_name(values, key):
    lacking = copy.deepcopy(values)
    place = lacking
    *parts, last = key.split(".")
    for part in parts:
        place = place[part]
    del place[last]
    with pytest.raises(UserError, match=f'"{key}" is missing'):
        check_training(Config.from_dict(lacking, "c"))


def test_a_student_without_teachers_is_refused(values):
    with pytest.raises(UserError, match=r'"distil_params.teachers" is missing'):
        check_training(Config.from_dict({**values, "distil_loss": True}, "c"))


def test_a_data_set_to_be_made_needs_a_folder(values):
    nameless = {"data_set_maker": {"type": "demo"}}
    for loader in ({}, {"data_loader": {"type": "ExpertDataLoader", "args": {}}}):
        with pytest.raises(UserError, match=r"data_loader.args.dataset_name"):
            make_data_set(nameless | loader)


def test_a_slip_in_the_name_of_a_data_set_makes_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {
        "data_set_maker": {"type": "demo"},
        "data_loader": {"args": {"dataset_name": "data/demoo"}},
    }
    with pytest.raises(UserError, match=r"no data set \"data/demoo\".*data/demo"):
        make_data_set(config)
    config["data_loader"]["args"] = {"dataset_name": "data/demo", "data_dir": "data/other"}
    with pytest.raises(UserError, match=r'data_dir "data/other".*no effect on data/demo'):
        make_data_set(config)
    assert not any(tmp_path.iterdir())


def test_metrics_that_are_not_measured_are_refused(values):
    for monitor, hint in (("max val_t2v_metrics_R7", "R5"), ("min val_loss", "not measure")):
        with pytest.raises(UserError, match=rf"trainer.monitor.*{hint}"):
            check_training(with_parts(values, monitor=monitor))
    unwatched = copy.deepcopy(values)
    del unwatched["trainer"]["monitor"]  # then it is the published one
    check_training(Config.from_dict(unwatched, "c"))
    with pytest.raises(UserError, match=r"trainer.monitor.*val_t2v_metrics_geo"):
        check_training(Config.from_dict(unwatched | {"metrics": ["v2t_metrics"]}, "c"))
    labels = {"metrics": ["mean_average_precision"]}
    for change in (labels, {"eval_settings": labels}):
        with pytest.raises(UserError, match="labels"):
            check_training(Config.from_dict(values | change, "c"))


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": {"type": "Adam", "args": {"betas": [0.9, 0.9, 0.9]}}},
        {"lr_scheduler": {"type": "OneCycleLR", "args": {"max_lr": 0.1, "total_steps": 2}}},
        {"optimizer": {"type": "LBFGS"}},
    ],
)
def test_a_training_that_cannot_work_never_begins(change, tmp_path):
    config = tiny_config(make_tiny_set(tmp_path / "set"), tmp_path / "saved") | change
    with pytest.raises(UserError, match=r"Adam|OneCycleLR|LBFGS|betas"):
        train.main(["--config", str(write_json(tmp_path / "c.json", config))])
    assert not list(tmp_path.glob("saved/**/*.pth"))
