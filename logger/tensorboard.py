"""Curves, histograms and texts of a run for TensorBoard."""

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import make_folder, reason

_log = logging.getLogger(__name__)


class TensorBoardWriter:
    """Writes into TensorBoard's event files; does nothing unless `enabled`.

    Args:
        folder: where the event files go; made if it does not exist.
        enabled: without it nothing is written, and TensorBoard need not be installed.
        purge_step: when a training resumes, its first step: TensorBoard then hides what the
            interrupted run wrote from there on.

    Raises:
        UserError: TensorBoard is not installed, or the folder cannot be written.
    """

    def __init__(
        self, folder: str | Path, enabled: bool = True, purge_step: int | None = None
    ) -> None:
        self._writer = None
        if not enabled:
            return
        try:
            # Importing it takes seconds: only who writes curves waits for it.
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                f"TensorBoard cannot be used ({error}): pip install tensorboard, or set "
                "trainer.tensorboard to false."
            ) from error
        try:
            self._writer = SummaryWriter(str(make_folder(folder)), purge_step=purge_step)
        except OSError as error:
            raise UserError(f"Cannot write curves to {folder}: {reason(error)}.") from error

    def scalars(self, prefix: str, values: Mapping[str, float], step: int) -> None:
        """Add one point to the curve `prefix/name` (`name` without a prefix) of each value."""
        for name, value in values.items():
            if self._writer is not None:
                curve = f"{prefix}/{name}" if prefix else name
                self._try(self._writer.add_scalar, curve, value, step)

    def histogram(self, name: str, values: Sequence[float], step: int) -> None:
        """Add how values are spread at one step; without values nothing is added."""
        if self._writer is not None and len(values):
            self._try(self._writer.add_histogram, name, np.asarray(values, dtype=float), step)

    def text(self, name: str, markdown: str, step: int) -> None:
        """Add a text at one step; TensorBoard shows it as Markdown and lets no HTML through."""
        if self._writer is not None:
            self._try(self._writer.add_text, name, markdown, step)

    def picture(self, name: str, jpeg: bytes, step: int) -> None:
        """Add a picture at one step, as it is."""
        if self._writer is not None:
            self._try(self._add_picture, name, jpeg, step)

    def _add_picture(self, name: str, jpeg: bytes, step: int) -> None:
        from PIL import Image
        from torch.utils.tensorboard.summary import Summary

        assert self._writer is not None
        with Image.open(io.BytesIO(jpeg)) as image:
            width, height = image.size
        image_of = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=jpeg
        )
        # The writer's own `add_image` takes pixels, and makes a PNG of them.
        self._writer._get_file_writer().add_summary(
            Summary(value=[Summary.Value(tag=name, image=image_of)]), step
        )

    def hyperparameters(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Add a line to the table of hyperparameters, with what came of them."""
        if self._writer is not None:
            self._try(self._add_hyperparameters, values, metrics)

    def _add_hyperparameters(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import hparams

        assert self._writer is not None
        file = self._writer._get_file_writer()
        for summary in hparams(dict(values), dict(metrics)):
            file.add_summary(summary)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value)

    @property
    def is_enabled(self) -> bool:
        """Whether anything is written: what costs time to make can be left out."""
        return self._writer is not None

    def close(self) -> None:
        """Write what is still waiting, and stop; closing twice does nothing."""
        if self._writer is not None:
            self._try(self._writer.close)
        self._writer = None

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _try(self, write: Callable[..., None], *values: Any) -> None:
        try:
            write(*values)
        except OSError as error:
            # Curves can be missed, a training cannot.
            self._writer = None
            _log.warning("The TensorBoard curves end here: %s.", reason(error))
