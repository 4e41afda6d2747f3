"""Writes one table of features, a few vectors for each video, in every layout people keep."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.numpy import save_file

from tests.every_format import WRITERS

Table = dict[str, np.ndarray]


def _npz_of_ids(path: Path, table: Table) -> None:
    np.savez(path, **table)


def _h5_group_per_id(path: Path, table: Table) -> None:
    with h5py.File(path, "w") as file:
        for key, value in table.items():
            file.create_dataset(f"{key}/i3d", data=value)


def _h5_under_one_group(path: Path, table: Table) -> None:
    with h5py.File(path, "w") as file:
        for key, value in table.items():
            file.create_dataset(f"features/{key}", data=value)


def _padded(table: Table) -> np.ndarray:
    return np.stack(list(table.values()))


def _h5_other_names(path: Path, table: Table) -> None:
    with h5py.File(path, "w") as file:
        file["video_ids"] = list(table)
        file["features"] = _padded(table)


def _file_per_video(
    suffix: str, write: Callable[[Path, np.ndarray], Any], nested: bool = False
) -> Callable[[Path, Table], None]:
    def write_all(path: Path, table: Table) -> None:
        for number, (key, value) in enumerate(table.items()):
            folder = path / f"part{number % 2}" if nested else path
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / f"{key}{suffix}", value)
        (path / "notes.txt").write_text("made yesterday")

    return write_all


def _folder_per_video(path: Path, table: Table) -> None:
    for key, value in table.items():
        (path / key).mkdir(parents=True)
        np.save(path / key / "clip.npy", value)


def _pickle(path: Path, value: Any) -> None:
    path.write_bytes(pickle.dumps(value))


def _legacy(path: Path, value: Any) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def _tensors(table: Table) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in table.items()}


def _beside(ids: str, save: Callable[[Path, np.ndarray], Any]) -> Callable[[Path, Table], None]:
    def write(path: Path, table: Table) -> None:
        save(path, _padded(table))
        listed = path.with_name(ids)
        if ids.endswith(".json"):
            listed.write_text(json.dumps(list(table)))
        else:
            listed.write_text("\n".join(table) + "\n")

    return write


def _w2vv(path: Path, table: Table) -> None:
    path.mkdir()
    rows = np.stack([value[0] for value in table.values()])
    rows.astype("<f4").tofile(path / "feature.bin")
    (path / "shape.txt").write_text(f"{len(rows)} {rows.shape[1]}\n")
    (path / "id.txt").write_text(" ".join(table))


def _text(separator: str, head: str = "") -> Callable[[Path, Table], None]:
    def write(path: Path, table: Table) -> None:
        lines = [head] if head else []
        for key, value in table.items():
            for number, row in enumerate(value):
                fields = [
                    key,
                    *([str(number)] if "frame" in head else []),
                    *map(repr, row.tolist()),
                ]
                lines.append(separator.join(fields))
        path.write_text("\n".join(lines) + "\n")

    return write


def _csv_of_lists(path: Path, table: Table) -> None:
    lines = [",video_id,features"]
    lines += [
        f'{n},{key},"{json.dumps(value.tolist())}"' for n, (key, value) in enumerate(table.items())
    ]
    path.write_text("\n".join(lines))


def _parquet(kind: str) -> Callable[[Path, Table], None]:
    def write(path: Path, table: Table) -> None:
        import pyarrow
        from pyarrow import parquet

        rows = [(key, row) for key, value in table.items() for row in value.tolist()]
        if kind == "lists of lists":
            columns = {"video": list(table), "feats": [v.tolist() for v in table.values()]}
        elif kind == "lists":
            columns = {"video": [key for key, _ in rows], "i3d": [row for _, row in rows]}
        else:
            columns = {"video": [key for key, _ in rows], "frame": list(range(len(rows)))}
            columns |= {f"f{n}": [row[n] for _, row in rows] for n in range(len(rows[0][1]))}
        parquet.write_table(pyarrow.table(columns), path)

    return write


def _of_type(dtype: str) -> Callable[[Path, Table], None]:
    return lambda path, table: _pickle(path, {k: v.astype(dtype) for k, v in table.items()})


# Each gives the vectors of all videos, (2, D), as they are.
SEVERAL: dict[str, Callable[[Path, Table], None]] = {
    **{name: write for name, write in WRITERS.items() if name != "e.npz"},
    "grouped.npz": WRITERS["e.npz"],
    "ids.npz": _npz_of_ids,
    "groups.h5": _h5_group_per_id,
    "one_group.hdf5": _h5_under_one_group,
    "names.hdf5": _h5_other_names,
    "npz_folder": _file_per_video(".npz", lambda path, value: np.savez(path, features=value)),
    "npz_any": _file_per_video(".npz", lambda path, value: np.savez_compressed(path, x=value)),
    "nested": _file_per_video(".npy", np.save, nested=True),
    "folders": _folder_per_video,
    "pkl_folder": _file_per_video(".pkl", _pickle),
    "dict_folder": _file_per_video(".pkl", lambda path, v: _pickle(path, {"feat": v, "fps": 25})),
    "pt_folder": _file_per_video(".pt", lambda path, v: torch.save(torch.from_numpy(v), path)),
    "safe_folder": _file_per_video(".safetensors", lambda path, v: save_file({"x": v}, path)),
    "json_folder": _file_per_video(
        ".json", lambda path, v: path.write_text(json.dumps(v.tolist()))
    ),
    "e.pt": lambda path, table: torch.save(_tensors(table), path),
    "legacy.pth": lambda path, table: _legacy(path, _tensors(table)),
    "strided.pt": lambda path, table: torch.save(
        {key: torch.from_numpy(np.ascontiguousarray(v.T)).t() for key, v in table.items()}, path
    ),
    "lists.pt": lambda path, table: torch.save(
        {"ids": list(table), "feats": torch.from_numpy(_padded(table))}, path
    ),
    "tensors.pkl": lambda path, table: _pickle(path, _tensors(table)),
    "e.safetensors": lambda path, table: save_file(table, path),
    "e.npy": _beside("e.ids.txt", np.save),
    "matrix.npy": _beside("ids.json", np.save),
    "matrix.pt": _beside("matrix_ids.json", lambda path, v: torch.save(torch.from_numpy(v), path)),
    "matrix.safetensors": _beside("ids.txt", lambda path, v: save_file({"features": v}, path)),
    "rows.csv": _text(",", "video_id,frame,a,b,c"),
    "plain.csv": _text(","),
    "rows.tsv": _text("\t"),
    "id.feature.txt": _text(" "),
    "lists.csv": _csv_of_lists,
    "lists.parquet": _parquet("lists"),
    "nested.parquet": _parquet("lists of lists"),
    "columns.parquet": _parquet("columns"),
    "float64.pkl": _of_type("f8"),
    "middle.pkl": lambda path, t: _pickle(path, {k: v[:, None] for k, v in t.items()}),
    "front.pkl": lambda path, t: _pickle(path, {k: v[None] for k, v in t.items()}),
    "images.pkl": lambda path, t: _pickle(path, {k: v[:, :, None, None] for k, v in t.items()}),
}
# These give one vector for each video, its first.
SINGLE: dict[str, Callable[[Path, Table], None]] = {
    "w2vv": _w2vv,
    "rows_of_one.pkl": lambda path, t: _pickle(path, {k: v[:1] for k, v in t.items()}),
    "vectors.npz": lambda path, t: np.savez(path, **{k: v[0] for k, v in t.items()}),
    "matrix.npy": lambda path, t: _beside("ids.txt", np.save)(
        path, {k: v[0] for k, v in t.items()}
    ),
    "id.feature.txt": lambda path, t: _text(" ")(path, {k: v[:1] for k, v in t.items()}),
    "half.pt": lambda path, t: torch.save(
        {k: torch.from_numpy(v[0]).to(torch.bfloat16) for k, v in t.items()}, path
    ),
}
