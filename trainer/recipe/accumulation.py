"""The loss of a batch that is larger than memory: embeddings are cached, and made twice.

The ranking losses compare every caption of a batch with every video of it, so that the gradients of
parts do not add up to the batch's. A first pass embeds the parts without a graph; the loss of all
embeddings gives each of them its gradient; a second pass embeds the parts again and takes these
gradients to the weights (GradCache, Gao et al. 2021). Only one part's activations are ever held.

Batch normalisation sees a part at a time: in training its statistics, and so the loss, are those of
the parts. Where statistics are fixed the gradients are those of the whole batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from data_loader.batches import Batch, split_rows
from model.similarity import RetrievalModel, TextEmbeddings, VideoEmbeddings, similarity

Encode = Callable[[Batch], tuple[TextEmbeddings, VideoEmbeddings]]


def split_batch(batch: Batch, count: int) -> list[Batch]:
    """Split a batch into `count` parts of nearly one size, fewer where one would be of one video.

    Batch normalisation cannot take a single video. One process's part of a batch is split as the
    whole is.
    """
    if batch.whole is None:
        return [batch.rows(rows) for rows in split_rows(len(batch.video_indices), count)]
    parts, start = [], 0
    for number, share in enumerate(batch.whole.shares[batch.whole.process]):
        stop = start + share.stop - share.start
        parts.append(replace(batch.rows(slice(start, stop)), whole=batch.whole.part(number)))
        start = stop
    return parts


def accumulate_gradients(
    net: RetrievalModel,
    parts: Sequence[Batch],
    encode: Encode,
    backward: Callable[[Tensor], None],
    compare: Callable[[TextEmbeddings, VideoEmbeddings], Tensor] = similarity,
) -> None:
    """Add to the weights' gradients what the loss of several parts together gives.

    Args:
        net: the model.
        parts: of one batch.
        encode: embeds a part with the model; twice in the same way.
        backward: computes the loss of the similarities (Q, B) of all parts, and its gradient.
        compare: gives the similarities of embeddings.
    """
    with torch.no_grad(), _left_as_it_was(net):
        texts, videos = zip(*(encode(part) for part in parts), strict=True)
    # Leaves of a graph of their own: the loss ends at the embeddings.
    text, video = TextEmbeddings.cat(texts), VideoEmbeddings.cat(videos)
    of_text, of_video = _tensors(text), list(video.embeddings)
    for leaf in of_text + of_video:
        leaf.requires_grad_()
    backward(compare(text, video))
    query = first = 0
    for part in parts:
        text, video = encode(part)
        queries, rows = slice(query, query + len(text)), slice(first, first + len(video))
        query, first = queries.stop, rows.stop
        pairs = [
            (value, leaf.grad[own])
            for values, leaves, own in (
                (_tensors(text), of_text, queries),
                (video.embeddings, of_video, rows),
            )
            for value, leaf in zip(values, leaves, strict=True)
            if value.requires_grad and leaf.grad is not None
        ]
        torch.autograd.backward([value for value, _ in pairs], [grad for _, grad in pairs])


def _tensors(text: TextEmbeddings) -> list[Tensor]:
    return [*text.embeddings, *([] if text.weights is None else [text.weights])]


@contextmanager
def _left_as_it_was(net: nn.Module) -> Iterator[None]:
    """Put running statistics and random numbers back, so that a second pass meets them again."""
    buffers = list(net.buffers())
    before = [buffer.clone() for buffer in buffers]
    devices = {buffer.device for buffer in net.parameters() if buffer.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        yield
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value)
