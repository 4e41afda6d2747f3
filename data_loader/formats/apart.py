"""Reads a file in a process of its own, whose end is one more way to say that the file is damaged.

The HDF5 library is written in C and was not made for files of strangers: damaged ones make it
crash, or reserve memory until there is none. A process of its own, with a limit on memory and
time, turns that into an error. It answers with a pickle, which is read as warily as any other.
"""

import mmap
import os
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_loader.formats.pickles.values import read_pickle
from utils.errors import BadContent, Truncated
from utils.files import largest_unpacked

_FAILURES = {"bad": BadContent, "truncated": Truncated}
_PROGRAM = ["-m", __name__]
_FREE_MEMORY = 256 << 20
_FREE_SECONDS, _BYTES_PER_SECOND = 60, 5 << 20


def read_apart(reader: str, path: Path) -> Any:
    """Return what a reader ("hdf5", "matlab") makes of a file, from a process of its own.

    Raises:
        BadContent: the reader refuses the file, crashes, or takes too long.
    """
    seconds = _FREE_SECONDS + path.stat().st_size // _BYTES_PER_SECOND
    with tempfile.TemporaryFile() as answer:
        try:
            code = subprocess.run(
                [sys.executable, *_PROGRAM, reader, str(path.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())},
                timeout=seconds,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise BadContent(f"reading it took more than {seconds} seconds") from error
        if code:
            raise BadContent("it is damaged (the library that reads such files crashed)")
        # The map outlives the file, which has no name.
        data = mmap.mmap(answer.fileno(), 0, access=mmap.ACCESS_READ)
    kind, value = read_pickle(memoryview(data))
    if kind in _FAILURES:
        raise _FAILURES[kind](value)
    return value


def readers() -> dict[str, Callable[[Path], Any]]:
    """Return the readers by name. Only a process that reads loads the library."""
    from data_loader.formats.hdf5 import read_hdf5, read_matlab_hdf5

    return {"hdf5": read_hdf5, "matlab": read_matlab_hdf5}


def _import_path() -> list[str]:
    return [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]


def main(reader: str, path: str) -> None:
    """Write a pickle of ("value", what was read), or ("bad" or "truncated", why not)."""
    read = readers()[reader]
    limit = memory_in_use() + _FREE_MEMORY + largest_unpacked(Path(path).stat().st_size)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = ("value", read(Path(path)))
    except Truncated as error:
        answer = ("truncated", str(error))
    except MemoryError:
        answer = ("bad", "it asks for far more memory than a file of its size can need")
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        answer = ("bad", str(error))
    pickle.dump(answer, sys.stdout.buffer, protocol=4)


def memory_in_use() -> int:
    """Return the bytes of address space in use."""
    pages = Path("/proc/self/statm")
    used = int(pages.read_text().split()[0]) if pages.exists() else 4 << 18
    return used * resource.getpagesize()


if __name__ == "__main__":
    main(*sys.argv[1:])
