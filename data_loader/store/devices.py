"""Where tensors lie: on the host, or on the device that computes."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

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
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(device, non_blocking=True)


def numbered(device: str | torch.device) -> torch.device:
    """Return a device as tensors name it that lie there: "cuda" alone is the current GPU."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


Item = TypeVar("Item")

_END = object()


def prefetch(items: Iterator[Item], ahead: int = 2) -> Iterator[Item]:
    """Give the same items in the same order, made up to `ahead` before they are asked for.

    What goes wrong in the making is raised here, in its place. Where the items are not asked for to
    their end, the thread ends too.
    """
    ready: queue.Queue = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(outcome: tuple[object, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(outcome, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as error:  # noqa: BLE001 - all are raised where the items are used
            put((_END, error))
        else:
            put((_END, None))

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
