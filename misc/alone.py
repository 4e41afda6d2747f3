"""One process at a time in a folder."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_loader.errors import UserError
from data_loader.files import reason

_log = logging.getLogger(__name__)


@contextmanager
def alone(folder: Path, doing: str) -> Iterator[int]:
    """Wait until no other process holds this folder; yields the lock's descriptor.

    The lock goes with the process, however that ends.

    Args:
        folder: an existing folder.
        doing: what a process does while it holds the lock ("making the demo set in data/demo").

    Raises:
        UserError: the file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("Another process is %s: waiting for it.", doing)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(f"Cannot lock the folder {folder}: {reason(error)}.") from error
        yield descriptor
    finally:
        os.close(descriptor)
