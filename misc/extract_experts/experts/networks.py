"""Torch networks over frames: many chunks in one batch, and what their weights are."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from misc.extract_experts.expert import Chunk, Settings

# Legend: N frames, H height, W width, D size of a vector.


@dataclass(frozen=True)
class Pixels:
    """Turns frames into what a network reads.

    Attributes:
        size: pixels of a side of the square that it reads.
        mean, std: of each colour, 0 to 1.
    """

    size: int
    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, frames: np.ndarray, settings: Settings) -> Tensor:
        """Turn (N, H, W, 3) uint8 into (N, 3, size, size), normalised, on the device."""
        pixels = torch.from_numpy(frames).to(settings.device).permute(0, 3, 1, 2).float()
        side = (self.size, self.size)
        if pixels.shape[2:] != side:
            pixels = nn.functional.interpolate(pixels, side, mode="bicubic", antialias=True)
            pixels = pixels.clamp(0, 255)
        mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in self.colours)
        return ((pixels - 255 * mean) / (255 * std)).to(precision(settings))

    @property
    def colours(self) -> tuple[list[float], list[float]]:
        return list(self.mean), list(self.std)


def precision(settings: Settings) -> torch.dtype:
    """Return the type in which networks compute."""
    return torch.float16 if settings.half else torch.float32


def ready(network: nn.Module, settings: Settings) -> nn.Module:
    """Return the network as it is run."""
    return network.eval().requires_grad_(False).to(settings.device, precision(settings))


def together(
    chunks: Sequence[Chunk], prepare: Callable[[Chunk], Tensor], network: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Run a network once over what is prepared of all chunks; returns what becomes of each."""
    prepared = [prepare(chunk) for chunk in chunks]
    with torch.inference_mode():
        result = network(torch.cat(prepared))
    return list(result.split([len(rows) for rows in prepared]))


def vectors(values: Tensor) -> np.ndarray:
    """Return a network's result as (N, D) float32."""
    return values.float().cpu().numpy()


def weights_hash(network: nn.Module) -> str:
    """Return the sha256 of all weights, in whatever files they came."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
