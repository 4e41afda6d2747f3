"""Optimisers, and the table of those that a config may name."""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.optimisation.settings import build


def _leave_dynamo_alone() -> None:
    """Let optimisers be built without loading torch's compiler, which takes more than a second.

    Torch loads it to keep these methods out of compiled code; none of them is called from there.
    """
    for method in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        eager = getattr(getattr(Optimizer, method), "__wrapped__", None)
        if eager is not None and not hasattr(eager, "__dynamo_disable"):
            setattr(eager, "__dynamo_disable", eager)


_leave_dynamo_alone()


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
            for p in group["params"] if group["fused"] else ():
                if self.state.get(p):  # loading brings the count to the device: steps would wait
                    self.state[p]["step"] = self.state[p]["step"].cpu()

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
        for (device, step), due in self._count(group).items():
            lr, eps = adam_constants(step, group["lr"], group["betas"], group["eps"])
            decay = group["weight_decay"]
            kernel = torch._fused_adam_
            if group["decoupled_weight_decay"]:
                kernel = torch._fused_adamw_
                decay *= group["lr"] / lr if lr else 0.0  # Adam multiplies it by its own rate
            states = [self.state[p] for p in due]
            kernel(
                due,
                [cast("Tensor", p.grad) for p in due],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                # Filled on the device: the host need not wait for it.
                [torch.full((), step, dtype=torch.float32, device=device)] * len(due),
                lr=lr,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=decay,
                eps=eps,
                amsgrad=False,
                maximize=group["maximize"],
            )

    def _count(self, group: dict[str, Any]) -> dict[tuple[torch.device, int], list[Tensor]]:
        """Count a step more of the parameters that have a gradient; gives them by device and count.

        Those of one count share the number on the host that says so.
        """
        counted: dict[tuple[torch.device, int], list[Tensor]] = {}
        steps_taken = self._steps_taken()
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["step"] = _NONE_TAKEN
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            counted.setdefault((p.device, steps_taken(p) + 1), []).append(p)
        for (_, step), due in counted.items():
            count = torch.tensor(float(step))
            for p in due:
                self.state[p]["step"] = count
        return counted

    def _steps_taken(self) -> Callable[[Tensor], int]:
        """Return what tells the steps of a parameter, and looks at a shared number once."""
        known: dict[int, int] = {}

        def steps_taken(p: Tensor) -> int:
            count = self.state[p]["step"]
            if id(count) not in known:
                known[id(count)] = int(count)
            return known[id(count)]

        return steps_taken


_NONE_TAKEN = torch.tensor(0.0)


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
        steps_taken = self._steps_taken()
        for group in self.param_groups:
            due = [
                p
                for p in group["params"]
                if p.grad is not None and steps_taken(p) % group["k"] == 0
            ]
            if due:
                slow = [self.state[p]["slow_buffer"] for p in due]
                torch._foreach_lerp_(slow, due, group["alpha"])
                torch._foreach_copy_(due, slow)
        return loss


# What `optimizer.type` of a config may name; to add one is to add a row.
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
# Others of torch, and why no training here can use them.
REFUSED_OPTIMISERS = {
    "LBFGS": "it measures the loss several times a step, which a training here does once",
    "Muon": "it takes matrices only, and the models here have vectors (biases) as well",
    "SparseAdam": "it takes sparse gradients only, and those of the models here are dense",
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
    return build("optimizer", kind, OPTIMISERS[kind], what, chosen)


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
