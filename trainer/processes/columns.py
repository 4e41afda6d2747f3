"""The first layers of both sides, whose columns several processes share out.

These layers, from pooled captions and experts to embeddings, hold most of a model's weights (93 %
of CE's on MSRVTT). Each process computes some of their output features, of all rows of a batch:
column-parallel layers (Shoeybi et al. 2019, arXiv 1909.08053, section 3). So it has the whole
gradient of the weights of these features, and updates them alone: inputs and outputs are exchanged,
some MB, in place of gradients, some hundred.

Axes: R rows of a batch (videos or captions), r of them with this process, I features of an input,
O output features of all layers of a side, o of them with this process.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adafactor, Optimizer

from model.expert_module import ExpertModule, Project
from model.fast import project
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
        return value[self.rows] if _is_per_weight(value, self.whole) else value


class _Side:
    """The first layers of one side of a model, of which this process has some columns.

    Args:
        layers: of all experts.
        processes: who has the other columns.

    Attributes:
        sizes: how many rows of the batch in hand each process has.
        parts: of weights and biases.
    """

    sizes: Sequence[int] = ()

    def __init__(self, layers: Sequence[nn.Linear], processes: Processes) -> None:
        self._processes = processes
        self._widths = [layer.out_features for layer in layers]
        self._input_sizes = [layer.in_features for layer in layers]
        edges = _edges_of_shares(self._input_sizes, self._widths, processes.count)
        self._columns = [stop - start for start, stop in pairwise(edges)]
        self.parts: list[_Part] = []
        self._own: dict[int, nn.Linear] = {}
        starts = accumulate(self._widths[:-1], initial=0)
        for number, (layer, start) in enumerate(zip(layers, starts, strict=True)):
            clipped = [min(max(edge - start, 0), layer.out_features) for edge in edges]
            own = self._divided(layer, [slice(*pair) for pair in pairwise(clipped)])
            if len(own.weight):
                self._own[number] = own

    def _divided(self, layer: nn.Linear, shares: list[slice]) -> nn.Linear:
        rank = self._processes.rank
        own = nn.Linear(1, 1, device="meta")
        for name in ("weight", "bias"):
            whole = getattr(layer, name)
            part = nn.Parameter(whole.detach()[shares[rank]], requires_grad=whole.requires_grad)
            setattr(own, name, part)
            self.parts.append(_Part(whole, part, shares, rank))
        return own

    def pays(self, rows: int, inputs: int) -> bool:
        """Whether so many rows of a batch, and inputs, are less to exchange than gradients."""
        features = sum(self._input_sizes[:inputs]) + sum(self._widths)
        exchanged = rows * features * self.parts[0].whole.itemsize
        saved = sum(part.whole.nbytes for part in self.parts) - exchanged
        return min(self._columns) > 0 and saved >= WORTH_BYTES

    def project(self, inputs: Sequence[Tensor], _: Sequence[nn.Linear]) -> list[Tensor]:
        """As `model.fast.project` by the whole layers."""
        rows = _AllRows.apply(self.sizes, self._processes, *inputs)  # each (R, I)
        used = rows if len(rows) == 1 else [rows[number] for number in self._own]
        own_Ro = torch.cat(project(used, list(self._own.values())), dim=1)
        own_Ro = _Needing.apply(own_Ro, *rows)
        result_rO = _OwnRows.apply(own_Ro, self.sizes, self._columns, self._processes)
        return list(result_rO.split(self._widths, dim=1))


def _edges_of_shares(input_sizes: list[int], widths: list[int], count: int) -> list[int]:
    """Cut the columns of all layers so that each process has about as many weights."""
    weights = [size * width for size, width in zip(input_sizes, widths, strict=True)]
    before = list(accumulate(weights, initial=0))
    first_columns = list(accumulate(widths, initial=0))
    edges = [0]
    for process in range(1, count):
        wanted = before[-1] * process // count
        layer = bisect_right(before, wanted) - 1
        edges.append(first_columns[layer] + (wanted - before[layer]) // input_sizes[layer])
    return [*edges, first_columns[-1]]


class ColumnParallel:
    """The first layers of a model's two sides, of which this process has some columns.

    Args:
        net: the model, on its device.
        processes: who has the others.
    """

    def __init__(self, net: RetrievalModel, processes: Processes) -> None:
        self._net, self._processes = net, processes
        self._text, self._video = (
            _Side(layers, processes) if layers else None for layers in _first_layers(net)
        )
        self._parts: list[_Part] = []  # those that are shared out at the moment

    def forget(self) -> None:
        """Let go of the columns: they would hold the memory of a model that leaves its device."""
        self._text = self._video = None

    def expect(self, videos: Sequence[int], captions: int) -> None:
        """Take down how many videos of a batch each process has, with how many captions each."""
        for side, rows in ((self._text, captions), (self._video, 1)):
            if side:
                side.sizes = [size * rows for size in videos]

    @property
    def own(self) -> list[nn.Parameter]:
        """What this process alone learns at the moment."""
        return [part.own for part in self._parts if part.own.numel()]

    @contextmanager
    def divided(
        self, optimiser: Optimizer, videos: int, captions: int, copies: Iterable[nn.Module]
    ) -> Iterator[None]:
        """Within this context each process learns its columns; after it, each has those of all.

        Args:
            optimiser: of the model's parameters; within the context, of this process's columns.
            videos: those of a batch, which say whether it pays.
            captions: of each video.
            copies: other models whose weights follow those of the model step by step.
        """
        text, video = self._text, self._video
        if isinstance(optimiser, Adafactor):  # which wants whole matrices
            text = video = None
        text = text if text and text.pays(videos * captions, inputs=1) else None
        video = video if video and video.pays(videos, inputs=len(video.parts)) else None
        self._parts = [part for side in (text, video) if side for part in side.parts]
        wholes = self._take_apart(optimiser)
        with self._projecting(text, video):
            yield
        # Where a step failed nothing is made whole: the others do not wait for it.
        _replace(optimiser, {part.own: part.whole for part in self._parts})
        with torch.no_grad():
            self._make_whole(optimiser, wholes, copies)
        self._parts = []

    @contextmanager
    def _projecting(self, text: _Side | None, video: _Side | None) -> Iterator[None]:
        chosen: dict[str, Project] = {}
        if text:
            chosen["project_text"] = text.project
        if video:
            chosen["project_video"] = video.project
        if self._net._compiled_call_impl is not None:  # exchanges stay out of what is compiled
            chosen = {name: torch.compiler.disable(of) for name, of in chosen.items()}
        modules = _expert_modules(self._net)
        for module in modules:
            module.__dict__ |= chosen
        try:
            yield
        finally:
            for module in modules:
                for name in chosen:
                    del module.__dict__[name]

    def _take_apart(self, optimiser: Optimizer) -> dict[nn.Parameter, dict[str, Any]]:
        """Let the optimiser have this process's columns; returns what it knew of whole layers."""
        wholes = {part.own: optimiser.state.pop(part.whole, {}) for part in self._parts}
        for part in self._parts:
            part.whole.grad = None
            if part.own.numel() and (known := wholes[part.own]):
                optimiser.state[part.own] = {name: part.of(x) for name, x in known.items()}
        _replace(optimiser, {part.whole: part.own for part in self._parts})
        return wholes

    def _make_whole(
        self,
        optimiser: Optimizer,
        wholes: Mapping[nn.Parameter, dict[str, Any]],
        copies: Iterable[nn.Module],
    ) -> None:
        states = {part.own: optimiser.state.pop(part.own, {}) for part in self._parts}
        twins = [dict(zip(self._net.parameters(), net.parameters(), strict=True)) for net in copies]
        # All are updated in the same steps: one tells what an optimiser knows of each.
        known = next((part for part in self._parts if states[part.own]), None)
        for part in self._parts:
            part.own.grad = None
            for x in (part.whole, *(of[part.whole] for of in twins)):
                self._share(x, part)
            if known is None:
                continue
            own, whole = states[part.own], wholes[part.own]
            for name, value in states[known.own].items():
                if not _is_per_weight(value, known.own):
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


def _expert_modules(net: nn.Module) -> list[ExpertModule]:
    return [module for module in net.modules() if isinstance(module, ExpertModule)]


def _first_layers(net: nn.Module) -> tuple[list[nn.Linear], list[nn.Linear]]:
    """Those of captions, and those of videos."""
    modules = _expert_modules(net)
    return (
        [unit.fc for module in modules for unit in module.text_units],
        [unit.fc for module in modules for unit in module.video_units],
    )


def _is_per_weight(value: Any, parameter: Tensor) -> bool:
    """Whether an optimiser keeps a number for each of a parameter's."""
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape == parameter.shape


def _replace(optimiser: Optimizer, others: Mapping[nn.Parameter, nn.Parameter]) -> None:
    for group in optimiser.param_groups:
        group["params"] = [others.get(p, p) for p in group["params"]]


class _AllRows(torch.autograd.Function):
    """Of each input (r, I) the rows of one process after the other, (R, I).

    On the way back each process has a gradient of all rows, by its columns: it gets those of its
    own rows, and adds them up.
    """

    @staticmethod
    def forward(
        ctx: Any, sizes: Sequence[int], processes: Processes, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.sizes, ctx.processes = sizes, processes
        widths = [x.shape[1] for x in inputs]
        rows = processes.gather_rows(torch.cat(inputs, dim=1), sizes).split(widths, dim=1)
        needed = ctx.needs_input_grad[2:]
        ctx.mark_non_differentiable(
            *(x for x, is_needed in zip(rows, needed, strict=True) if not is_needed)
        )
        return rows

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        wanted = [x for x, is_needed in zip(gradients, needed, strict=True) if is_needed]
        joined_RI = torch.cat(wanted, dim=1)
        size, rows = joined_RI.shape[1], ctx.sizes[ctx.processes.rank]
        given, taken = [number * size for number in ctx.sizes], [rows * size] * len(ctx.sizes)
        parts = ctx.processes.exchange(joined_RI.flatten(), given, taken, joined_RI.numel())
        sums = iter(
            parts.view(len(taken), rows, size).sum(dim=0).split([x.shape[1] for x in wanted], dim=1)
        )
        return None, None, *(next(sums) if is_needed else None for is_needed in needed)


class _Needing(torch.autograd.Function):
    """Return x; what the others come from is asked for gradients even where x does not need them.

    All processes have to take part in what `_AllRows` exchanges on the way back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *others: Tensor) -> Tensor:
        ctx.count = len(others)
        return x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient, *[None] * ctx.count


class _OwnRows(torch.autograd.Function):
    """All columns (q, O) of the own rows, from the own columns of all rows (Q, o)."""

    @staticmethod
    def forward(
        ctx: Any, x_Qo: Tensor, sizes: Sequence[int], columns: Sequence[int], processes: Processes
    ) -> Tensor:
        own_rows, own_columns = sizes[processes.rank], x_Qo.shape[1]
        by_rows = [number * own_columns for number in sizes]
        by_columns = [own_rows * number for number in columns]
        ctx.processes, ctx.sizes, ctx.columns = processes, sizes, columns
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
        return found.view(-1, ctx.columns[ctx.processes.rank]), None, None, None
