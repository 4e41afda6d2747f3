"""Checkpoints written beside a training on a GPU, where an epoch takes less time than the disk."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.checkpoints.checkpoint import save_checkpoint


@dataclass(frozen=True)
class _Job:
    path: Path
    content: Mapping[str, Any]
    then: Sequence[Callable[[], None]]


class CheckpointWriter:
    """Writes the checkpoints of a training one after the other.

    On a GPU the state is copied to the host, and a thread writes it while the training goes on. One
    more may wait for that thread; a newer one of the same name takes its place, so that a model
    which is the best for an epoch only is not written. On the CPU, where a copy would cost the
    memory of a second training, they are written at once.

    Attributes:
        seconds: for how long the training has stood still for its checkpoints so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._waiting: _Job | None = None
        self._error: BaseException | None = None

    def write(
        self,
        path: Path,
        state: Callable[[], Mapping[str, Any]],
        then: Sequence[Callable[[], None]] = (),
    ) -> None:
        """Write what `state` gives; `then` are called when it is on the disk.

        Raises:
            UserError: this checkpoint, or an earlier one, could not be written.
        """
        started = time.perf_counter()
        if self._device.type != "cuda":
            _write(_Job(path, state(), then))
        else:
            self._make_room(path)
            job = _Job(path, _on_host(state(), self._device), then)
            with self._lock:
                self._waiting = job
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="checkpoints")
                    self._thread.start()
        self.seconds += time.perf_counter() - started

    def finish(self) -> None:
        """Wait until all is on the disk.

        Raises:
            UserError: a checkpoint could not be written.
        """
        started = time.perf_counter()
        self._join()
        self.seconds += time.perf_counter() - started

    def _make_room(self, path: Path) -> None:
        """See to it that no checkpoint waits: it is outdated, or gets written first."""
        with self._lock:
            if self._waiting and self._waiting.path == path:
                self._waiting = None
            is_full = self._waiting is not None
        if is_full or self._error:
            self._join()

    def _join(self) -> None:
        thread = self._thread
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        while True:
            with self._lock:
                job, self._waiting = self._waiting, None
                if job is None or self._error:
                    self._thread = None
                    return
            try:
                _write(job)
            except BaseException as error:  # noqa: BLE001 - raised where the training waits for it
                self._error = error


def _write(job: _Job) -> None:
    save_checkpoint(job.path, job.content)
    for follow in job.then:
        follow()


def _on_host(content: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Copy a state that lies on a GPU, as it goes on changing."""
    copied = {key: _copy(value) for key, value in content.items()}
    torch.cuda.synchronize(device)  # the copies above go on by themselves, all at once
    return copied


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        is_here = value.device.type == "cpu"
        return value.clone() if is_here else value.to("cpu", non_blocking=True)
    if isinstance(value, Mapping):
        return {key: _copy(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(part) for part in value)
    return value
