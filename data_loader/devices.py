"""Where tensors lie: on the host, or on the device that computes."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

# Features may take this share of a device's free memory; the rest is for model and activations.
RESIDENT_SHARE = 0.5


def fits_on(device: torch.device, tensors: Iterable[Tensor]) -> bool:
    """Whether a GPU has room for all of some tensors beside a model; never for the CPU."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return sum(values.nbytes for values in tensors) <= RESIDENT_SHARE * free


def send(values: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """Bring host values to a device without waiting until they are there.

    What the device computes with them comes after them in any case; the host goes on at once.
    """
    tensor = torch.as_tensor(values)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
