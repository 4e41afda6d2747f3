"""Features of an expert, in whatever layout: found, and written as our loader reads them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.formats.read import FeatureTable, read_feature_file
from utils.errors import UserError
from utils.files import replacing


@dataclass(frozen=True)
class Source:
    """The features of an expert.

    Attributes:
        name: of the expert.
        path: the file or folder.
        ids: videos that have the expert, as written there.
        size: length of a vector.
        is_variable: whether a video has a varying number of vectors.
        lengths: (videos,) number of vectors of each; None where it is one.
    """

    name: str
    path: Path
    ids: list[str]
    size: int
    is_variable: bool
    lengths: np.ndarray | None
    table: FeatureTable

    def entry(self, base: Path) -> dict[str, Any] | None:
        """Return the entry of `dataset.json` in `base` for the file as it lies.

        None where the file must be written anew for our loader.
        """
        file = os.path.relpath(self.path.resolve(), base.resolve())
        return {"file": file, **self.facts()}

    def facts(self) -> dict[str, Any]:
        """Return size and kind as `dataset.json` has them."""
        return {"size": self.size, **({"variable_length": True} if self.is_variable else {})}

    def write(self, path: Path, ids: Mapping[str, str]) -> None:
        """Write the features of some videos, under other ids, as an `.npz` our loader reads.

        Args:
            path: the file.
            ids: id as in the source -> id to write; the others are left out.
        """
        rows = [np.atleast_2d(self.table[old]) for old in ids]
        arrays = {"ids": np.array(list(ids.values())), "feats": np.concatenate(rows)}
        if self.is_variable:
            arrays["offsets"] = np.cumsum([0, *map(len, rows)])
        with replacing(path) as handle:
            np.savez(handle, **arrays)


def find_features(spec: str) -> Source:
    """Find the features that `name=path` names.

    Raises:
        UserError: there are none, or they cannot be used.
    """
    name, _, path = spec.partition("=")
    table = {k: v for k, v in read_feature_file(path).items() if v is not None and v.size}
    if not table:
        raise UserError(f"The features {path} hold no video.")
    rows = [np.atleast_2d(array) for array in table.values()]
    lengths = np.array([len(row) for row in rows])
    varies = bool((lengths > 1).any())
    size = rows[0].shape[1]
    return Source(name, Path(path), list(table), size, varies, lengths if varies else None, table)
