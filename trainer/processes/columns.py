"""The text side's first layers, whose columns several processes share out.

These layers, from a pooled caption to an embedding for each expert, hold most of a model's weights
(four fifths of CE's on MSRVTT). Each process computes some of their output features, of all
captions of a batch: column-parallel layers (Shoeybi et al. 2019, arXiv 1909.08053, section 3). So
it has the whole gradient of the weights of these features, and updates them alone: captions and
embeddings are exchanged, some MB, in place of gradients, some hundred.

Axes: Q captions of a batch, q of them with this process, I features of a pooled caption, O output
features of all layers, o of them with this process.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adafactor, Optimizer

from model.expert_module import ExpertModule
from model.fast import fan_out
from model.similarity import RetrievalModel
from trainer.processes.alone import Processes

# What is not exchanged has to be worth four more exchanges a step.
WORTH_BYTES = 2**22


@dataclass(frozen=True)
class _Part:
    """The rows of a layer's weight, or bias, that this process has: they share its memory."""

    whole: nn.Parameter
    own: nn.Parameter
    shares: list[slice]  # which rows each process has
    process: int

    @property
    def rows(self) -> slice:
        return self.shares[self.process]

    def of(self, value: Any) -> Any:
        """Return the own rows of what an optimiser knows of the whole parameter."""
        return value[self.rows] if _has_rows(value, self.whole) else value


class ColumnParallel:
    """The first layers of a model's text side, of which this process has some columns.

    Args:
        net: the model, on its device.
        processes: who has the others.

    Attributes:
        sizes: how many captions of the batch in hand each process has.
    """

    def __init__(self, net: RetrievalModel, processes: Processes) -> None:
        self._processes, self.sizes = processes, [0] * processes.count
        self._modules = [m for m in net.modules() if isinstance(m, ExpertModule)]
        self._is_compiled = net._compiled_call_impl is not None
        layers = _first_layers(net)
        self._widths = [layer.out_features for layer in layers]
        total, count = sum(self._widths), processes.count
        edges = [total * process // count for process in range(count + 1)]
        self._columns = [stop - start for start, stop in pairwise(edges)]
        starts = accumulate(self._widths, initial=0)
        self._parts: list[_Part] = []
        self._layers: list[nn.Linear] = []
        for layer, start in zip(layers, starts, strict=False):
            clipped = [min(max(edge - start, 0), layer.out_features) for edge in edges]
            shares = [slice(*pair) for pair in pairwise(clipped)]
            self._divide(layer, shares)

    def _divide(self, layer: nn.Linear, shares: list[slice]) -> None:
        rows = shares[self._processes.rank]
        own = nn.Linear(1, 1, device="meta")
        for name in ("weight", "bias"):
            whole = getattr(layer, name)
            part = nn.Parameter(whole.detach()[rows], requires_grad=whole.requires_grad)
            setattr(own, name, part)
            self._parts.append(_Part(whole, part, shares, self._processes.rank))
        if rows.stop > rows.start:
            self._layers.append(own)

    def pays(self, captions: int, optimiser: Optimizer) -> bool:
        """Whether batches of so many captions are less to exchange than gradients."""
        if min(self._columns) == 0 or isinstance(
            optimiser, Adafactor
        ):  # which wants whole matrices
            return False
        weights = sum(part.whole.nbytes for part in self._parts)
        features = sum(self._widths) + self._parts[0].whole.shape[1]
        exchanged = captions * features * self._parts[0].whole.itemsize
        return weights - exchanged >= WORTH_BYTES

    @property
    def own(self) -> list[nn.Parameter]:
        """What this process alone learns."""
        return [part.own for part in self._parts if part.own.numel()]

    @contextmanager
    def divided(self, optimiser: Optimizer, copies: Iterable[nn.Module]) -> Iterator[None]:
        """Within this context each process learns its columns; after it, each has those of all.

        Args:
            optimiser: of the model's parameters; within the context, of this process's columns.
            copies: other models whose weights follow those of the model step by step.
        """
        wholes = {part.own: optimiser.state.pop(part.whole, {}) for part in self._parts}
        for part in self._parts:
            part.whole.grad = None
            if part.own.numel() and (known := wholes[part.own]):
                optimiser.state[part.own] = {name: part.of(x) for name, x in known.items()}
        _replace(optimiser, {part.whole: part.own for part in self._parts})
        project = torch.compiler.disable(self._project) if self._is_compiled else self._project
        for module in self._modules:
            module.project = project
        yield
        # Where a step failed nothing is made whole: the others do not wait for it.
        for module in self._modules:
            del module.project
        _replace(optimiser, {part.own: part.whole for part in self._parts})
        with torch.no_grad():
            self._make_whole(optimiser, wholes, copies)

    def _make_whole(
        self,
        optimiser: Optimizer,
        wholes: Mapping[nn.Parameter, dict[str, Any]],
        copies: Iterable[nn.Module],
    ) -> None:
        states = {part.own: optimiser.state.pop(part.own, {}) for part in self._parts}
        copied = [p for net in copies for layer in _first_layers(net) for p in _of(layer)]
        # All are updated in the same steps: one tells what an optimiser knows of each.
        known = next((part for part in self._parts if states[part.own]), None)
        for number, part in enumerate(self._parts):
            part.own.grad = None
            for x in (part.whole, *copied[number :: len(self._parts)]):
                self._share(x, part)
            if known is None:
                continue
            own, whole = states[part.own], wholes[part.own]
            for name, value in states[known.own].items():
                if not _has_rows(value, known.own):
                    other = value.clone() if isinstance(value, Tensor) else value
                    whole[name] = own.get(name, other)
                    continue
                if name not in whole:
                    whole[name] = torch.empty_like(part.whole, dtype=value.dtype)
                if name in own:
                    whole[name][part.rows] = own[name]
                self._share(whole[name], part)
            optimiser.state[part.whole] = whole

    def _share(self, x: Tensor, part: _Part) -> None:
        """Let each process's rows of a tensor come to the others."""
        for process, rows in enumerate(part.shares):
            if rows.stop > rows.start:
                self._processes.take_from(process, [x.detach()[rows]])

    def _project(self, text_qI: Tensor, _: Iterable[nn.Linear]) -> list[Tensor]:
        """As `fan_out` of the whole layers."""
        text_QI = _AllRows.apply(text_qI, self.sizes, self._processes)
        own_Qo = torch.cat(fan_out(text_QI, self._layers), dim=1)
        result_qO = _OwnRows.apply(own_Qo, self.sizes, self._columns, self._processes)
        return list(result_qO.split(self._widths, dim=1))


def _first_layers(net: nn.Module) -> list[nn.Linear]:
    return [unit.fc for m in net.modules() if isinstance(m, ExpertModule) for unit in m.text_units]


def _of(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    return layer.weight, layer.bias


def _has_rows(value: Any, parameter: Tensor) -> bool:
    """Whether an optimiser keeps a number for each of a parameter's."""
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape == parameter.shape


def _replace(optimiser: Optimizer, others: Mapping[nn.Parameter, nn.Parameter]) -> None:
    for group in optimiser.param_groups:
        group["params"] = [others.get(p, p) for p in group["params"]]


class _AllRows(torch.autograd.Function):
    """The rows (q, I) of one process after the other, (Q, I).

    On the way back each process has a gradient of all rows, by its columns: it gets those of its
    own, and adds them up.
    """

    @staticmethod
    def forward(ctx: Any, x_qI: Tensor, sizes: Sequence[int], processes: Processes) -> Tensor:
        ctx.sizes, ctx.processes, ctx.own_shape = sizes, processes, x_qI.shape
        return processes.gather_rows(x_qI, sizes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_QI: Tensor) -> tuple[Tensor | None, ...]:
        rows, size = ctx.own_shape
        given = [number * size for number in ctx.sizes]
        taken = [rows * size] * len(given)
        parts = ctx.processes.exchange(gradient_QI.flatten(), given, taken, gradient_QI.numel())
        return parts.view(len(given), rows, size).sum(dim=0), None, None


class _OwnRows(torch.autograd.Function):
    """All columns (q, O) of the own rows, from the own columns of all rows (Q, o)."""

    @staticmethod
    def forward(
        ctx: Any, x_Qo: Tensor, sizes: Sequence[int], columns: Sequence[int], processes: Processes
    ) -> Tensor:
        own_rows, own_columns = sizes[processes.rank], x_Qo.shape[1]
        by_rows = [number * own_columns for number in sizes]
        by_columns = [own_rows * number for number in columns]
        ctx.columns, ctx.processes, ctx.own_columns = columns, processes, own_columns
        ctx.sizes = sizes
        ctx.by_rows, ctx.by_columns = by_rows, by_columns
        most = len(x_Qo) * max(columns)
        given = processes.exchange(x_Qo.flatten(), by_rows, by_columns, most)
        parts = given.split(by_columns)
        return torch.cat(
            [part.view(own_rows, number) for part, number in zip(parts, columns, strict=True)],
            dim=1,
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_qO: Tensor) -> tuple[Tensor | None, ...]:
        parts = [part.flatten() for part in gradient_qO.split(ctx.columns, dim=1)]
        most = max(ctx.sizes) * gradient_qO.shape[1]
        found = ctx.processes.exchange(torch.cat(parts), ctx.by_columns, ctx.by_rows, most)
        return found.view(-1, ctx.own_columns), None, None, None
