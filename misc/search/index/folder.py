"""An index as it lies in a folder, mapped."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from misc.search.index.manifest import Manifest, anew
from misc.search.index.parts import Group, VideoFacts, VideoPart
from model.similarity import VideoEmbeddings
from utils.errors import BadContent, UserError, short
from utils.files import PATH_ERRORS, reason


class Index:
    """An index as it lies in a folder, mapped.

    Attributes:
        folder: where it lies.
        manifest: what it is.
        parts: its videos.
        starts: (parts + 1,) the row of each part's first video.

    Args:
        folder: where it lies.
        manifest: what it will be; None: what it is.

    Raises:
        UserError: there is none, or it is damaged.
    """

    def __init__(self, folder: Path, manifest: Manifest | None = None) -> None:
        self.folder, self.manifest = folder, manifest or Manifest.read(folder)
        self.parts: list[VideoPart] = []
        self.starts = [0]
        for name in self.manifest.parts:
            try:
                part = VideoPart(folder / name, self.starts[-1], self.manifest.shape)
            except (BadContent, LookupError, TypeError, ValueError, *PATH_ERRORS) as error:
                why = reason(error) if isinstance(error, OSError) else str(error)
                raise UserError(
                    f"The index {folder} is damaged in {name} ({short(why, 120)}): {anew(folder)}."
                ) from error
            self.parts.append(part)
            self.starts.append(self.starts[-1] + len(part.ids))
        if max(self.manifest.removed, default=-1) >= len(self):
            raise UserError(
                f"The index {folder} is damaged: it has fewer videos than it says; {anew(folder)}."
            )

    def __len__(self) -> int:
        """Number of rows, removed ones included."""
        return self.starts[-1]

    @property
    def groups(self) -> Iterator[Group]:
        """All groups of all parts, in the order of the rows."""
        return (group for part in self.parts for group in part.groups)

    @cached_property
    def is_found(self) -> Tensor:
        """(N,) bool, the rows that were not removed."""
        found = torch.ones(len(self), dtype=torch.bool)
        found[list(self.manifest.removed)] = False
        return found

    @cached_property
    def offsets(self) -> Tensor:
        """(N,) float32, what is taken off each video's similarities."""
        return torch.cat([torch.zeros(0), *(torch.from_numpy(p.offsets) for p in self.parts)])

    @cached_property
    def times(self) -> np.ndarray:
        """(N, 2) start and end of segments in seconds, NaN for whole videos."""
        return np.concatenate([np.zeros((0, 2)), *(part.times for part in self.parts)])

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Id -> row, of the videos that were not removed."""
        ids = [key for part in self.parts for key in part.ids.all()]
        found = self.is_found.tolist()
        return {key: row for row, key in enumerate(ids) if found[row]}

    def place_of(self, row: int) -> tuple[int, int]:
        """Return the number of the part that a row lies in, and its place there."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return part, row - self.starts[part]

    def id_of(self, row: int) -> str:
        part, place = self.place_of(row)
        return self.parts[part].ids[place]

    def facts_of(self, row: int) -> VideoFacts:
        part, place = self.place_of(row)
        try:
            return self.parts[part].facts(place)
        except (ValueError, TypeError) as error:
            name = f"{self.folder} is damaged in {self.manifest.parts[part]}"
            raise UserError(f"The index {name}: {anew(self.folder)}.") from error

    def video(self, rows: Tensor) -> VideoEmbeddings:
        """Return chosen rows as `model.similarity` takes them, in their order."""
        found, where = [], []
        for group in self.groups:
            inside = ((rows >= group.first) & (rows < group.first + len(group))).nonzero()[:, 0]
            if len(inside):
                found.append(group.embeddings(rows[inside] - group.first, self.manifest.shape))
                where.append(inside)
        return VideoEmbeddings.cat(found)[torch.cat(where).argsort()]
