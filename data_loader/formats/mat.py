"""Reading MATLAB's files: version 5 by scipy's reader, version 7.3 as HDF5."""

from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import BadContent, short

_HEAD = 128


def read_mat(path: Path) -> dict[str, Any]:
    """Return the variables of a `.mat` as arrays, texts and lists.

    Raises:
        BadContent: it is broken, or holds anything but plain arrays, text and cell arrays.
    """
    with path.open("rb") as handle:
        head = handle.read(_HEAD)
        if head.startswith(b"MATLAB 7.3"):
            from data_loader.formats.hdf5 import read_matlab_hdf5  # takes its time to load

            return read_matlab_hdf5(path)
        if head[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
            raise BadContent('it is no MAT-file of version 5 or 7.3 (save with "-v7" in MATLAB)')
        import scipy.io  # takes its time, and few data sets have such files

        handle.seek(0)
        try:
            found = scipy.io.loadmat(handle, chars_as_strings=True)
        except MemoryError:
            raise
        except Exception as error:  # of damage it raises whatever happens to it
            raise BadContent(f"it is damaged ({short(error, 120)})") from error
    return {name: _plain(value, name) for name, value in found.items() if name[:2] != "__"}


def _plain(value: Any, name: str) -> Any:
    """Return cell arrays as lists, text as text; other arrays of numbers as they are."""
    kind = value.dtype.kind if type(value) is np.ndarray else ""
    if kind == "O":
        return [_plain(item, name) for item in value.reshape(-1, order="F")]
    if kind == "U":
        return "".join(value.reshape(-1)[:1]) if value.size < 2 else value.reshape(-1)
    if not kind or kind not in "fiub":
        raise BadContent(
            f'its variable "{short(name)}" holds something other than numbers, text and cell arrays'
        )
    return value
