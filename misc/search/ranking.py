"""The best videos of an index for a question, exactly: scanned in float16, compared in float32.

Within one pattern of experts the divisor of the similarity is the same for all videos, so that a
question is one vector for each pattern, and scanning a pattern is one matrix product. The product
is of float16 numbers; how far it can be from the similarity is bounded (`_error`), and every video
that may be among the best by that bound is compared again, in float32, by `model.similarity`. What
is found is what comparing all videos in float32 finds.

Axes: J sentences of a question, N videos, W numbers of a video of one pattern.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from misc.search.index.folder import Index
from misc.search.index.parts import Group, Shape
from model.similarity import TextEmbeddings, similarity

# Of 100,000 videos of 5,376 numbers this makes 13 products.
_ROWS_PER_PRODUCT = 8192
_RESCORED_AT_ONCE = 2048
# A float16 number is off by at most this share of it, or by half of the smallest step.
_ROUNDING, _UNDERFLOW = 2.0**-11, 2.0**-25


@dataclass(frozen=True)
class Question:
    """What is looked for: a sum of similarities to J sentences.

    Attributes:
        text: the sentences.
        factors: (J,) what each of them counts; those that are not wanted count negatively.
        rows: the videos among which is searched, (N,) bool; None: all.
        is_corrected: whether hubness is taken off.
    """

    text: TextEmbeddings
    factors: Tensor
    rows: Tensor | None = None
    is_corrected: bool = True


def weighted(text: TextEmbeddings, factors: Tensor) -> TextEmbeddings:
    """Let each expert count more or less than a caption asks for.

    Args:
        text: captions.
        factors: (E,), 1 for no change.
    """
    if text.weights is None:
        parts = zip(text.embeddings, factors, strict=True)
        return TextEmbeddings(tuple(part * factor for part, factor in parts), None)
    return TextEmbeddings(text.embeddings, text.weights * factors)


@dataclass(frozen=True)
class Found:
    """The best rows of an index, best first.

    Attributes:
        rows: (k,) int64.
        scores: (k,) float32, what they are ranked by.
        similarities: (k,) float32, to the wanted sentences alone: a mean, as factors have it.
        compared: how many videos were compared in float32.
    """

    rows: Tensor
    scores: Tensor
    similarities: Tensor
    compared: int


@torch.inference_mode()
def best(index: Index, question: Question, k: int) -> Found:
    """Find the k rows with the highest scores; of equal ones the first in the index."""
    lower, upper = _scan(index, question)
    count = min(k, int((upper > -torch.inf).sum()))
    if not count:
        nothing = torch.zeros(0)
        return Found(nothing.long(), nothing, nothing, 0)
    least = lower.topk(count).values[-1]
    return ranked(index, question, (upper >= least).nonzero()[:, 0], count)


@torch.inference_mode()
def ranked(index: Index, question: Question, candidates: Tensor, k: int) -> Found:
    """Rank candidate rows by their exact scores, and return the best k."""
    candidates = candidates.sort().values
    scores, similarities = rescored(index, question, candidates)
    order = scores.sort(descending=True, stable=True).indices[:k]
    return Found(candidates[order], scores[order], similarities[order], len(candidates))


def rescored(index: Index, question: Question, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact scores and similarities of chosen rows."""
    sums, wanted = [torch.zeros(0)], [torch.zeros(0)]
    positive = question.factors.clamp(min=0)
    for some in rows.split(_RESCORED_AT_ONCE):
        similarities_JR = similarity(question.text, index.video(some))
        sums.append(question.factors @ similarities_JR)
        wanted.append(positive @ similarities_JR)
    scores = torch.cat(sums)
    if question.is_corrected:
        scores = scores - index.offsets[rows]
    return scores, torch.cat(wanted)


def _scan(index: Index, question: Question) -> tuple[Tensor, Tensor]:
    """Return between what the scores of all rows lie, (N,) and (N,); -inf for those left out."""
    scores = torch.empty(len(index))
    errors = torch.empty(len(index))
    for group in index.groups:
        vector = question_vector(question, group, index.manifest.shape)
        rows = slice(group.first, group.first + len(group))
        errors[rows] = _error(vector, group, index.manifest.shape)
        scores[rows] = products(vector, group)
    if question.is_corrected:
        scores -= index.offsets
    left_out = ~index.is_found
    if question.rows is not None:
        left_out |= ~question.rows
    scores.masked_fill_(left_out, -torch.inf)
    return scores - errors, scores + errors


def question_vector(question: Question, group: Group, shape: Shape) -> Tensor:
    """Return (W,) by which the score of each video of a group is an inner product."""
    text, factors_J1 = question.text, question.factors.unsqueeze(1)
    if text.weights is not None:
        weights_JE = text.weights[:, group.columns]
        total_J1 = weights_JE.sum(dim=1, keepdim=True)
        weights_JE = weights_JE / torch.where(total_J1 > 0, total_J1, 1.0)
        columns = enumerate(group.columns)
        parts = [text.embeddings[c] * weights_JE[:, at, None] for at, c in columns]
    else:
        parts = [text.embeddings[column] for column in group.columns]
    if not parts:
        return torch.zeros(0)
    return (torch.cat(parts, dim=1) * factors_J1).sum(dim=0)


def products(vector: Tensor, group: Group) -> Tensor:
    """Multiply the float16 matrix of a group with a vector (W,), in its own precision: (n,)."""
    out = torch.zeros(len(group))
    largest = float(vector.abs().max()) if len(vector) else 0.0
    if not largest:
        return out
    # As large as can be, so that nothing underflows; products are summed up in float32.
    query_1W = (vector / largest).half().unsqueeze(0)
    for start, block in _blocks(group.half):
        out[start : start + len(block)] = torch.mm(query_1W, block.T)[0]
    return out.mul_(largest * group.scale)


def _blocks(values: Tensor) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(values), _ROWS_PER_PRODUCT):
        yield start, values[start : start + _ROWS_PER_PRODUCT]


def _error(vector: Tensor, group: Group, shape: Shape) -> float:
    """Bound how far a float16 product is from the float32 one, for all videos of a group.

    Three roundings, of the video, of the query and of their product, are each at most 2^-11 of
    sum |q_i v_i|, which is at most sum over experts |q| |v| (Cauchy and Schwarz); numbers too small
    for float16 add a step each. Summing up in float32 is far below that.
    """
    widths = [shape.sizes[column] for column in group.columns]
    lengths = [float(part.norm()) for part in vector.split(widths)] if widths else []
    most = sum(length * norm for length, norm in zip(lengths, group.norms, strict=True))
    small = _UNDERFLOW * len(vector) ** 0.5
    largest = float(vector.abs().max()) if len(vector) else 0.0
    under = small * (sum(lengths) * group.scale + sum(group.norms) * largest)
    return 4 * _ROUNDING * most + 2 * under + _UNDERFLOW * largest * group.scale
