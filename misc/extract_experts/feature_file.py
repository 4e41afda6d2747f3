"""One expert's features of a data set: a file that numpy reads, and what made them beside it."""

import filecmp
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_loader.formats.npy import read_npz
from data_loader.formats.read import errors_of
from data_loader.store.packed import offsets_of
from utils.errors import BadContent, UserError
from utils.files import (
    is_there,
    make_folder,
    remove_abandoned,
    replacing,
    sync_folder,
    temporary_name,
)

FEATURES = "experts"
_FEATS, _IDS, _OFFSETS = "feats", "ids", "offsets"


def name_of(expert: str) -> str:
    """Return the file of an expert, as seen from the data set's folder."""
    return f"{FEATURES}/{expert}.npz"


class FeatureFile:
    """The features of an expert as they lie there; one that is damaged or missing has none.

    Args:
        folder: of the data set.
        expert: its name.

    Attributes:
        counts: item -> number of its vectors, of the items that have any.
    """

    def __init__(self, folder: Path, expert: str) -> None:
        self.counts: dict[str, int] = {}
        self._starts: dict[str, int] = {}
        self._values = np.empty((0, 0), "<f4")
        path = folder / name_of(expert)
        if not is_there(path, Path.is_file):
            return
        try:
            with errors_of(path, "features"):
                found = read_npz(path, {_FEATS: True, _IDS: True, _OFFSETS: False})
                ids, values = found[_IDS].tolist(), found[_FEATS]
                bounds = found.get(_OFFSETS, np.arange(len(ids) + 1))
                if values.ndim != 2 or values.dtype != np.dtype("<f4"):
                    raise BadContent("it holds no vectors of float32")
                if len(bounds) != len(ids) + 1 or (ids and bounds[-1] != len(values)):
                    raise BadContent("its parts are of different lengths")
        except UserError:
            return
        self._values = values
        self._starts = dict(zip(ids, bounds[:-1].tolist(), strict=True))
        self.counts = dict(zip(ids, np.diff(bounds).tolist(), strict=True))

    def rows(self, item: str) -> np.ndarray:
        """Return the vectors of an item, (m, D); none where it is not known."""
        start = self._starts.get(item, 0)
        return self._values[start : start + self.counts.get(item, 0)]

    def check(self, items: Iterable[str]) -> int:
        """Return a checksum of the vectors of some items."""
        return checksum(self.rows(item) for item in items)


def checksum(arrays: Iterable[np.ndarray]) -> int:
    """Return the checksum of the values of arrays, one after the other."""
    check = 0
    for array in arrays:
        check = zlib.crc32(np.ascontiguousarray(array, "<f4").tobytes(), check)
    return check


def write_features_file(
    folder: Path,
    expert: str,
    counts: Mapping[str, int],
    size: int,
    is_variable: bool,
    values: Iterable[np.ndarray],
    facts: dict[str, Any],
) -> str:
    """Write a file of features and its record; return its name, empty where there is nothing.

    Args:
        folder: of the data set.
        expert: its name.
        counts: item -> number of its vectors.
        size: of a vector.
        is_variable: whether an item has a number of vectors, not one.
        values: the vectors, in the order of the items.
        facts: what made them.
    """
    name = name_of(expert)
    path = folder / name
    if not counts or not size:
        for old in (path, folder / f"{name}.json"):
            old.unlink(missing_ok=True)
        return ""

    def write(handle: IO[bytes]) -> None:
        with zipfile.ZipFile(handle, "w") as archive:
            with archive.open(f"{_FEATS}.npy", "w", force_zip64=True) as member:
                shape = (sum(counts.values()), size)
                head = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, head)
                for rows in values:
                    member.write(rows.tobytes())
            arrays = {_IDS: np.array(list(counts))}
            if is_variable:
                arrays[_OFFSETS] = offsets_of([*counts.values()])
            for key, array in arrays.items():
                with archive.open(f"{key}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    make_folder(path.parent)
    write_if_changed(path, write)
    write_record(folder, expert, facts)
    return name


def write_record(folder: Path, expert: str, facts: dict[str, Any]) -> None:
    """Write down what made an expert's features."""
    write_if_changed(folder / f"{name_of(expert)}.json", as_json({"extractor": facts}))


def as_json(value: Any) -> Any:
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    return lambda handle: handle.write(text.encode())


def write_if_changed(path: Path, write: Any) -> None:
    """Write a file beside its place, and let it take that place only if it differs."""
    remove_abandoned(path.parent, age=0)
    fresh = temporary_name(path)
    try:
        with replacing(fresh) as handle:
            write(handle)
        if path.is_file() and filecmp.cmp(fresh, path, shallow=False):
            return
        os.replace(fresh, path)  # noqa: PTH105
        sync_folder(path.parent)
    finally:
        fresh.unlink(missing_ok=True)
