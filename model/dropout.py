"""Dropout without state: what is dropped depends on (seed, epoch, item) alone.

Whatever the batch, its order or the process, an item loses the same in the same epoch: a training
that goes on after a kill, one that walks a batch in parts, and several processes drop alike.

Axes: B items, D features, M experts.
"""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from model.similarity import PooledDropout

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as signed numbers of 64 bits, which wrap around
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
# Four draws of 16 bits lie in a hash: the probabilities are whole multiples of 2^-16.
_LEVELS, _DRAWS = 2**16, 4
_EXPERTS_STREAM, _FEATURES_STREAM = 101, 102


@dataclass(frozen=True)
class Dropout:
    """What a training drops.

    Attributes:
        features: probability that a pooled expert loses a feature.
        text: probability that a pooled caption loses a feature.
        experts: probability that a video loses an expert that it has, but never its last one.
        seed: of the run.
    """

    features: float = 0.0
    text: float = 0.0
    experts: float = 0.0
    seed: int = 0

    def __bool__(self) -> bool:
        return max(self.features, self.text, self.experts) > 0

    def availability(
        self, ind: dict[str, Tensor], items: Tensor, epoch: int | Tensor
    ) -> dict[str, Tensor]:
        """Take whole experts from videos: name -> (B,), 1 where the expert stays.

        Args:
            ind: name -> (B,), 1 where the expert is there.
            items: (B,) whole numbers that tell the videos apart.
            epoch: of the training.
        """
        if not self.experts:
            return ind
        names = sorted(ind)
        there_BM = torch.stack([ind[name] for name in names], dim=1)
        stays = keeps(self.seed, epoch, items, len(names), self.experts, _EXPERTS_STREAM)
        left_BM = there_BM * stays.to(there_BM)
        left_BM = torch.where(left_BM.any(dim=1, keepdim=True), left_BM, there_BM)
        return dict(zip(names, left_BM.unbind(dim=1), strict=True))

    def pooled(self, items: Tensor, epoch: int | Tensor) -> PooledDropout | None:
        """Return what takes features from the pooled experts and captions of some videos.

        Args:
            items: (B,) whole numbers that tell the videos apart; of captions, there may be several
                rows in a row for each video.
            epoch: of the training.
        """
        if not (self.features or self.text):
            return None

        def drop(name: str, x: Tensor) -> Tensor:
            share = self.text if name == "text" else self.features
            if not share or not len(x):
                return x
            rows = len(x) // len(items)
            numbers = items.to(x.device).repeat_interleave(rows) * rows
            numbers += torch.arange(rows, device=x.device).repeat(len(items))
            stream = _FEATURES_STREAM + zlib.crc32(name.encode())
            stays = keeps(self.seed, epoch, numbers, x.shape[1], share, stream)
            return x * stays.to(x.dtype) / (1 - share)

        return drop


def keeps(
    seed: int, epoch: int | Tensor, items: Tensor, count: int, share: float, stream: int
) -> Tensor:
    """Draw (B, count) bool, each False with the probability `share`, on the items' device.

    The hash is the finaliser of SplitMix64 (Steele, Lea and Flood 2014), as in
    `data_loader.batches`, of seed, epoch, stream, item and place, one after the other.
    """
    state = torch.zeros(1, dtype=torch.int64, device=items.device)
    for number in (seed, epoch, stream):
        if not isinstance(number, Tensor):
            number = torch.full_like(state, number)
        state = _mixed(state, number)
    state_B1 = _mixed(state, items.to(torch.int64)).unsqueeze(1)
    places = torch.arange(-(-count // _DRAWS), device=items.device)
    bits = _mixed(state_B1, places.unsqueeze(0))  # (B, a quarter of count)
    shifts = 16 * torch.arange(_DRAWS, device=items.device)
    draws = (bits.unsqueeze(2) >> shifts) & (_LEVELS - 1)
    return draws.flatten(1)[:, :count] >= round(share * _LEVELS)


def _mixed(state: Tensor, number: Tensor) -> Tensor:
    z = (state + _GOLDEN) ^ number
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, count: int) -> Tensor:
    """Shift to the right as a number without sign is shifted."""
    return (z >> count) & (2 ** (64 - count) - 1)
