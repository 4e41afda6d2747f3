"""Writes one table of features in every format that is read."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import scipy.io

Table = dict[str, np.ndarray | None]


def ragged(rng: np.random.Generator, ids: list[str], size: int, most: int) -> dict[str, Any]:
    """Draw (tokens, size) float32 for each id; about a quarter is missing (None)."""
    return {
        key: None
        if rng.random() < 0.25
        else rng.standard_normal((int(rng.integers(1, most + 1)), size)).astype(np.float32)
        for key in ids
    }


def write_npz(path: Path, table: dict[str, np.ndarray | None], variable: bool) -> None:
    """Write a table as `ids`, `feats` and, if it varies in length, `offsets`; omit missing ids."""
    present = {key: value for key, value in table.items() if value is not None}
    ids = np.array(list(present))
    if variable:
        offsets = np.cumsum([0, *(len(value) for value in present.values())])
        np.savez(path, ids=ids, feats=np.concatenate(list(present.values())), offsets=offsets)
    else:
        np.savez(path, ids=ids, feats=np.stack(list(present.values())))


def write_pickle(path: Path, table: dict[str, Any], protocol: int = 4) -> None:
    """Write a table as published files are: missing entries are NaN."""
    marked = {key: float("nan") if value is None else value for key, value in table.items()}
    path.write_bytes(pickle.dumps(marked, protocol=protocol))


def packed_for_msgpack(value: Any) -> Any:
    """Encode arrays as msgpack-numpy does."""
    if isinstance(value, np.ndarray):
        head = {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape}
        return {**head, b"data": value.tobytes()}
    if isinstance(value, dict):
        return {key: packed_for_msgpack(item) for key, item in value.items()}
    return [packed_for_msgpack(item) for item in value] if isinstance(value, list) else value


def write_msgpack(path: Path, table: Any) -> None:
    path.write_bytes(msgpack.packb(packed_for_msgpack(table), use_bin_type=True))


def write_hickle(path: Path, table: dict[str, Any], version: int = 3) -> None:
    """Write the layout of hickle 3 or 4: a group for each key, its value within."""
    with h5py.File(path, "w") as file:
        if version == 3:
            file.attrs.update({"CLASS": b"hickle", "VERSION": "3.4.9", "PYTHON_VERSION": "3.7.1"})
        else:
            file.attrs.update({"HICKLE_VERSION": "4.0.4", "HICKLE_PYTHON_VERSION": "3.7.1"})
        _hickled(file, "data_0" if version == 3 else "data", table, version)


def _hickled(group: h5py.Group, name: str, value: Any, version: int) -> None:
    def mark(place: Any, kind: str, type_3: str) -> None:
        if version == 3:
            place.attrs["type"] = [type_3.encode()]
        else:
            place.attrs["base_type"] = kind.encode()

    if isinstance(value, dict):
        inner = group.create_group(name)
        mark(inner, "dict", "<class 'dict'>")
        for key, item in value.items():
            place = inner.create_group(repr(key).replace("/", "\\\\"))
            mark(place, "dict_item", "dict_item")
            _hickled(place, "data_0" if version == 3 else "data", item, version)
    elif isinstance(value, list):
        inner = group.create_group(name)
        mark(inner, "list", "<class 'list'>")
        for number, item in enumerate(value):
            _hickled(inner, f"data_{number}", item, version)
    elif isinstance(value, np.ndarray):
        mark(group.create_dataset(name, data=value), "ndarray", "ndarray")
    else:
        data = float("nan") if value is None else value
        mark(group.create_dataset(name, data=data), "float", "python_dtype")


def write_hdf5(path: Path, table: dict[str, Any], **options: Any) -> None:
    """Write a dataset for each video, a group of numbered datasets for a list."""
    with h5py.File(path, "w") as file:
        for key, value in table.items():
            if isinstance(value, list):
                group = file.create_group(key)
                for number, item in enumerate(value):
                    group.create_dataset(str(number), data=item, **options)
            else:
                file.create_dataset(key, data=np.nan if value is None else value)


def write_grouped(table: Table) -> dict[str, np.ndarray]:
    """Return ids, feats and offsets of a table, without what is missing."""
    present = {key: value for key, value in table.items() if value is not None}
    offsets = np.cumsum([0, *(len(value) for value in present.values())])
    feats = np.concatenate(list(present.values()))
    return {"ids": np.array(list(present)), "feats": feats, "offsets": offsets}


def write_grouped_hdf5(path: Path, table: Table) -> None:
    arrays = write_grouped(table)
    with h5py.File(path, "w") as file:
        file["ids"] = arrays.pop("ids").tolist()
        for name, value in arrays.items():
            file.create_dataset(name, data=value, compression="gzip", shuffle=True)


def write_mat(path: Path, table: Table, compressed: bool = False) -> None:
    """Write MATLAB's version 5 with a variable for each video."""
    marked = {key: np.float32("nan") if value is None else value for key, value in table.items()}
    scipy.io.savemat(path, marked, do_compression=compressed)


def write_grouped_mat(path: Path, table: Table) -> None:
    arrays = write_grouped(table)
    arrays["ids"] = np.array(arrays["ids"].tolist(), dtype=object)
    arrays["offsets"] = arrays["offsets"].astype(np.float64)
    scipy.io.savemat(path, arrays, do_compression=True)


def write_matlab_hdf5(path: Path, table: Table) -> None:
    """Write MATLAB's version 7.3: HDF5 behind a head of 512 bytes, axes reversed, a cell of ids."""
    arrays = write_grouped(table)
    with h5py.File(path, "w", userblock_size=512) as file:
        places = []
        for number, key in enumerate(arrays["ids"]):
            codes = np.array([[ord(letter)] for letter in key], dtype=np.uint16)
            place = file.create_dataset(f"#refs#/{number}", data=codes)
            place.attrs["MATLAB_class"] = np.bytes_(b"char")
            places.append([place.ref])
        cell = file.create_dataset("ids", data=np.array(places, dtype=h5py.ref_dtype))
        cell.attrs["MATLAB_class"] = np.bytes_(b"cell")
        for name in ("feats", "offsets"):
            value = np.atleast_2d(arrays[name])
            # MATLAB's numbers are doubles unless one says otherwise.
            value = value.astype(np.float64) if name == "offsets" else value
            place = file.create_dataset(name, data=value.T)
            place.attrs["MATLAB_class"] = np.bytes_(b"double")
    with path.open("r+b") as handle:
        handle.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_npy_dictionary(path: Path, table: Table) -> None:
    marked = {key: float("nan") if value is None else value for key, value in table.items()}
    np.save(path, marked, allow_pickle=True)


def write_npy_folder(path: Path, table: Table) -> None:
    path.mkdir()
    for key, value in table.items():
        np.save(path / f"{key}.npy", np.float32("nan") if value is None else value)


WRITERS: dict[str, Callable[[Path, Table], None]] = {
    "e.pickle": write_pickle,
    "python2.pickle": lambda path, table: write_pickle(path, table, protocol=2),
    "e.npz": lambda path, table: write_npz(path, table, variable=True),
    "e.npy": write_npy_dictionary,
    "folder": write_npy_folder,
    "e.mp": write_msgpack,
    "e.hickle": write_hickle,
    "four.hickle": lambda path, table: write_hickle(path, table, version=4),
    "e.h5": write_hdf5,
    "grouped.h5": write_grouped_hdf5,
    "e.mat": write_mat,
    "grouped.mat": write_grouped_mat,
    "seven.mat": write_matlab_hdf5,
}
