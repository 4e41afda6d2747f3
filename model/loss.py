"""Losses on the similarity matrix of a batch: ranking, and distillation from teachers."""

import logging
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_log = logging.getLogger(__name__)

# Lower ones take the softmax of similarities, which lie in [-1, 1], out of float32.
_LOWEST_TEMPERATURE = 1e-3


class MaxMarginRankingLoss(nn.Module):
    """Bidirectional max-margin ranking loss (Socher et al. 2014; Liu et al. 2019, eq. 6).

    Mean over i != j of max(0, m - s_ii + s_ij) and max(0, m - s_ii + s_ji): 2 n (n - 1) terms.

    Args:
        margin: m.
        fix_norm: leave the diagonal, which is always m, out of the mean. False takes the mean
            over all 2 n^2 terms.
    """

    def __init__(self, margin: float = 1.0, fix_norm: bool = True) -> None:
        super().__init__()
        self.margin = margin
        self.fix_norm = fix_norm

    def forward(self, sims: Tensor) -> Tensor:
        """Loss of a square similarity matrix (n, n), true pairs on the diagonal.

        Raises:
            ValueError: the matrix is not square.
        """
        n = _check_square(sims, "ranking")
        own = sims.diagonal()
        if not self.fix_norm:
            return (self._hinges(sims, own.view(-1, 1)) + self._hinges(sims, own)).mean() / 2
        if n == 1:
            _log.warning("A batch of one video has no negatives: its ranking loss is 0.")
            return sims.sum() * 0.0
        both = self._hinges(sims, own.view(-1, 1)) + self._hinges(sims, own)
        # The diagonal's terms are left out by weight, not by an index: no copy of the matrix.
        negatives = 1 - torch.eye(n, device=sims.device, dtype=sims.dtype)
        return (both * negatives).sum() / (2 * n * (n - 1))

    def _hinges(self, sims: Tensor, own: Tensor) -> Tensor:
        return F.relu(self.margin - own + sims)


def _check_square(sims: Tensor, which: str) -> int:
    n = len(sims)
    if sims.shape != (n, n):
        raise ValueError(f"The {which} loss needs a square matrix, got {tuple(sims.shape)}.")
    return n


class NormSoftmaxLoss(nn.Module):
    """Symmetric cross-entropy over the batch (Bain et al. 2021, eq. 1; Radford et al. 2021).

    A caption's own video among the videos of the batch and a video's own caption among the
    captions, with softmax over similarities / temperature; the mean of both directions.

    Args:
        temperature: what similarities are divided by; where a learned one begins.
        learned: learn the temperature between `lowest` and `highest`, which it only approaches.
        lowest: lower bound of a learned temperature.
        highest: upper bound of a learned temperature.
        label_smoothing: the share of the target that is spread over the whole batch.

    Raises:
        ValueError: the temperature is too low, or a learned one begins outside its bounds.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        learned: bool = False,
        lowest: float = 0.01,
        highest: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not _LOWEST_TEMPERATURE <= temperature < math.inf:
            raise ValueError(f"temperature {temperature} is not at least {_LOWEST_TEMPERATURE}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing {label_smoothing} is not at least 0 and below 1")
        self.fixed, self.bounds = temperature, (lowest, highest)
        self.label_smoothing = label_smoothing
        self.position: nn.Parameter | None = None
        if learned:
            if not _LOWEST_TEMPERATURE <= lowest < temperature < highest:
                raise ValueError(
                    f"a learned temperature begins between lowest and highest: {lowest} < "
                    f"{temperature} < {highest} does not hold"
                )
            # On the logarithmic way from bound to bound, by a sigmoid: its gradient never ends.
            share = math.log(temperature / lowest) / math.log(highest / lowest)
            self.position = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    @property
    def temperature(self) -> Tensor | float:
        """The temperature in force; a scalar tensor with gradient where it is learned."""
        if self.position is None:
            return self.fixed
        lowest, highest = self.bounds
        return lowest * (highest / lowest) ** torch.sigmoid(self.position)

    def forward(self, sims: Tensor) -> Tensor:
        """Loss of a square similarity matrix (n, n), true pairs on the diagonal.

        Raises:
            ValueError: the matrix is not square.
        """
        _check_square(sims, "softmax")
        logits, own = sims / self.temperature, torch.arange(len(sims), device=sims.device)
        of_captions = F.cross_entropy(logits, own, label_smoothing=self.label_smoothing)
        of_videos = F.cross_entropy(logits.T, own, label_smoothing=self.label_smoothing)
        return (of_captions + of_videos) / 2


class MarginSoftmaxLoss(NormSoftmaxLoss):
    """The sum of `MaxMarginRankingLoss` and `weight` times `NormSoftmaxLoss`, with its settings."""

    def __init__(
        self, margin: float = 0.2, fix_norm: bool = True, weight: float = 1.0, **softmax: Any
    ) -> None:
        super().__init__(**softmax)
        self.weight = weight
        self.ranking = MaxMarginRankingLoss(margin, fix_norm)

    def forward(self, sims: Tensor) -> Tensor:
        """Loss of a square similarity matrix (n, n), true pairs on the diagonal."""
        return self.ranking(sims) + self.weight * super().forward(sims)


class DistillationLoss(nn.Module):
    """How far a student's similarities are from its teachers' (Croitoru et al. 2021, section 3).

    Smooth L1 (Huber with threshold 1), the mean over all pairs.
    """

    def forward(self, sims: Tensor, teacher_sims: Tensor) -> Tensor:
        """Loss of a student's matrix (Q, N) against the teachers' aggregated one (Q, N).

        Raises:
            ValueError: the shapes differ.
        """
        if sims.shape != teacher_sims.shape:
            raise ValueError(
                f"The student's similarities are {tuple(sims.shape)}, the teachers' "
                f"{tuple(teacher_sims.shape)}."
            )
        return F.smooth_l1_loss(sims, teacher_sims.detach())


# What `loss.type` of a config may name: modules that take a square matrix of similarities, true
# pairs on the diagonal, and give the loss. To add one is to add a row.
LOSSES: dict[str, type[nn.Module]] = {
    "MaxMarginRankingLoss": MaxMarginRankingLoss,
    "NormSoftmaxLoss": NormSoftmaxLoss,
    "MarginSoftmaxLoss": MarginSoftmaxLoss,
}

AGGREGATES = ("mean", "max", "min", "median", "random")


def aggregate_teachers(
    teacher_sims: Tensor, aggregate: str = "mean", chosen: Tensor | None = None
) -> Tensor:
    """Join the similarity matrices of T teachers to one (Croitoru et al. 2021, section 3).

    Args:
        teacher_sims: (T, Q, N).
        aggregate: "mean", "max", "min", "median" (between the middle two of an even number), or
            "random": each caption's row is that of one teacher.
        chosen: (Q,) int64, the teacher of each row, for "random".

    Returns:
        (Q, N).

    Raises:
        ValueError: the aggregate is not known, or "random" lacks its choice.
    """
    if aggregate == "mean":
        return teacher_sims.mean(dim=0)
    if aggregate == "max":
        return teacher_sims.amax(dim=0)
    if aggregate == "min":
        return teacher_sims.amin(dim=0)
    if aggregate == "median":
        count = len(teacher_sims)
        middle = slice((count - 1) // 2, count // 2 + 1)
        return teacher_sims.sort(dim=0).values[middle].mean(dim=0)
    if aggregate != "random":
        raise ValueError(f'"{aggregate}" is none of {", ".join(AGGREGATES)}.')
    if chosen is None:
        raise ValueError("The aggregate random needs the teacher of each row.")
    return teacher_sims[chosen, torch.arange(teacher_sims.shape[1], device=chosen.device)]
