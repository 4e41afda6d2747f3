"""How much of a mapped file stays in a process's memory after it was read."""

import mmap

import numpy as np

# So much is read of an array before its pages go back.
_READ_BYTES = 2**26


class MappedPages:
    """The pages of a mapped array, which go back to the system as reading goes on.

    A page that was read counts as memory of the process until the system wants it back: reading
    through a large file looks as if the file were held. Pages that go back stay in the system's
    cache, and reading them again takes microseconds.
    """

    def __init__(self, array: np.ndarray) -> None:
        is_mapped = isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED")
        self._mapping = array.base if is_mapped else None
        self._row_bytes = array.nbytes // max(1, len(array))
        self._read = 0

    def were_read(self, rows: int) -> None:
        """Note that rows of the array were read; nobody may write into it."""
        self._read += rows * self._row_bytes
        if self._mapping is not None and self._read > _READ_BYTES:
            self._mapping.madvise(mmap.MADV_DONTNEED)
            self._read = 0
