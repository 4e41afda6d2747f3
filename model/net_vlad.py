"""NetVLAD: a set of token features summed up into one vector of fixed size."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batch_norm import BatchNorm1d
from model.fast import unit_length


def _random_centres(feature_size: int, count: int) -> Tensor:
    return torch.randn(feature_size, count) * (1 / math.sqrt(feature_size))


class NetVLAD(nn.Module):
    """Soft assignment of tokens to clusters and their residuals to the centres.

    Arandjelovic et al., "NetVLAD: CNN architecture for weakly supervised place recognition"
    (CVPR 2016), eq. 4, with ghost clusters (Zhong et al., "GhostVLAD", ACCV 2018): tokens may go
    to clusters that take no part in the output.

    Axes: B sets, T tokens, D feature size, K clusters, G ghost clusters.
    """

    def __init__(
        self,
        num_clusters: int,
        feature_size: int,
        ghost_clusters: int = 0,
        mask_padding: bool = False,
    ) -> None:
        super().__init__()
        self.num_clusters = num_clusters
        self.feature_size = feature_size
        self.mask_padding = mask_padding
        assigned = num_clusters + ghost_clusters
        self.clusters = nn.Parameter(_random_centres(feature_size, assigned))
        self.batch_norm = BatchNorm1d(assigned)
        self.clusters2 = nn.Parameter(_random_centres(feature_size, num_clusters).unsqueeze(0))

    @property
    def output_size(self) -> int:
        return self.num_clusters * self.feature_size

    def forward(self, tokens_BTD: Tensor, num_tokens_B: Tensor | None = None) -> Tensor:
        """Pool tokens (B, T, D) to (B, D * K), each row of length 1.

        Zero padding takes part in the assignment, as published; with `mask_padding` the tokens
        from `num_tokens_B` (B,) on are left out.
        """
        num_sets, num_tokens, feature_size = tokens_BTD.shape
        flat = tokens_BTD.reshape(-1, feature_size)  # (B T, D)
        assignment = F.softmax(self.batch_norm(flat @ self.clusters), dim=1)  # (B T, K + G)
        assignment = assignment[:, : self.num_clusters].unflatten(
            0, (num_sets, num_tokens)
        )  # (B, T, K)
        if self.mask_padding and num_tokens_B is not None:
            place_T = torch.arange(num_tokens, device=tokens_BTD.device)
            is_token_BT = place_T < num_tokens_B.view(-1, 1)
            assignment = assignment * is_token_BT.unsqueeze(2)
        mass_B1K = assignment.sum(dim=1, keepdim=True)
        vlad_BDK = tokens_BTD.transpose(1, 2) @ assignment - mass_B1K * self.clusters2
        vlad_BDK = unit_length(vlad_BDK, dim=1)
        return unit_length(vlad_BDK.flatten(1), dim=1)
