"""From the vectors of a caption's tokens to those that are kept. B captions, T tokens, D size."""

from torch import Tensor
from torch.nn import functional

POOLINGS = ("tokens", "mean", "max")


def pool(x_BTD: Tensor, keep_BT: Tensor, pooling: str, normalise: bool = False) -> Tensor:
    """Return the kept tokens' vectors under one another, or one vector for each caption.

    Args:
        x_BTD: vectors of all tokens.
        keep_BT: bool, the tokens that count; at least one of each caption.
        pooling: "tokens": (kept tokens, D), caption after caption; "mean" or "max" over the kept
            tokens of a caption: (B, D).
        normalise: scale every vector to length 1.
    """
    if pooling == "tokens":
        rows = x_BTD[keep_BT]
    elif pooling == "mean":
        weights_BT1 = keep_BT.unsqueeze(-1).to(x_BTD.dtype)
        rows = (x_BTD * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)
    else:
        rows = x_BTD.masked_fill(~keep_BT.unsqueeze(-1), float("-inf")).amax(dim=1)
    return functional.normalize(rows, dim=-1) if normalise else rows
