"""One batch, several processes: each embeds its part, all form the whole matrix and its loss.

The embeddings, mixture weights and availability of all parts are gathered with gradient. As every
process has the whole matrix and the whole loss, it has the whole gradient of each embedding too: it
keeps that of its own embeddings, and nothing is sent on the way back. What these give to the
weights is added up over the processes: exactly the gradient of one process with the whole batch.
Of the largest layers each process learns some columns alone (`trainer.processes.columns`).

Axes: B videos of a batch, b of them with this process, C captions per video, M experts.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from data_loader.batches import Batch, Whole
from data_loader.store.feature_store import send
from model.batch_norm import BatchNorm1d
from model.similarity import RetrievalModel, TextEmbeddings, VideoEmbeddings
from trainer.processes.alone import Processes
from trainer.processes.columns import ColumnParallel

# Gradients of fewer values travel together, larger ones each by itself, without a copy.
_LARGE = 2**16


class SharedBatches:
    """How a model learns from batches of which this process has a part.

    Args:
        net: the model; from now on its batch normalisation takes the statistics of whole batches.
        loss: what it learns from.
        processes: who has the other parts.
        local_statistics: leave batch normalisation with the statistics of each process's own part.
            The running ones, which evaluation uses, are then the means over the processes.
    """

    def __init__(
        self,
        net: RetrievalModel,
        loss: nn.Module,
        processes: Processes,
        local_statistics: bool = False,
    ) -> None:
        self._net, self._loss, self._processes = net, loss, processes
        self._columns = ColumnParallel(net, processes)
        self._batch: Batch | None = None  # the one in hand
        self._means_statistics = local_statistics
        for module in net.modules():
            if isinstance(module, BatchNorm1d):
                module.exchange = None if local_statistics else processes

    def divided(
        self, optimiser: Optimizer, videos: int, captions: int, copies: Iterable[nn.Module] = ()
    ) -> AbstractContextManager[None]:
        """Context in which the processes share out the largest layers; after it all are whole.

        Args:
            optimiser: of the model.
            videos: those of a whole batch.
            captions: of each video.
            copies: models whose weights follow those of the model step by step.
        """
        return self._columns.divided(optimiser, videos, captions, copies)

    @contextmanager
    def sharing(self, batch: Batch) -> Iterator[None]:
        """Within this context the model's similarities are those of the whole batch.

        Parts in which a batch goes through the model have such contexts of their own within.
        """
        if batch.whole is None:
            yield
            return
        outer, self._batch = self._batch, batch
        self._expect(batch)
        self._net.gather = self._gather
        try:
            yield
        finally:
            self._batch = outer
            if outer is None:
                self._net.gather = None
            else:
                self._expect(outer)

    def _expect(self, batch: Batch) -> None:
        assert batch.whole
        self._columns.expect(batch.whole.sizes, captions=batch.text.shape[1])

    def _gather(
        self, text: TextEmbeddings, video: VideoEmbeddings
    ) -> tuple[TextEmbeddings, VideoEmbeddings]:
        batch = self._batch
        assert batch and batch.whole
        return _gathered(text, video, batch.text.shape[1], batch.whole, self._processes)

    def forget_columns(self) -> None:
        """Free what sharing layers keeps of a device's memory; further steps would share none."""
        self._columns.forget()

    def learned_apart(self) -> list[nn.Parameter]:
        """What this process alone learns at the moment, in place of whole layers."""
        return self._columns.own

    def total_norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the length of all gradients together, of which this process has some alone."""
        alone = {id(p.grad) for p in self.learned_apart() if p.grad is not None}
        own = nn.utils.get_total_norm([x for x in gradients if id(x) in alone])
        others = nn.utils.get_total_norm([x for x in gradients if id(x) not in alone])
        if not alone:
            return others
        return (self._processes.sum(own.square()) + others.square()).sqrt()

    def add_up_gradients(self) -> None:
        """Turn the gradients of each process's part into those of the whole batch."""
        gradients = [p.grad for p in self._net.parameters() if p.grad is not None]
        # Those of the loss are the same everywhere, up to rounding.
        means = [p.grad for p in self._loss.parameters() if p.grad is not None]
        if self._means_statistics:
            means += [b for b in self._net.buffers() if b.is_floating_point()]
        if means:
            torch._foreach_div_(means, self._processes.count)
        large = [x for x in gradients if x.numel() >= _LARGE]
        self._processes.sum_in_place(large, [x for x in gradients if x.numel() < _LARGE] + means)


def _gathered(
    text: TextEmbeddings,
    video: VideoEmbeddings,
    captions: int,
    whole: Whole,
    processes: Processes,
) -> tuple[TextEmbeddings, VideoEmbeddings]:
    """Bring all parts of a batch together, in one exchange: one row of all that a video has."""
    weights = [] if text.weights is None else [text.weights]
    sides = [*text.embeddings, *weights]
    of_videos = [x.unflatten(0, (len(video), captions)).flatten(1) for x in sides]
    of_videos += [*video.embeddings, video.availability]
    # Of short and long types together the long one: nothing is lost.
    joined = torch.cat(of_videos, dim=1)
    rows = _GatherRows.apply(joined, whole.sizes, sum(whole.sizes[: whole.process]), processes)
    if (places := whole.places) is not None:
        rows = rows[send(places, rows.device)]
    *of_videos, availability = rows.split([x.shape[1] for x in of_videos], dim=1)
    of_text, of_video = of_videos[: len(sides)], of_videos[len(sides) :]
    of_text = [x.unflatten(1, (captions, -1)).flatten(0, 1) for x in of_text]
    count = len(text.embeddings)
    return (
        TextEmbeddings(tuple(of_text[:count]), of_text[count] if weights else None),
        VideoEmbeddings(tuple(of_video), availability),
    )


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, own_bF: Tensor, sizes: Sequence[int], start: int, processes: Processes
    ) -> Tensor:
        ctx.rows = slice(start, start + len(own_bF))
        return processes.gather_rows(own_bF, sizes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BF: Tensor) -> tuple[Tensor | None, ...]:
        return gradient_BF[ctx.rows], None, None, None
