"""The folder of an index: what lies where, and how it changes so that a kill loses nothing.

    index.json              what the index is, which parts it has, which videos were removed
    model-<token>/          model.pth, the text encoder's files, the bank of training captions
    part-<token>/           videos added together: whole.packed, half.packed, videos.packed

Everything but `index.json` is written once, under a name of its own, and never changed. What counts
is what `index.json` names: it is replaced as the last step, and what it no longer names is removed
after that. One who has an index open keeps its files, whatever happens to their names.

A part holds its videos ordered by pattern: those with the same experts stand together, as a matrix
of the embeddings of just these experts beside one another. `whole` has them in float32, `half` in
float16 (divided by `scale`, a power of two, so that large values fit).

Axes: N videos, E embeddings of a video (its M experts, or 1 where these share one), D their sizes.
"""

import json
import logging
import math
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_loader.store.packed import Part as Array
from data_loader.store.packed import read_packed, write_packed
from misc.search.columns import TextColumn, text_parts
from model.similarity import VideoEmbeddings
from utils.errors import BadContent, UserError, short
from utils.files import (
    PATH_ERRORS,
    alone,
    exists,
    is_there,
    make_folder,
    read_json,
    reason,
    sync_folder,
    write_json,
)

_log = logging.getLogger(__name__)

FILE_NAME = "index.json"
FORMAT, VERSION = "index of videos", 1
_OURS = re.compile(r"(?:model|part)-[0-9a-f]{16}")
_ROWS_AT_ONCE = 4096


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

    def facts(self, row: int) -> VideoFacts:
        return VideoFacts.from_json(self._facts[row])


def _matrix(arrays: dict[str, np.ndarray], place: int) -> Tensor:
    return torch.from_numpy(arrays[f"group{place}"])


def patterns_of(availability_NM: np.ndarray) -> list[tuple[tuple[bool, ...], np.ndarray]]:
    """Return each pattern of experts with the videos that have it, in their order.

    The pattern of the most videos comes first.
    """
    patterns, which, counts = np.unique(
        availability_NM > 0, axis=0, return_inverse=True, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    return [
        (tuple(map(bool, patterns[at])), np.flatnonzero(which.reshape(-1) == at)) for at in order
    ]


# Writing -----------------------------------------------------------------------------------------


def write_part(
    folder: Path,
    shape: Shape,
    ids: Sequence[str],
    facts: Sequence[VideoFacts],
    availability_NM: np.ndarray,
    embed: Callable[[np.ndarray], VideoEmbeddings],
    hubness_of: Callable[[VideoEmbeddings], np.ndarray] | None,
) -> None:
    """Write the videos of a part; the arguments are in any order of the videos.

    Args:
        folder: a new one.
        shape: of the embeddings.
        ids: N ids.
        facts: N times what else is known.
        availability_NM: which experts the videos have.
        embed: embeds videos by their places, a few at a time; asked for each of them once.
        hubness_of: what is taken off the similarities of embedded videos, (n,); None: nothing.

    Raises:
        UserError: the folder cannot be written, or an embedding is not finite.
    """
    groups = patterns_of(availability_NM)
    if not shape.weighted and len(groups) > 1:
        # One matrix, as all embeddings count; what is missing is told of none of them.
        groups = [(tuple([True] * len(shape.experts)), np.arange(len(ids)))]
    make_folder(folder)
    offsets = np.zeros(len(ids), dtype=np.float32)

    def pieces(pattern: tuple[bool, ...], places: np.ndarray, first: int) -> Iterator[np.ndarray]:
        """Embed the videos of a pattern, a block at a time, and note what is taken off them."""
        columns = shape.columns(pattern)
        for start in range(0, len(places), _BLOCK):
            video = embed(places[start : start + _BLOCK])
            if hubness_of is not None:
                row = first + start
                offsets[row : row + len(video)] = hubness_of(video)
            yield _joined([video.embeddings[column] for column in columns], len(video))

    arrays: dict[str, Array] = {}
    described, first = [], 0
    for place, (pattern, places) in enumerate(groups):
        width = sum(shape.sizes[column] for column in shape.columns(pattern))
        arrays[f"group{place}"] = Array(
            np.dtype("<f4"),
            (len(places), width),
            partial(pieces, pattern, places, first),
        )
        described.append({"pattern": list(pattern), "first": first})
        first += len(places)
    write_packed(folder / "whole.packed", arrays, {"groups": described})
    _write_half(folder, shape)
    order = [int(place) for _, places in groups for place in places]
    times = [(facts[place].start, facts[place].end) for place in order]
    write_packed(
        folder / "videos.packed",
        text_parts("ids", (ids[place] for place in order))
        | text_parts("facts", (facts[place].as_json() for place in order))
        | {
            "hubness": Array.of(offsets),
            "times": Array.of(np.array(times, dtype=np.float64).reshape(-1, 2)),  # None is NaN
        },
        {},
    )
    sync_folder(folder)


_BLOCK = 256


def _joined(embeddings: list[Tensor], count: int) -> np.ndarray:
    if not embeddings:
        return np.zeros((count, 0), dtype=np.float32)
    joined = torch.cat(embeddings, dim=1).float().cpu()
    if not torch.isfinite(joined).all():
        raise UserError(
            "The model gives embeddings of videos that are not finite: its training has diverged."
        )
    return joined.numpy()


def _write_half(folder: Path, shape: Shape) -> None:
    """Write the float16 copies, from the mapped float32 ones."""
    whole = read_packed(folder / "whole.packed")
    arrays: dict[str, Array] = {}
    scales, norms = [], []
    for place, described in enumerate(whole.facts["groups"]):
        values = whole.arrays[f"group{place}"]
        widths = [shape.sizes[column] for column in shape.columns(described["pattern"])]
        largest, lengths = 0.0, np.zeros(len(widths))
        for block in _blocks(values):
            largest = max(largest, float(np.abs(block).max(initial=0.0)))
            cuts = np.split(block, np.cumsum(widths)[:-1], axis=1) if widths else []
            here = [np.linalg.norm(cut, axis=1).max(initial=0.0) for cut in cuts]
            lengths = np.maximum(lengths, here)
        scale = 2.0 ** math.ceil(math.log2(largest)) if largest > 1 else 1.0
        scales.append(scale)
        norms.append([float(length) for length in lengths])
        arrays[f"group{place}"] = Array(
            np.dtype("<f2"),
            values.shape,
            partial(_blocks, values, scale),
        )
    write_packed(folder / "half.packed", arrays, {"scales": scales, "norms": norms})


def _blocks(values: np.ndarray, scale: float = 1.0) -> Iterator[np.ndarray]:
    for start in range(0, len(values), _ROWS_AT_ONCE):
        yield values[start : start + _ROWS_AT_ONCE] / scale


# The folder --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manifest:
    """What `index.json` says.

    Attributes:
        name: of the experiment, or of the data set where nothing was trained.
        model: name of the folder of the model.
        fingerprint: of the model: what it embeds can be compared with nothing else.
        shape: of the embeddings.
        parts: names of the parts' folders, in their order.
        removed: rows (over all parts) that are no longer found.
        data_set: whose videos they are.
        video_folders: for each part, what the paths of its videos are relative to.
        extractors: expert -> what made its features, as `misc.extract_experts` records it.
        text: how a query is encoded, see `misc.search.queries`; None: nobody knows.
        model_kind: the experiment, or what searches without training.
        correction: how hubs are corrected, in words.
        hubness: the rule of the correction, see `model.hubness.Rule`; None for none.
        threshold: of a confident match; None where nothing was calibrated.
        calibration: what the threshold was chosen by, plain data.
        examples: captions.
        made_by: version and sources, plain data.
        approximate: of an approximate index beside the exact one, plain data; None for none.
    """

    name: str
    model: str
    fingerprint: str
    shape: Shape
    parts: tuple[str, ...]
    data_set: str
    video_folders: tuple[str | None, ...] = ()
    extractors: dict[str, Any] = field(default_factory=dict)
    removed: tuple[int, ...] = ()
    text: dict[str, Any] | None = None
    model_kind: str = ""
    correction: str = "none"
    hubness: dict[str, Any] | None = None
    threshold: float | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
    made_by: dict[str, Any] = field(default_factory=dict)
    approximate: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION} | asdict(self)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of an index.

        Raises:
            UserError: there is none, or it is of a later version or damaged.
        """
        path = folder / FILE_NAME
        if not exists(path):
            raise UserError(
                f"There is no index in {folder}: build one with `python3 -m misc.build_index RUN "
                f"--output {folder}`."
            )
        value = read_json(path, "index")
        if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
            raise UserError(f"{path} is no index of `misc.build_index`.")
        version = value.pop("version", None)
        if version != VERSION:
            raise UserError(
                f"The index {folder} is of version {short(version)}, this program reads "
                f"{VERSION}: build it anew with `python3 -m misc.build_index`."
            )
        try:
            shape = value.pop("shape")
            shape = Shape(tuple(shape["experts"]), tuple(shape["sizes"]), bool(shape["weighted"]))
            for key in ("parts", "removed", "examples", "video_folders"):
                value[key] = tuple(value.get(key, ()))
            found = cls(**value, shape=shape)
            names = [found.model, *found.parts]
            if not all(isinstance(name, str) and _OURS.fullmatch(name) for name in names):
                raise ValueError("a name leads elsewhere")
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"The index {folder} is damaged: its {FILE_NAME} makes no sense."
            ) from error
        return found


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
            except (BadContent, KeyError, TypeError, ValueError, *PATH_ERRORS) as error:
                why = reason(error) if isinstance(error, OSError) else str(error)
                raise UserError(
                    f"The index {folder} is damaged in {name} ({short(why, 120)}): build it anew "
                    "with `python3 -m misc.build_index`."
                ) from error
            self.parts.append(part)
            self.starts.append(self.starts[-1] + len(part.ids))

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
        return self.parts[part].facts(place)

    def video(self, rows: Tensor) -> VideoEmbeddings:
        """Return chosen rows as `model.similarity` takes them, in their order."""
        found, where = [], []
        for group in self.groups:
            inside = ((rows >= group.first) & (rows < group.first + len(group))).nonzero()[:, 0]
            if len(inside):
                found.append(group.embeddings(rows[inside] - group.first, self.manifest.shape))
                where.append(inside)
        return VideoEmbeddings.cat(found)[torch.cat(where).argsort()]


# Changing ----------------------------------------------------------------------------------------


class IndexChange:
    """A change of an index folder that counts as a whole or not at all.

    Attributes:
        folder: of the index.
        before: its manifest; None where there is none, or it does not matter.
    """

    def __init__(self, folder: Path, anew: bool = False) -> None:
        self.folder = folder
        is_kept = not anew and is_there(folder / FILE_NAME)
        self.before = Manifest.read(folder) if is_kept else None

    def new(self, kind: str) -> Path:
        """Return a new folder of the index for a "model" or a "part"."""
        return make_folder(self.folder / f"{kind}-{secrets.token_hex(8)}")

    def commit(self, manifest: Manifest) -> None:
        """Let the index be what a manifest says, and remove what it no longer names."""
        sync_folder(self.folder)
        write_json(self.folder / FILE_NAME, manifest.as_json())
        self.keep_only({manifest.model, *manifest.parts})

    def keep_only(self, names: set[str]) -> None:
        """Remove what belongs to no index any more."""
        for path in self.folder.iterdir():
            if _OURS.fullmatch(path.name) and path.name not in names and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)


_MARK = ".index-of-videos"


@contextmanager
def changing(folder: Path, anew: bool = False) -> Iterator[IndexChange]:
    """Change an index, or make a new one (`anew`), while no other process does.

    What was written goes again if anything goes wrong; what a killed process left goes with the
    next change.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    is_new = not is_there(folder)
    make_folder(folder)
    _refuse_other_contents(folder)
    try:
        with alone(folder, f"changing the index {folder}"):
            (folder / _MARK).touch()
            change = IndexChange(folder, anew)
            change.keep_only(_named(folder))
            try:
                yield change
            except BaseException:
                change.keep_only(_named(folder))
                if not is_there(folder / FILE_NAME):
                    (folder / _MARK).unlink(missing_ok=True)
                raise
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _named(folder: Path) -> set[str]:
    """Return the folders that the manifest names, also of an index that cannot be read."""
    told = read_json(folder / FILE_NAME, "index") if is_there(folder / FILE_NAME) else {}
    parts = told.get("parts")
    return {str(name) for name in (told.get("model"), *(parts if isinstance(parts, list) else ()))}


def _refuse_other_contents(folder: Path) -> None:
    """Insist that a folder is empty, or that an index was made, or begun, in it."""
    if is_there(folder / FILE_NAME):
        told = read_json(folder / FILE_NAME, "index")
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise UserError(f"{folder / FILE_NAME} is no index of `misc.build_index`.")
        return
    try:
        others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except PATH_ERRORS as error:
        raise UserError(f"Cannot use the folder {folder}: {reason(error)}.") from error
    if others and not is_there(folder / _MARK):
        raise UserError(
            f'The folder {folder} holds other files ("{short(others[0])}") and no index: name a '
            "new or an empty one with --output."
        )
