"""Similarity of captions and videos as a function of their embeddings.

The one place where the two sides meet: a training batch, an evaluation that streams blocks, a
teacher that stored its embeddings and an index all call the same function. What gives the
embeddings is a `RetrievalModel`.

Axes: Q queries (captions), N videos, M experts, D embedding size of an expert.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from model.fast import TORCH, float32_product

VIDEOS_PER_TILE = 4096
# Videos up to this size are laid out for many blocks once, larger ones anew for each block.
PREPARED_BYTES = 2**27

# Brings together the embeddings that several processes have made of one batch.
Gathering = Callable[
    ["TextEmbeddings", "VideoEmbeddings"], tuple["TextEmbeddings", "VideoEmbeddings"]
]

# What a training takes from pooled features, (rows, D) by the name of an expert, or "text".
PooledDropout = Callable[[str, Tensor], Tensor]

TASKS = ("retrieval", "compute_video_embeddings")
CAPTION_MODES = ("indep", "avg")

ExpertDims = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class TextEmbeddings:
    """One embedding per expert for each caption, and how much the caption asks of each expert."""

    embeddings: tuple[Tensor, ...]  # M times (Q, D)
    weights: Tensor | None  # (Q, M), rows sum to 1; None: every expert counts 1, nothing normalised

    def __getitem__(self, queries: slice | Tensor) -> "TextEmbeddings":
        weights = None if self.weights is None else self.weights[queries]
        return TextEmbeddings(tuple(e[queries] for e in self.embeddings), weights)

    def __len__(self) -> int:
        return len(self.embeddings[0])

    def to(self, target: torch.device | torch.dtype) -> "TextEmbeddings":
        """Return the same on a device, or of another type."""
        weights = None if self.weights is None else self.weights.to(target)
        return TextEmbeddings(tuple(e.to(target) for e in self.embeddings), weights)

    @staticmethod
    def cat(blocks: Sequence["TextEmbeddings"]) -> "TextEmbeddings":
        """Join blocks of queries."""
        weights = [b.weights for b in blocks if b.weights is not None]
        embeddings = _cat_experts([b.embeddings for b in blocks])
        return TextEmbeddings(embeddings, torch.cat(weights) if weights else None)


@dataclass(frozen=True)
class VideoEmbeddings:
    """One embedding per expert for each video, and which of its experts are there."""

    embeddings: tuple[Tensor, ...]  # M times (N, D)
    availability: Tensor  # (N, M), 1 where the expert is there, 0 where it is missing

    def __getitem__(self, videos: slice | Tensor) -> "VideoEmbeddings":
        return VideoEmbeddings(tuple(e[videos] for e in self.embeddings), self.availability[videos])

    def __len__(self) -> int:
        return len(self.embeddings[0])

    def to(self, target: torch.device | torch.dtype) -> "VideoEmbeddings":
        """Return the same on a device, or of another type."""
        embeddings = tuple(e.to(target) for e in self.embeddings)
        return VideoEmbeddings(embeddings, self.availability.to(target))

    @staticmethod
    def cat(blocks: Sequence["VideoEmbeddings"]) -> "VideoEmbeddings":
        """Join blocks of videos."""
        embeddings = _cat_experts([b.embeddings for b in blocks])
        return VideoEmbeddings(embeddings, torch.cat([b.availability for b in blocks]))


def _cat_experts(blocks: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))


class RetrievalModel(nn.Module, ABC):
    """Embeds captions and videos over pre-extracted experts; `similarity` compares them.

    Args:
        expert_dims: expert name -> (size of the pooled feature, size of its embedding), as a
            mapping or as ordered pairs, in the order that the parameters have.
        task: "retrieval", or "compute_video_embeddings" to get the video side alone.
        test_caption_mode: "indep" (each caption a query) or "avg" (mean over a video's captions;
            training does that too when C > 1).

    Raises:
        ValueError: the task or the mode is not known.
    """

    def __init__(
        self,
        expert_dims: ExpertDims | Iterable[tuple[str, tuple[int, int]]],
        task: str,
        test_caption_mode: str,
    ) -> None:
        super().__init__()
        _check_choice("task", task, TASKS)
        _check_choice("test_caption_mode", test_caption_mode, CAPTION_MODES)
        self.expert_dims = {name: (size, out) for name, (size, out) in dict(expert_dims).items()}
        self.task = task
        self.test_caption_mode = test_caption_mode
        self.products = TORCH  # see `fast.choose_products`
        # T with which captions were padded in training, where padding counts; see `encode_text`.
        self.text_tokens: int | None = None
        self.dropout: PooledDropout | None = None  # set while a training step runs
        self.gather: Gathering | None = None  # likewise, of several processes

    def compare(self, text: TextEmbeddings, video: VideoEmbeddings) -> Tensor:
        """Return the similarities of a batch, of which this process may have embedded a part."""
        if self.gather is not None:
            text, video = self.gather(text, video)
        return similarity(text, video)

    @abstractmethod
    def encode_text(self, text_BCTD: Tensor, num_tokens_BC: Tensor | None = None) -> TextEmbeddings:
        """Embed captions (B, C, T, D): B * C queries, the captions of one video in a row.

        `num_tokens_BC` (B, C) says how many of the T tokens are words. Captions with less padding
        than in training (`text_tokens`) get the rest of it: without, their embeddings were others.

        Raises:
            ValueError: there are more tokens than in training.
        """

    @abstractmethod
    def encode_video(
        self, experts: Mapping[str, Tensor], ind: Mapping[str, Tensor]
    ) -> VideoEmbeddings:
        """Embed B videos.

        Args:
            experts: expert name -> (B, D), or (B, T, D) for variable length. What stands in the
                rows of missing experts does not matter (zeros or NaN).
            ind: expert name -> (B,), 1 where the expert is there.
        """


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f'{name} "{value}" is not known; it may be {" or ".join(choices)}.')


def similarity(text: TextEmbeddings, video: VideoEmbeddings) -> Tensor:
    """Similarity matrix (Q, N) of captions and videos.

    s(q, v) = sum_m w(q, v, m) <t(q, m), v(v, m)> with
    w(q, v, m) = w(q, m) a(v, m) / sum_m' w(q, m') a(v, m'): the caption's mixture weights, shared
    out among the experts that the video has (Liu et al. 2019, eq. 5; Miech et al. 2018, eq. 8).
    A video without any expert has similarity 0 to everything.

    The weights are folded into the two sides, so that the sum over experts is one matrix product
    over all experts' dimensions and no (Q, N, M) tensor is ever made. Similarities are float32 also
    where the embeddings have less precision: close ones would tie otherwise.
    """
    return similarity_to(video)(text)


def similarity_to(video: VideoEmbeddings) -> Callable[[TextEmbeddings], Tensor]:
    """Prepare videos once for many blocks of captions: gives `similarity` as a function of text.

    Without gradients, videos beyond `VIDEOS_PER_TILE` are compared that many at a time: what is
    needed besides the result does not grow with N.
    """
    video = _at_least_float32(video)
    is_small = sum(e.numel() * e.itemsize for e in video.embeddings) <= PREPARED_BYTES
    prepared: dict[bool, Tensor] = {}

    def laid_out(videos: slice, is_weighted: bool) -> Tensor:
        if not is_small:
            return _video_side(video[videos], is_weighted)
        if is_weighted not in prepared:
            prepared[is_weighted] = _video_side(video, is_weighted)
        return prepared[is_weighted][videos]

    def compare(text: TextEmbeddings) -> Tensor:
        with torch.autocast(video.availability.device.type, enabled=False):
            text = _at_least_float32(text)
            text_QD = _joined(text.embeddings, text.weights)

            def part(videos: slice, out: Tensor | None = None) -> Tensor:
                video_ND = laid_out(videos, text.weights is not None)
                return _compare(text_QD, text.weights, video_ND, video.availability[videos], out)

            if torch.is_grad_enabled() or len(video) <= VIDEOS_PER_TILE:
                return part(slice(None))
            result = text_QD.new_empty((len(text_QD), len(video)))
            for start in range(0, len(video), VIDEOS_PER_TILE):
                tile = slice(start, start + VIDEOS_PER_TILE)
                part(tile, out=result[:, tile])
            return result

    return compare


def _video_side(video: VideoEmbeddings, is_weighted: bool) -> Tensor:
    return _joined(video.embeddings, video.availability if is_weighted else None)


_Side = TypeVar("_Side", TextEmbeddings, VideoEmbeddings)


def _at_least_float32(side: _Side) -> _Side:
    is_short = any(e.dtype.itemsize < torch.float32.itemsize for e in side.embeddings)
    return side.to(torch.float32) if is_short else side


def _joined(embeddings: Sequence[Tensor], weights: Tensor | None) -> Tensor:
    """All experts' embeddings beside one another, times their weights, (rows, sum of D)."""
    if weights is None:
        return torch.cat(list(embeddings), dim=1)
    pairs = zip(embeddings, weights.unbind(1), strict=True)
    return torch.cat([e * w.unsqueeze(1) for e, w in pairs], dim=1)


def _compare(
    text_QD: Tensor,
    weights_QM: Tensor | None,
    video_ND: Tensor,
    availability_NM: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    if weights_QM is None:
        if out is not None:
            return torch.mm(text_QD, video_ND.T, out=out)
        return float32_product(text_QD, video_ND.T)
    total_weight_QN = float32_product(weights_QM, availability_NM.T)
    # Without any expert the numerator is 0 as well: divide by 1 there instead of by 0.
    total_weight_QN = torch.where(total_weight_QN > 0, total_weight_QN, 1.0)
    return torch.div(float32_product(text_QD, video_ND.T), total_weight_QN, out=out)


def expert_similarities(text: TextEmbeddings, video: VideoEmbeddings) -> tuple[Tensor, Tensor]:
    """Take the similarities of P pairs (caption p, video p) apart, expert by expert.

    Returns:
        The weights w (P, M) that the pairs' experts have, 0 where one is missing, and what each
        expert gives, s (P, M): `similarity` of a pair is sum_m w s. Without mixture weights every
        expert counts 1, as `similarity` has it.

    Raises:
        ValueError: the model has one joint embedding: its experts cannot be told apart.
    """
    if len(text.embeddings) != video.availability.shape[1]:
        raise ValueError("A joint embedding of all experts cannot be taken apart.")
    pairs = zip(text.embeddings, video.embeddings, strict=True)
    similarities_PM = torch.stack([(t * v).sum(dim=1) for t, v in pairs], dim=1)
    if text.weights is None:
        return torch.ones_like(similarities_PM), similarities_PM
    weights_PM = text.weights * video.availability
    total_P1 = weights_PM.sum(dim=1, keepdim=True)
    return weights_PM / torch.where(total_P1 > 0, total_P1, 1.0), similarities_PM
