"""Features of an expert, in whatever layout: found, and written as our loader reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.formats.read import read_feature_file
from utils.errors import UserError
from utils.files import replacing


@dataclass(frozen=True)
class Source:
    """The features of an expert.

    Attributes:
        name: of the expert.
        path: the file or folder.
        ids: videos, as written there.
        size: length of a vector.
        is_variable: whether a video has a varying number of vectors.
        lengths: (videos,) number of vectors of each; None where it is one.
        missing: ids whose features are marked as missing.
        aggregate: how several vectors become one ("avg", "max"), if they do.
    """

    name: str
    path: Path
    ids: list[str]
    size: int
    is_variable: bool
    lengths: np.ndarray | None
    missing: frozenset[str] = frozenset()
    aggregate: str | None = None

    @property
    def files(self) -> list[Path]:
        """All files that the features lie in."""
        return sorted(self.path.rglob("*.npy")) if self.path.is_dir() else [self.path]

    def entry(self, base: Path) -> dict[str, Any] | None:
        """Return the entry of `dataset.json` in `base` for the file as it lies.

        None where the file must be written anew for our loader.
        """
        return None if self.aggregate else self.entry_of(str(self.path.resolve()))

    def entry_of(self, file: str) -> dict[str, Any]:
        """Return the entry of `dataset.json` for these features in a file of that name."""
        varies = {"variable_length": True} if self.is_variable else {}
        return {"file": file, "size": self.size, **varies}

    def write(self, path: Path, ids: Mapping[str, str]) -> None:
        """Write the features of some videos, under other ids, as an `.npz` our loader reads.

        Args:
            path: the file.
            ids: id as in the source -> id to write; the others are left out.
        """
        table = read_feature_file(self.path)
        rows = [np.atleast_2d(np.asarray(table[old])) for old in ids]
        if self.aggregate:
            reduce = np.mean if self.aggregate == "avg" else np.max
            rows = [reduce(row, axis=0, keepdims=True) for row in rows]
        arrays: dict[str, Any] = {
            "ids": np.array(list(ids.values())),
            "feats": np.concatenate(rows),
        }
        if self.is_variable:
            arrays["offsets"] = np.cumsum([0, *map(len, rows)])
        with replacing(path) as handle:
            np.savez(handle, **arrays)


def find_features(spec: str, aggregate: str | None = None) -> Source:
    """Find the features that `name=path` names.

    Raises:
        UserError: there are none, or they cannot be used.
    """
    name, _, path = spec.partition("=")
    table = read_feature_file(path)
    rows = {key: np.atleast_2d(v) for key, v in table.items() if v is not None and v.size}
    if not rows:
        raise UserError(f"The features {path} hold no video.")
    lengths = np.array([len(row) for row in rows.values()])
    varies = bool((lengths > 1).any()) and not aggregate
    size = next(iter(rows.values())).shape[1]
    missing = frozenset(table.keys() - rows.keys())
    found = lengths if varies else None
    return Source(name, Path(path), list(table), size, varies, found, missing, aggregate)
