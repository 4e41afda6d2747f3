"""The file of text features: kept in chunks while it is made, put together at the end.

Beside `<name>.npz` stands `<name>.npz.json`, which records what made it; while it is made there is
a folder `<name>.npz.parts` with the finished chunks. Killed at any moment, the same command goes
on with what is there and ends with the same bytes.
"""

import fcntl
import logging
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from utils.errors import UserError
from utils.files import (
    PATH_ERRORS,
    is_there,
    make_folder,
    read_json,
    reason,
    replacing,
    write_json,
)

logger = logging.getLogger(__name__)

_PLAN = "plan.json"
_LOCK = "lock"
# zip's first day: the file's bytes must not depend on the day on which it was made.
_DATE = (1980, 1, 1, 0, 0, 0)


def record_path(path: Path) -> Path:
    """Return where the record of a file of features lies."""
    return path.with_name(f"{path.name}.json")


def check_name(path: Path) -> None:
    """Refuse a name that no file can have, before anything is read for it.

    Raises:
        UserError: it is too long, or a part of it is a file.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except PATH_ERRORS as error:
        raise UserError(f"Cannot write {path}: {reason(error)}.") from error


def is_complete(path: Path, record: dict[str, Any]) -> bool:
    """Tell whether the file is there and was made exactly so; then no part of it is left.

    Raises:
        UserError: it is there, but was made otherwise.
    """
    if not is_there(path):
        return False
    beside = record_path(path)
    if beside.exists():
        found = read_json(beside, "record")
        if found == record:
            # A kill may have struck while its parts were removed.
            if _plan_of(path) in (record, None):
                shutil.rmtree(_folder(path), ignore_errors=True)
            return True
        keys = [
            key for key in record if not isinstance(found, dict) or found.get(key) != record[key]
        ]
        how = f"was made otherwise ({beside.name} differs in: {', '.join(keys)})"
    elif _plan_of(path) == record:
        # Killed between the file and its record.
        return False
    else:
        how = "has no record of how it was made"
    raise UserError(f"{path} exists and {how}: remove it, or choose another --output.")


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.parts")


def _plan_of(path: Path) -> Any:
    plan = _folder(path) / _PLAN
    return read_json(plan, "plan") if plan.exists() else None


class Parts:
    """The finished chunks of a file that is being made.

    Attributes:
        path: the file.
        shapes: (rows, size) of each chunk.
        dtype: of the values.
    """

    def __init__(self, path: Path, shapes: list[tuple[int, int]], dtype: str) -> None:
        self.path, self.shapes, self.dtype = path, shapes, np.dtype(dtype)
        self._folder = _folder(path)

    @contextmanager
    def opened(self, record: dict[str, Any]) -> Iterator[None]:
        """Hold the folder of the chunks; those of another plan are thrown away.

        Raises:
            UserError: the folder cannot be written, or another process is at work in it.
        """
        make_folder(self._folder)
        with self._open_lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"Another process is making {self.path}: wait for it, or choose another "
                    "--output."
                ) from error
            if _plan_of(self.path) != record:
                for old in self._folder.glob("chunk-*.npy"):
                    old.unlink()
                write_json(self._folder / _PLAN, record)
            yield

    def _open_lock(self) -> IO[str]:
        try:
            return (self._folder / _LOCK).open("w")
        except OSError as error:
            raise UserError(f"Cannot write into {self._folder}: {reason(error)}.") from error

    def missing(self) -> list[int]:
        """Return the chunks that are still to be computed."""
        return [number for number in range(len(self.shapes)) if self._read(number) is None]

    def write(self, number: int, values: np.ndarray) -> None:
        """Keep a chunk."""
        with replacing(self._name(number)) as handle:
            np.save(handle, values, allow_pickle=False)

    def assemble(self, ids: list[str], counts: list[int], rows: np.ndarray) -> None:
        """Write the file from the chunks.

        Args:
            ids: videos.
            counts: captions of each.
            rows: (captions,) vectors of each caption.
        """
        total = sum(shape[0] for shape in self.shapes)
        with replacing(self.path) as handle, zipfile.ZipFile(handle, "w") as archive:
            with _member(archive, "feats") as member:
                _write_head(member, self.dtype, (total, self.shapes[0][1]))
                for number in range(len(self.shapes)):
                    member.write(memoryview(self._read(number)).cast("B"))
            arrays = {
                "ids": np.array(ids),
                "offsets": _offsets(rows),
                "caption_offsets": _offsets(counts),
            }
            for name, values in arrays.items():
                with _member(archive, name) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)

    def remove(self) -> None:
        """Remove the chunks, once the file is complete."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _name(self, number: int) -> Path:
        return self._folder / f"chunk-{number:06d}.npy"

    def _read(self, number: int) -> np.ndarray | None:
        path = self._name(number)
        if not path.exists():
            return None
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            logger.warning("%s is damaged and is computed again (%s)", path, error)
            return None
        except OSError as error:
            raise UserError(f"Cannot read {path}: {reason(error)}.") from error
        whole = values.shape == self.shapes[number] and values.dtype == self.dtype
        return values if whole else None


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(f"{name}.npy", _DATE), "w", force_zip64=True)


def _write_head(member: IO[bytes], dtype: np.dtype, shape: tuple[int, int]) -> None:
    head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, head)


def _offsets(counts: Any) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
