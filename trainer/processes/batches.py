"""One batch, several processes: each embeds its part, all form the whole matrix and its loss.

The embeddings, mixture weights and availability of all parts are gathered with gradient. As every
process has the whole matrix and the whole loss, it has the whole gradient of each embedding too: it
keeps that of its own embeddings, and nothing is sent on the way back. What these give to the
weights is added up over the processes: exactly the gradient of one process with the whole batch.

Axes: B videos of a batch, b of them with this process, C captions per video, M experts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from data_loader.batches import Batch, Whole
from data_loader.store.feature_store import send
from model.batch_norm import BatchNorm1d
from model.similarity import RetrievalModel, TextEmbeddings, VideoEmbeddings
from trainer.processes.alone import ALONE, Processes

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
        processes: Processes = ALONE,
        local_statistics: bool = False,
    ) -> None:
        self._net, self._loss, self._processes = net, loss, processes
        self._means_statistics = local_statistics
        for module in net.modules():
            if isinstance(module, BatchNorm1d):
                module.exchange = None if local_statistics or processes is ALONE else processes

    @contextmanager
    def sharing(self, batch: Batch) -> Iterator[None]:
        """Within this context the model's similarities are those of the whole batch."""
        whole, captions = batch.whole, batch.text.shape[1]
        if whole is None:
            yield
            return

        def gather(
            text: TextEmbeddings, video: VideoEmbeddings
        ) -> tuple[TextEmbeddings, VideoEmbeddings]:
            return _gathered(text, video, captions, whole, self._processes)

        self._net.gather = gather
        try:
            yield
        finally:
            self._net.gather = None

    def add_up_gradients(self) -> None:
        """Turn the gradients of each process's part into those of the whole batch."""
        if self._processes is ALONE:
            return
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
