"""Optimisers and learning-rate schedules, and the table of those that a config may name."""

import inspect
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from trainer.settings import NONSENSE, check_settings, does_not_fit
from trainer.warmup import WarmupCosineLR
from utils.errors import UserError


class RAdam(torch.optim.RAdam):
    """RAdam (Liu et al. 2020, arXiv 1908.03265) with decoupled weight decay.

    The numbers are those of `torch.optim.RAdam`. That takes a dozen passes over all parameters;
    with `fused` a step is one pass of its kernel for Adam, as each of RAdam is one of Adam with
    other constants.
    """

    def __init__(
        self, params: Iterable[Tensor], *, fused: bool | None = None, **settings: Any
    ) -> None:
        super().__init__(params, **({"decoupled_weight_decay": True} | settings))
        if fused and any(self.defaults[other] for other in ("foreach", "capturable")):
            raise ValueError("fused excludes foreach and capturable")
        for group in self.param_groups:
            group["fused"] = bool(fused)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("fused", False)  # in checkpoints of trainings begun without it

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch has an overload for each kind of closure
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        if not all(group["fused"] for group in self.param_groups):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_by_adam(group)
        return loss

    def _step_by_adam(self, group: dict[str, Any]) -> None:
        lists: tuple[list[Tensor], ...] = ([], [], [], [], [])
        self._init_group(group, *lists)
        by_step: dict[tuple[torch.device, int], list[int]] = {}
        for place, (parameter, count) in enumerate(zip(lists[0], lists[-1], strict=True)):
            count += 1
            by_step.setdefault((parameter.device, int(count)), []).append(place)
        for (device, step), places in by_step.items():
            parameters, gradients, means, squares = (
                [tensors[place] for place in places] for tensors in lists[:-1]
            )
            lr, eps = adam_constants(step, group["lr"], group["betas"], group["eps"])
            decay = group["weight_decay"]
            kernel = torch._fused_adam_
            if group["decoupled_weight_decay"]:
                kernel = torch._fused_adamw_
                decay *= group["lr"] / lr if lr else 0.0  # Adam multiplies it by its own rate
            kernel(
                parameters,
                gradients,
                means,
                squares,
                [],
                # Filled on the device: the host need not wait for it.
                [torch.full((), step, dtype=torch.float32, device=device)] * len(places),
                lr=lr,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=decay,
                eps=eps,
                amsgrad=False,
                maximize=group["maximize"],
            )


# An eps beside which Adam's second moment vanishes.
_VAST = 1e15


def adam_constants(
    step: int, lr: float, betas: tuple[float, float], eps: float
) -> tuple[float, float]:
    """Learning rate and eps with which step `step` (from 1) of Adam is one of RAdam.

    Adam moves by lr m / (sqrt(v / c) + eps), RAdam by lr r m / ((sqrt(v) + eps) / sqrt(c)), with
    c = 1 - beta2^step and the rectification r; in its first steps, while the variance of v is not
    tractable, by lr m (m without its bias in all cases).
    """
    beta2 = betas[1]
    correction = 1 - beta2**step
    longest = 2 / (1 - beta2) - 1  # rho_inf
    length = longest - 2 * step * beta2**step / correction  # rho_t
    if length <= 5:
        return lr * _VAST, _VAST
    rectification = math.sqrt(
        (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    )
    return lr * rectification, eps / math.sqrt(correction)


class Ranger(RAdam):
    """Lookahead (Zhang et al. 2019, arXiv 1907.08610) over RAdam.

    Every `k` steps the slow weights go the share `alpha` of the way to the fast ones, and the fast
    ones start again from there.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        alpha: float = 0.5,
        k: int = 6,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        **implementation: bool | None,
    ) -> None:
        if not 0 <= alpha <= 1 or k < 1:
            raise ValueError(f"Ranger needs 0 <= alpha <= 1 and k >= 1, not {alpha} and {k}.")
        super().__init__(
            params,
            lr=lr,
            betas=tuple(betas),
            eps=eps,
            weight_decay=weight_decay,
            **implementation,
        )
        for group in self.param_groups:
            group.update(alpha=alpha, k=k)

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch has an overload for each kind of closure
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        # Slow weights start where the parameters stand before their first step. They join the state
        # after it: RAdam fills in a parameter's state only while that is empty.
        started = [
            (p, p.detach().clone())
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and "slow_buffer" not in self.state[p]
        ]
        loss = super().step(closure)
        for p, slow in started:
            self.state[p]["slow_buffer"] = slow
        for group in self.param_groups:
            due = [
                p
                for p in group["params"]
                if p.grad is not None and int(self.state[p]["step"]) % group["k"] == 0
            ]
            if due:
                slow = [self.state[p]["slow_buffer"] for p in due]
                torch._foreach_lerp_(slow, due, group["alpha"])
                torch._foreach_copy_(due, slow)
        return loss


class CosineAnnealingWithRestartsLR(lr_scheduler.LRScheduler):
    """Cosine annealing with warm restarts (Loshchilov and Hutter 2017, arXiv 1608.03983).

    The first cycle takes `T_max` epochs, each following one `T_mult` times as many (it need not be
    a whole number).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: float,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        T_mult: float = 1.0,
    ) -> None:
        if T_max <= 0 or T_mult < 1:
            raise ValueError(f"The schedule needs T_max > 0, T_mult >= 1, not {T_max}, {T_mult}.")
        self.T_max = T_max
        self.T_mult = T_mult
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        start, length = 0, self.T_max
        while self.last_epoch >= start + length:
            # A cycle begins at the first whole epoch after the end of the one before.
            start = math.ceil(start + length)
            length *= self.T_mult
        height = (1 + math.cos(math.pi * (self.last_epoch - start) / length)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]


class MultiStepLR(lr_scheduler.MultiStepLR):
    """Torch's schedule with a state of plain values, as checkpoints hold."""

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"milestones": dict(self.milestones)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"milestones": Counter(state_dict["milestones"])})


# What `optimizer.type` and `lr_scheduler.type` of a config may name; to add one is to add a row.
OPTIMISERS: dict[str, type[Optimizer]] = {
    "Ranger": Ranger,
    "RAdam": RAdam,
    "ASGD": torch.optim.ASGD,
    "Adadelta": torch.optim.Adadelta,
    "Adafactor": torch.optim.Adafactor,
    "Adagrad": torch.optim.Adagrad,
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "Adamax": torch.optim.Adamax,
    "NAdam": torch.optim.NAdam,
    "RMSprop": torch.optim.RMSprop,
    "Rprop": torch.optim.Rprop,
    "SGD": torch.optim.SGD,
}
SCHEDULES: dict[str, type[lr_scheduler.LRScheduler]] = {
    "StepLR": lr_scheduler.StepLR,
    "CosineAnnealingWithRestartsLR": CosineAnnealingWithRestartsLR,
    "ConstantLR": lr_scheduler.ConstantLR,
    "CosineAnnealingLR": lr_scheduler.CosineAnnealingLR,
    "CosineAnnealingWarmRestarts": lr_scheduler.CosineAnnealingWarmRestarts,
    "CyclicLR": lr_scheduler.CyclicLR,
    "ExponentialLR": lr_scheduler.ExponentialLR,
    "LinearLR": lr_scheduler.LinearLR,
    "MultiStepLR": MultiStepLR,
    "OneCycleLR": lr_scheduler.OneCycleLR,
    "PolynomialLR": lr_scheduler.PolynomialLR,
    "ReduceLROnPlateau": lr_scheduler.ReduceLROnPlateau,
    "WarmupCosineLR": WarmupCosineLR,
}
# Args with which a schedule may be made to end with the training: then more epochs are another one.
SCHEDULE_LENGTHS = {
    "CosineAnnealingLR": ("T_max",),
    "OneCycleLR": ("total_steps", "epochs"),
    "PolynomialLR": ("total_iters",),
}
# Those that end with the training unless their setting `steps` says otherwise.
ENDS_BY_ITSELF = ("WarmupCosineLR",)
# Others of torch, and why no training here can use them.
REFUSED_OPTIMISERS = {
    "LBFGS": "it measures the loss several times a step, which a training here does once",
    "Muon": "it takes matrices only, and the models here have vectors (biases) as well",
    "SparseAdam": "it takes sparse gradients only, and those of the models here are dense",
}
_OF_SCHEDULES = "it is made of other schedules, which a config cannot give it"
_OF_FUNCTIONS = "it takes a Python function, which a config cannot give it"
REFUSED_SCHEDULES = {
    "ChainedScheduler": _OF_SCHEDULES,
    "LambdaLR": _OF_FUNCTIONS,
    "MultiplicativeLR": _OF_FUNCTIONS,
    "SequentialLR": _OF_SCHEDULES,
}

_IMPLEMENTATIONS = {"fused", "foreach", "capturable", "differentiable"}
# Those with one kernel for the CPU as well as for GPUs.
_FUSED = ("Adam", "AdamW", "SGD", "RAdam", "Ranger")


def build_optimiser(
    kind: str, settings: dict[str, Any], net: nn.Module, decay_biases: bool = True
) -> Optimizer:
    """Build the optimiser that a config names, over the parameters that learn.

    Without `decay_biases` weight decay leaves out biases and normalisations.

    It takes torch's fastest implementation, unless the settings choose one by `fused` or `foreach`.

    Raises:
        UserError: the settings do not fit it.
    """
    learned = [p for p in net.parameters() if p.requires_grad]
    chosen = _fastest(kind, settings, learned) | settings
    what: Any = learned if decay_biases else split_decay(learned)
    return _build("optimizer", kind, OPTIMISERS[kind], what, chosen)


def split_decay(learned: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Return groups of parameters: those that decay as the optimiser says, and those that do not.

    Biases, the weights of normalisations and single numbers do not: what has one dimension at most.
    """
    decaying = [p for p in learned if p.dim() > 1]
    others = [p for p in learned if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": others, "weight_decay": 0.0}] if others else []
    return [{"params": decaying}, *groups] if decaying else groups


def _fastest(kind: str, settings: dict[str, Any], learned: list[nn.Parameter]) -> dict[str, bool]:
    """Choose the implementation: one kernel for all parameters, or lists of them, or none.

    Torch itself chooses lists on the GPU only. On the CPU they halve the time of a step over the
    hundreds of small parameters of these models.
    """
    if _IMPLEMENTATIONS & settings.keys():
        return {}
    if kind in _FUSED:
        return {"fused": True}
    on_cpu = all(p.device.type == "cpu" for p in learned)
    takes_lists = "foreach" in inspect.signature(OPTIMISERS[kind]).parameters
    return {"foreach": True} if on_cpu and takes_lists else {}


def build_schedule(
    kind: str,
    settings: dict[str, Any],
    optimiser: Optimizer,
    direction: str | None = None,
    steps: int = 1,
) -> lr_scheduler.LRScheduler:
    """Build the learning-rate schedule that a config names; `step_schedule` moves it on.

    Args:
        kind, settings: the type and the args of the config.
        optimiser: whose learning rate it sets.
        direction: "max" or "min", whether a larger or smaller value of the monitored metric is
            better; None where no metric is monitored.
        steps: of the whole training, for a schedule that moves with each of them.

    Raises:
        UserError: the settings do not fit, or the schedule follows a metric and there is none.
    """
    if kind == "ReduceLROnPlateau":
        if direction is None:
            raise UserError(
                f'lr_scheduler.type "{kind}" follows the monitored metric: set trainer.monitor to '
                '"max <metric>" or "min <metric>" instead of "off", or choose another schedule.'
            )
        settings = {"mode": direction} | settings
    if issubclass(SCHEDULES[kind], WarmupCosineLR):
        settings = {"steps": steps} | settings
    return _build("lr_scheduler", kind, SCHEDULES[kind], optimiser, settings)


def step_schedule(schedule: lr_scheduler.LRScheduler, value: float | None) -> None:
    """Move a schedule on by one epoch, unless it moves with each step (`moves_by_step`).

    Args:
        schedule: of `build_schedule`.
        value: the monitored metric of the epoch's validation, None where there was none: then a
            schedule that follows the metric stays where it is.
    """
    if moves_by_step(schedule):
        return
    with warnings.catch_warnings():
        # A training that goes on at the end of an epoch has made its steps in another process.
        warnings.filterwarnings("ignore", "Detected call of", UserWarning)
        if not isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
            schedule.step()
        elif value is not None:
            schedule.step(value)


def moves_by_step(schedule: lr_scheduler.LRScheduler) -> bool:
    """Whether a schedule moves with each step of a training, by its own `step`."""
    return isinstance(schedule, WarmupCosineLR)


def _build(part: str, kind: str, made: type, what: Any, settings: dict[str, Any]) -> Any:
    check_settings(part, kind, made, settings)
    try:
        return made(what, **settings)
    except NONSENSE as error:
        raise does_not_fit(part, kind, error) from error
