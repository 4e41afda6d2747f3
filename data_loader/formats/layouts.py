"""From a file or folder of features to a mapping from ids, in whatever layout people keep it.

One file holds all videos: under their ids, or as rows of a matrix beside a list of ids, which lies
in the same file or in one next to it. Or a folder, nested or not, holds one file for each video,
which the file's path names; w2vv's folders hold a matrix (`feature.bin`), its shape and its ids.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.formats.msgpack_numpy import read_msgpack
from data_loader.formats.npy import read_all_npz, read_npy
from data_loader.formats.pickles import PLAIN_NAMES, read_pickle
from data_loader.formats.rows import pieces_of_rows, read_rows
from data_loader.formats.tables import FEATURE_NAMES, ID_NAMES, Later, unique
from data_loader.formats.tensors import PICKLED_NAMES, read_safetensors, read_torch
from utils.errors import BadContent, Truncated, short
from utils.files import files_below

# A list of ids beside a matrix: named like it, or the only one of its folder.
_OWN_LISTS = ("{}.ids.txt", "{}_ids.txt", "{}.ids.json", "{}_ids.json", "{}_ids.npy", "{}.txt")
_LISTS = ("ids.txt", "ids.json", "ids.npy", "id.txt", "video_ids.txt", "video_ids.json")
_MATRIX, _SHAPE, _MATRIX_IDS = "feature.bin", "shape.txt", "id.txt"
_FILES_AT_ONCE = 256
_PIECE_VALUES = 4 << 20


def text_of_file(path: Path) -> str:
    """Return the text of a file: UTF-8, or what the byte-order mark in front of it says."""
    data = path.read_bytes()
    return data.decode(json.detect_encoding(data))


def _read_json(path: Path) -> Any:
    return json.loads(text_of_file(path), object_pairs_hook=_without_repetition)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique([key for key, _ in pairs])
    return dict(pairs)


def _read_hdf5(path: Path) -> Any:
    from data_loader.formats.hdf5 import read_hdf5  # takes its time to load

    return read_hdf5(path)


def _read_mat(path: Path) -> Any:
    from data_loader.formats.hdf5 import read_mat  # takes its time to load

    return read_mat(path)


def _pickle_reader(names: dict[str, Any]) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        with path.open("rb") as handle:
            if not path.stat().st_size:
                raise Truncated("it is empty")
            return read_pickle(handle, names)

    return read


_ROWS = (".csv", ".tsv", ".txt", ".parquet")
# What maps ids to anything: captions, text features, features.
READERS: dict[str, Callable[[Path], Any]] = {
    **dict.fromkeys((".pickle", ".pkl"), _pickle_reader(PLAIN_NAMES)),
    ".json": _read_json,
    ".npy": read_npy,
    ".mp": read_msgpack,
    **dict.fromkeys((".hickle", ".h5", ".hdf5"), _read_hdf5),
    ".mat": _read_mat,
}
# What features alone come in.
FEATURE_READERS: dict[str, Callable[[Path], Any]] = {
    **READERS,
    ".npz": read_all_npz,
    **dict.fromkeys((".pickle", ".pkl"), _pickle_reader(PICKLED_NAMES)),
    **dict.fromkeys((".pt", ".pth"), read_torch),
    ".safetensors": read_safetensors,
    **dict.fromkeys(_ROWS, read_rows),
}
# Notes often lie beside features: they count only where a folder has nothing else.
_MAY_BE_NOTES = (".json", ".csv", ".tsv", ".txt")
_GROUPS = (".h5", ".hdf5", ".hickle")


def read_layout(path: Path) -> dict[str, Any]:
    """Return what a file or folder of features holds: id -> value, or arrays that go by place.

    The latter stand under `ids`, `feats` and `offsets`, if there are any.

    Raises:
        BadContent: it is broken, or it is not told which array belongs to which video.
    """
    if path.is_dir():
        if is_matrix_folder(path):
            return _matrix_folder(path)
        return _joined(pieces_of_folder(path))
    return _laid_out(path, _read(path, FEATURE_READERS))


def _laid_out(path: Path, value: Any) -> dict[str, Any]:
    if isinstance(value, np.ndarray):
        return {"ids": _ids_beside(path), "feats": value}
    mapping = _as_mapping(path, value)
    named = _named(mapping)
    if named:
        return named
    arrays = [key for key in mapping if key.lower() in (*FEATURE_NAMES, "offsets")]
    if arrays and isinstance(mapping[arrays[0]], np.ndarray | Later):
        if len(mapping) > 1 or not _lists(path):
            held = ", ".join(sorted(map(short, mapping))[:8])
            raise BadContent(f'it lacks the array "ids" (it holds: {held})')
        return {"ids": _ids_beside(path), "feats": mapping[arrays[0]]}
    return _without_groups(mapping, path.suffix in _GROUPS)


def is_matrix_folder(path: Path) -> bool:
    """Whether a folder holds one matrix and its ids, instead of a file for each video."""
    return (path / _MATRIX).is_file()


def read_mapping(path: Path) -> dict[str, Any]:
    """Return what a file that maps ids to something holds, a folder as `read_layout` does."""
    return read_layout(path) if path.is_dir() else _as_mapping(path, _read(path, READERS))


def pieces_of(path: Path) -> Iterator[dict[str, Any]] | None:
    """Return what gives the content of `read_layout` in pieces; None where it is had at once.

    A matrix that goes by place may come with `feats` that are `Later`.
    """
    if path.is_dir():
        return None if is_matrix_folder(path) else pieces_of_folder(path)
    if path.suffix in _GROUPS:
        return _pieces_of_hdf5(path)
    return pieces_of_rows(path) if path.suffix in _ROWS else None


def _pieces_of_hdf5(path: Path) -> Iterator[dict[str, Any]]:
    from data_loader.formats.hdf5 import open_hdf5  # takes its time to load

    with open_hdf5(path, is_lazy=True) as content:
        mapping = _laid_out(path, content)
        if {"ids", "feats"} <= mapping.keys():
            yield mapping
            return
        piece, held = {}, 0
        for key, value in mapping.items():
            piece[key] = value[()] if isinstance(value, Later) else value
            held += value.size if isinstance(value, Later) else 0
            if held > _PIECE_VALUES:
                yield piece
                piece, held = {}, 0
        yield piece


def pieces_of_folder(folder: Path) -> Iterator[dict[str, Any]]:
    """Give what a folder with one file for each video holds, a few hundred videos at a time.

    An id is the path below the folder, without its ending; where all files have one name
    (`v7/clip.npy`), without that.

    Raises:
        BadContent: there is no such file, one cannot be read, or there are several kinds.
    """
    suffix, paths = _files_of_videos(folder)
    one_name = len(paths) > 1 and len({path.name for path in paths}) == 1
    for start in range(0, len(paths), _FILES_AT_ONCE):
        piece = {}
        for path in paths[start : start + _FILES_AT_ONCE]:
            place = path.parent if one_name else path.with_suffix("")
            name = place.relative_to(folder).as_posix()
            try:
                piece[name] = FEATURE_READERS[suffix](path)
            except BadContent as error:
                raise type(error)(f"{short(path.name)}: {error}") from error
            except (ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
                raise BadContent(
                    f"{short(path.name)}: it is damaged ({short(error, 120)})"
                ) from error
        yield _without_groups(piece, is_nested=False)


def files_of(path: Path) -> tuple[Path, ...]:
    """Return a file of features and the list of ids beside it, if it needs one."""
    return (path, *(_lists(path)[:1] if path.is_file() else ()))


def _files_of_videos(folder: Path) -> tuple[str, list[Path]]:
    by_suffix: dict[str, list[Path]] = {}
    for path in files_below(folder):
        if path.suffix in FEATURE_READERS and not path.name.startswith("."):
            by_suffix.setdefault(path.suffix, []).append(path)
    kinds = [suffix for suffix in by_suffix if suffix not in _MAY_BE_NOTES]
    if not kinds:
        most = max(map(len, by_suffix.values()), default=0)
        kinds = [suffix for suffix, paths in by_suffix.items() if len(paths) == most]
    if not kinds:
        raise BadContent(
            "it is a folder without files of features; one for each video was expected "
            f"({', '.join(FEATURE_READERS)})"
        )
    if len(kinds) > 1:
        raise BadContent(
            f"it is a folder with files of several kinds ({', '.join(sorted(kinds))}); one for "
            "each video was expected: put each kind into a folder of its own"
        )
    return kinds[0], sorted(by_suffix[kinds[0]])


def _read(path: Path, readers: dict[str, Callable[[Path], Any]]) -> Any:
    if path.suffix not in readers:
        raise BadContent(
            f'files ending in "{path.suffix}" are not known; use one of '
            f"{', '.join(dict.fromkeys((*readers, '.npz')))} or a folder of one file for each video"
        )
    return readers[path.suffix](path)


def _as_mapping(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadContent(f"it holds a {type(value).__name__}, not a mapping from video ids")
    result = {str(key): item for key, item in value.items()}
    if len(result) < len(value):
        raise BadContent("it names a video twice, as text and as a number")
    return result


def _named(mapping: dict[str, Any]) -> dict[str, Any] | None:
    """Return ids and features that belong together by place, whatever they are called."""
    ids = [key for key, value in mapping.items() if key.lower() in ID_NAMES and _is_list(value)]
    feats = [key for key in mapping if key.lower() in FEATURE_NAMES]
    if "ids" in mapping and "feats" in mapping:
        ids, feats = ["ids"], ["feats"]
    if not ids or not feats:
        return None
    if len(ids) > 1 or len(feats) > 1:
        raise BadContent(f"it is not told which of {', '.join((*ids, *feats))} are meant")
    arrays = {"ids": mapping[ids[0]], "feats": mapping[feats[0]]}
    if "offsets" in mapping:
        arrays["offsets"] = mapping["offsets"]
    return arrays


def _is_list(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "USiu" and value.ndim <= 2
    return isinstance(value, list) and all(isinstance(item, str | int) for item in value)


def _without_groups(mapping: dict[str, Any], is_nested: bool) -> dict[str, Any]:
    """Take a video's array out of a group of its own; what is called for features comes first.

    Args:
        mapping: id -> value or group.
        is_nested: whether other groups are folders of videos.
    """
    groups = [value for value in mapping.values() if isinstance(value, dict)]
    if not groups or not all(isinstance(v, dict) or _is_missing(v) for v in mapping.values()):
        return mapping
    names = [[key for key in group if str(key).lower() in FEATURE_NAMES] for group in groups]
    if len(mapping) == 1 and names == [[]] and next(iter(mapping)).lower() in FEATURE_NAMES:
        return _without_groups({str(k): v for k, v in groups[0].items()}, is_nested)
    if all(len(found) == 1 for found in names):
        taken = iter(group[found[0]] for group, found in zip(groups, names, strict=True))
    elif (
        len({tuple(group) for group in groups}) == 1
        and len(groups[0]) == 1
        and (len(groups) > 1 or not is_nested)
    ):
        taken = iter(next(iter(group.values())) for group in groups)
    elif not is_nested:
        return mapping
    else:
        same = set.intersection(*({str(key) for key in group} for group in groups))
        if len(groups) > 1 and same:
            raise BadContent(
                f"it has several arrays for each video ({short(', '.join(sorted(same)))}): write "
                "each into a file of its own"
            )
        flat = {f"{key}/{name}": v for key, group in mapping.items() for name, v in group.items()}
        return _without_groups(flat, is_nested)
    return {key: next(taken) if isinstance(v, dict) else v for key, v in mapping.items()}


def _is_missing(value: Any) -> bool:
    return value is None or (np.ndim(value) == 0 and isinstance(value, float) and value != value)


def _joined(pieces: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for piece in pieces for key, value in piece.items()}


def _matrix_folder(folder: Path) -> dict[str, Any]:
    """Read what the w2vv family of programs writes: float32 rows, their shape, and their ids."""
    shape = tuple(map(int, text_of_file(folder / _SHAPE).split()))
    if len(shape) != 2 or min(shape) < 1:
        raise BadContent(f"{_SHAPE} does not give the rows and the size of {_MATRIX}")
    size = (folder / _MATRIX).stat().st_size
    if size != 4 * shape[0] * shape[1]:
        raise BadContent(f"{_MATRIX} has {size} bytes, not those of shape {shape} and float32")
    values = np.asarray(np.memmap(folder / _MATRIX, dtype="<f4", mode="r", shape=shape))
    return {"ids": text_of_file(folder / _MATRIX_IDS).split(), "feats": values}


def _lists(path: Path) -> list[Path]:
    """Return the lists of ids beside a matrix, the one that is named like it first."""
    if path.suffix not in (".npy", ".npz", ".pt", ".pth", ".safetensors"):
        return []
    names = [*(name.format(path.stem) for name in _OWN_LISTS), *_LISTS]
    return [found for name in names if (found := path.with_name(name)).is_file()]


def _ids_beside(path: Path) -> list[str]:
    lists = _lists(path)
    if not lists:
        raise BadContent(
            "it holds an array, not a mapping from video ids; of a matrix the ids of its rows are "
            f"expected beside it, in {path.stem}.ids.txt, {path.stem}.ids.json or ids.txt"
        )
    found = lists[0]
    if found.suffix == ".npy":
        ids = read_npy(found)
        return ids.tolist() if isinstance(ids, np.ndarray) else ids
    if found.suffix == ".json":
        ids = json.loads(text_of_file(found))
        if not isinstance(ids, list) or not all(isinstance(item, str | int) for item in ids):
            raise BadContent(f"{found.name} is no list of ids")
        return [str(item) for item in ids]
    return [line.strip() for line in text_of_file(found).splitlines() if line.strip()]
