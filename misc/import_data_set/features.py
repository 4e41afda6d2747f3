"""Features in any layout that is read: what they hold, and one file of them under other ids."""

import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_loader.formats.apart import apart, tell
from data_loader.formats.layouts import files_of, is_matrix_folder
from data_loader.formats.read import feature_tables
from data_loader.formats.tables import FeatureTable, is_mapped
from data_loader.store.packed import offsets_of
from data_loader.store.packing import all_finite, average, rows_of, size_of
from utils.errors import UserError, did_you_mean, short
from utils.files import files_below, is_there, make_folder, read_json, replacing

# Of a folder with one file for each video, or of what is compressed or text, all is held in memory
# each time that it is packed: larger ones are put together once.
_MOST_HELD = 1 << 30


def maximum(array: np.ndarray) -> np.ndarray:
    """Return the maximum of each feature over the tokens (T, D) as one vector (1, D)."""
    return array.max(axis=0, keepdims=True) if len(array) > 1 else array


# How tokens become one vector.
AGGREGATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"avg": average, "max": maximum}


@dataclass(frozen=True)
class Source:
    """One expert's features as they lie.

    Attributes:
        name: of the expert.
        path: the file or folder.
        ids: the videos, as the file names them.
        size: length of a vector.
        is_variable: whether a video has a varying number of vectors (tokens).
        lengths: (videos that have any,) number of vectors of each; None where each has one.
        missing: the ids that have no vector.
        aggregate: how tokens become one vector ("avg", "max"), if they do.
        held: bytes of memory that reading all of it at once takes.
        is_half: whether all values are float16.
    """

    name: str
    path: Path
    ids: list[str]
    size: int
    is_variable: bool
    lengths: np.ndarray | None
    missing: frozenset[str] = frozenset()
    aggregate: str | None = None
    held: int = 0
    is_half: bool = False

    @property
    def files(self) -> list[Path]:
        """All files that the features lie in."""
        return _files(self.path)

    def entry(self, base: Path) -> dict[str, Any] | None:
        """Return the expert's entry of a `dataset.json` in the folder `base`.

        None where the file cannot be used as it lies: it is to be aggregated, or too large to hold.
        """
        if self.aggregate or self.held > _MOST_HELD:
            return None
        path, base = self.path.resolve(), base.resolve()
        inside = path.is_relative_to(base)
        return self.entry_of(str(path.relative_to(base) if inside else path))

    def entry_of(self, file: str) -> dict[str, Any]:
        """Return the entry of a `dataset.json` for these features in a file of that name."""
        varies = {"variable_length": True} if self.is_variable else {}
        return {"file": file, "size": self.size, **varies, **_maker(self.path)}

    def write(self, path: Path, ids: Mapping[str, str]) -> None:
        """Write one file of features (`.npz`: ids, feats, offsets), with other names for videos.

        Values that are all float16 stay so, others become float32.

        Args:
            path: the file.
            ids: an id as the file names it -> the id to write; others are left out.

        Raises:
            UserError: the source cannot be read any more, the file cannot be written, or two videos
                would have one id.
        """
        chosen = {key: ids[key] for key in self.ids if key in ids and key not in self.missing}
        if not chosen:
            raise UserError(f'No video of {self.path} is wanted for the expert "{self.name}".')
        if len(set(chosen.values())) < len(chosen):
            twice = Counter(chosen.values()).most_common(1)[0][0]
            raise UserError(
                f'Two videos of {self.path} would be called "{short(twice)}": give them ids that '
                "differ."
            )
        make_folder(path.parent)
        with replacing(path) as handle:
            apart([self.path], lambda: self._write(handle, chosen), (handle.name,))

    def _write(self, handle: IO[bytes], ids: Mapping[str, str]) -> None:
        """Write the archive; all values go by."""
        present = [key for key in self.ids if key not in self.missing]
        lengths = [1] * len(present) if self.lengths is None else self.lengths.tolist()
        counts = {k: n for k, n in zip(present, lengths, strict=True) if k in ids}
        dtype = np.dtype("<f2" if self.is_half else "<f4")
        done, total = 0, sum(counts.values())
        row_bytes = self.size * dtype.itemsize
        with zipfile.ZipFile(handle, "w") as archive:
            with archive.open("feats.npy", "w", force_zip64=True) as member:
                head = {"descr": dtype.str, "fortran_order": False}
                shape = {"shape": (total, self.size)}
                np.lib.format.write_array_header_1_0(member, {**head, **shape})
                for key, rows in self._rows():
                    if key in counts and len(rows) == counts[key] and rows.size:
                        member.write(np.ascontiguousarray(rows, dtype=dtype).data.cast("B"))
                        done += len(rows)
                        tell(done * row_bytes, total * row_bytes)
            if done != total:
                raise UserError(f"{self.path} has changed while it was imported.")
            arrays = {"ids": np.array([ids[key] for key in counts])}
            if self.is_variable:
                arrays["offsets"] = offsets_of([*counts.values()])
            for name, values in arrays.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)

    def _rows(self) -> Iterator[tuple[str, np.ndarray]]:
        """Give each video's vectors, (T, D), in a limited process."""
        aggregate = AGGREGATES[self.aggregate] if self.aggregate else None
        for table in feature_tables(self.path):
            for key, rows in _rows_of(table):
                yield key, aggregate(rows) if aggregate and rows.size else rows


def find_features(spec: str, aggregate: str | None = None) -> Source:
    """Look at the features of an expert, given as `name=path`.

    Args:
        spec: the expert's name and its file or folder.
        aggregate: how a video's tokens become one vector ("avg", "max"), if they shall.

    Raises:
        UserError: the spec has no name or no path, or what lies there is no features.
    """
    name, equals, place = spec.partition("=")
    if not equals or not name or not place:
        raise UserError(
            f'"{short(spec)}" does not say which features are meant: write NAME=PATH, such as '
            "clip=features/clip.h5."
        )
    if aggregate is not None and aggregate not in AGGREGATES:
        raise UserError(
            f'"{short(aggregate)}" is no way to make one vector of many'
            f"{did_you_mean(aggregate, AGGREGATES)}: use {' or '.join(AGGREGATES)}."
        )
    path = Path(place)
    if not is_there(path):
        raise UserError(f'There are no features "{name}": {path} does not exist.')
    counts, size, held, is_half = apart([path], lambda: _look(name, path))
    lengths = np.array([count for count in counts.values() if count])
    several = bool((lengths > 1).any())
    varies = several and aggregate is None
    is_half = is_half and not (several and aggregate == "avg")
    missing = frozenset(key for key, count in counts.items() if not count)
    found = lengths if varies else None
    return Source(name, path, list(counts), size, varies, found, missing, aggregate, held, is_half)


def _maker(path: Path) -> dict[str, Any]:
    """Return what a record beside features says of what made them, nothing where there is none."""
    record = path.with_name(f"{path.name}.json")
    if not is_there(record, Path.is_file):
        return {}
    found = read_json(record, "record of features")
    maker = found.get("extractor") if isinstance(found, dict) else None
    return {"extractor": maker} if isinstance(maker, dict) else {}


def _files(path: Path) -> list[Path]:
    return list(files_below(path) if path.is_dir() else files_of(path))


def _look(name: str, path: Path) -> tuple[dict[str, int], int, int, bool]:
    """Return the number of vectors of each video, their size, `Source.held` and `is_half`."""
    counts: dict[str, int] = {}
    size = held = read = total = 0
    is_half = True
    # Each mapping holds a file open.
    may_be_mapped = is_there(path, Path.is_file) or is_there(path, is_matrix_folder)
    for table in feature_tables(path):
        for key, rows in _rows_of(table):
            counts[key] = len(rows) if rows.size else 0
            held += 0 if may_be_mapped and is_mapped(rows) else rows.nbytes
            read += rows.nbytes
            if not rows.size:
                continue
            size = size_of(key, rows, size or None, f'expert "{name}"', path)
            is_half = is_half and rows.dtype.newbyteorder("<") == np.float16
            if not all_finite(rows):
                raise UserError(
                    f'The features "{name}" have a non-finite value for the video "{short(key)}" '
                    f"in {path}: make them again, or mark the video as missing with a bare NaN."
                )
        total = total or sum(f.stat().st_size for f in _files(path))
        # Of what is compressed or text the bytes in the file are others than those of its values.
        tell(max(0, min(read, total - 1)), total)
    tell(total, total)
    if not size:
        raise UserError(f'The features "{name}" in {path} hold no video.')
    return counts, size, held, is_half


def _rows_of(table: FeatureTable) -> Iterator[tuple[str, np.ndarray]]:
    return ((key, rows_of(array)) for key, array in table.items())
