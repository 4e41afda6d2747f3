"""Losses on the similarity matrix of a batch."""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_log = logging.getLogger(__name__)


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
        n = len(sims)
        if sims.shape != (n, n):
            raise ValueError(f"The ranking loss needs a square matrix, got {tuple(sims.shape)}.")
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
