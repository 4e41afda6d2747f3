"""Videos that were added together, mapped: embeddings by pattern of experts, and what is known."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_loader.store.packed import read_packed
from misc.search.index.columns import TextColumn
from model.similarity import VideoEmbeddings
from utils.errors import BadContent


@dataclass(frozen=True)
class Shape:
    """What the embeddings of an index look like.

    Attributes:
        experts: M names, in the model's order.
        sizes: E sizes.
        weighted: whether captions weight the experts that a video has, among themselves; without,
            all embeddings of a video count, those of missing experts too.
    """

    experts: tuple[str, ...]
    sizes: tuple[int, ...]
    weighted: bool

    @property
    def is_joint(self) -> bool:
        """Whether all experts share one embedding."""
        return len(self.sizes) != len(self.experts)

    def columns(self, pattern: Sequence[bool]) -> list[int]:
        """Return which embeddings are stored of videos that have the experts of a pattern."""
        if not self.weighted:
            return list(range(len(self.sizes)))
        return [place for place, is_there in enumerate(pattern) if is_there]


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a video besides its embeddings; all of it may be missing.

    Attributes:
        path: of its file, relative to the index's folder of videos.
        parent, start, end: of a segment, in seconds.
        words: (expert, text, start or None, end or None).
        captions: of the data set.
    """

    path: str | None = None
    parent: str | None = None
    start: float | None = None
    end: float | None = None
    words: Sequence[Sequence[Any]] = ()
    captions: Sequence[str] = ()

    def as_json(self) -> str:
        told = {key: value for key, value in vars(self).items() if value not in (None, (), [])}
        return json.dumps(told)

    @classmethod
    def from_json(cls, text: str) -> "VideoFacts":
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Group:
    """Videos of a part that have the same experts.

    Attributes:
        first: the row of the first one, counted over all parts.
        pattern: (M,) which experts they have.
        columns: which embeddings are stored.
        whole: (n, W) float32, the embeddings beside one another.
        half: (n, W) float16, the same divided by `scale`.
        scale: a power of two.
        norms: for each column, the largest length of one of these embeddings.
    """

    first: int
    pattern: tuple[bool, ...]
    columns: list[int]
    whole: Tensor
    half: Tensor
    scale: float
    norms: list[float]

    def __len__(self) -> int:
        return len(self.whole)

    def embeddings(self, rows: Tensor | slice, shape: Shape) -> VideoEmbeddings:
        """Return chosen videos, by their place in the group, as `model.similarity` takes them."""
        chosen = self.whole[rows]
        parts = [chosen.new_zeros(len(chosen), size) for size in shape.sizes]
        widths = [shape.sizes[column] for column in self.columns]
        for column, values in zip(self.columns, chosen.split(widths, dim=1), strict=True):
            parts[column] = values
        availability = torch.tensor(self.pattern, dtype=torch.float32).expand(len(chosen), -1)
        return VideoEmbeddings(tuple(parts), availability)


class VideoPart:
    """Videos that were added together, mapped.

    Args:
        folder: of the part.
        first: the row of its first video, counted over all parts.
        shape: of the embeddings.

    Raises:
        BadContent, OSError: a file of it is damaged or missing.
    """

    def __init__(self, folder: Path, first: int, shape: Shape) -> None:
        whole, half = read_packed(folder / "whole.packed"), read_packed(folder / "half.packed")
        videos = read_packed(folder / "videos.packed").arrays
        self.ids, self._facts = TextColumn(videos, "ids"), TextColumn(videos, "facts")
        self.offsets, self.times = videos["hubness"], videos["times"]
        self.groups = [
            Group(
                first + described["first"],
                tuple(described["pattern"]),
                shape.columns(described["pattern"]),
                _matrix(whole.arrays, place),
                _matrix(half.arrays, place),
                scale,
                norms,
            )
            for place, (described, scale, norms) in enumerate(
                zip(whole.facts["groups"], half.facts["scales"], half.facts["norms"], strict=True)
            )
        ]
        if sum(map(len, self.groups)) != len(self.ids):
            raise BadContent("it has another number of videos than of embeddings")
        for group in self.groups:
            width = sum(shape.sizes[column] for column in group.columns)
            if not group.whole.shape == group.half.shape == (len(group), width):
                raise BadContent("its embeddings have other sizes than the index says")

    def facts(self, row: int) -> VideoFacts:
        return VideoFacts.from_json(self._facts[row])


def _matrix(arrays: dict[str, np.ndarray], place: int) -> Tensor:
    return torch.from_numpy(arrays[f"group{place}"])
