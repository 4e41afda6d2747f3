"""The wall: files of strangers are read in a limited process of their own, a fork of this one.

Parsers written in C crash on damaged files, and all of them can be talked into reserving memory
until there is none, or into working for ever. Here that ends a child, which is one more way to say
that the file is damaged. The child may fill memory in proportion to its files (the system counts
what it writes to, not what it maps) and compute for as long as honest files of their size take. It
hands back what the function returned, or its one sentence about what is wrong, and what it logged.

The child is a copy of this process without its threads: it may read, compute with numpy and write
into files that are open, and must keep away from torch.
"""

import faulthandler
import functools
import gc
import logging
import mmap
import os
import pickle
import resource
import signal
import struct
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Concatenate, NoReturn, ParamSpec, TypeVar

from utils.errors import UserError
from utils.files import files_below

TOO_MUCH_MEMORY = "reading it takes far more memory than files of its size should need"

_FREE_MEMORY = 256 << 20
_MEMORY_PER_BYTE = 4
# Words, numbers in lists and short arrays take many times their bytes in a file, up to this.
_SMALL_ITEMS_PER_BYTE, _MOST_FOR_SMALL_ITEMS = 32, 6 << 30
# What may be packed within; deflate reaches about 1000:1 on zeros, which are no features.
_PACKED = (".npz", ".mat", ".h5", ".hdf5", ".hickle", ".parquet", ".zip", ".gz")
_MAX_RATIO, _FREE_UNPACKED = 200, 64 << 20
_FREE_SECONDS, _BYTES_PER_SECOND = 20, 1 << 20
# Python's own readers of text do no harm to small files, and a fork takes longer than they do.
_HARMLESS, _HARMLESS_BYTES = (".json", ".txt"), 4 << 20
_LOOK_SECONDS = 0.1
# What the answer's pickle may name: the makers of arrays.
_ARRAYS = (
    "numpy",
    *(f"numpy.{core}.{m}" for core in ("core", "_core") for m in ("multiarray", "numeric")),
)
_MAKERS = ("ndarray", "dtype", "_reconstruct", "_frombuffer")

_MEMORY_IS_FULL = 2

_is_child = False

Watcher = Callable[[str, int, int], object]
"""Told what is read, how many bytes of it are done, and how many there are."""

_watcher: Watcher | None = None
# What the child has done and what it has to do, in memory that both see.
_told: mmap.mmap | None = None
_NUMBERS = struct.Struct("<QQ")

P = ParamSpec("P")
R = TypeVar("R")


class Refused(UserError):
    """What the files hold cannot be used."""


def behind_wall(
    read: Callable[Concatenate[str | Path, P], R],
) -> Callable[Concatenate[str | Path, P], R]:
    """Let a reader, whose first argument is its file, run in a process of its own."""

    @functools.wraps(read)
    def reader(path: str | Path, *arguments: P.args, **options: P.kwargs) -> R:
        path = Path(path)
        if path.suffix in _HARMLESS and _size(path) <= _HARMLESS_BYTES:
            return read(path, *arguments, **options)
        return apart([path], lambda: read(path, *arguments, **options))

    return reader


def apart(
    sources: Iterable[Path], function: Callable[[], R], leftovers: Iterable[str | Path] = ()
) -> R:
    """Return what a function gives, from a limited process of its own.

    Where this is one already, the function is just called.

    Args:
        sources: the files, or folders of files, that it reads.
        function: returns plain data and arrays. It may write into open files.
        leftovers: files that the child removes where this process is killed meanwhile.

    Raises:
        Refused: the function raised UserError, took too much memory or time, or crashed.
        OSError: the function could not write.
    """
    if _is_child:
        return function()
    sources = list(sources)
    names = ", ".join(map(str, sources))
    seconds = _FREE_SECONDS + sum(map(_size, sources)) // _BYTES_PER_SECOND
    with nameless() as answer, _shared():
        parent, child = os.getpid(), _fork()
        if not child:
            limits = (sum(map(_memory_for, sources)), seconds)
            _work(answer, function, limits, names, parent, [Path(path) for path in leftovers])
        status = _end_of(child, names)
        if os.WIFSIGNALED(status):
            how = {
                signal.SIGXCPU: f"reading it took more than {seconds} seconds",
                signal.SIGKILL: "reading it was killed (the memory of this machine may be full)",
            }.get(
                signal.Signals(os.WTERMSIG(status)), "it is damaged (what reads such files crashed)"
            )
            raise Refused(f"Cannot read {names}: {how}.")
        if os.WEXITSTATUS(status) == _MEMORY_IS_FULL:
            raise Refused(f"Cannot read {names}: {TOO_MUCH_MEMORY}.")
        answer.seek(0)
        try:
            kind, value, logged = _Answer(answer).load()
        except (EOFError, pickle.UnpicklingError):
            raise Refused(
                f"Cannot read {names}: what reads it ended without an answer (a limit of this "
                "process or its machine may be too low)."
            ) from None
    for name, level, line in logged:
        logging.getLogger(name).log(level, "%s", line)
    if kind == "refused":
        raise Refused(value or f"Cannot read {names}: {TOO_MUCH_MEMORY}.")
    if kind == "system":
        raise OSError(*value)
    if kind == "failed":
        raise RuntimeError(f"A process of its own that read {names} failed:\n{value}")
    return value


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Let somebody follow what the processes do that are started meanwhile."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def tell(done: int, total: int) -> None:
    """Say within the child how many bytes are done; nothing happens where nobody watches."""
    if _is_child and _told is not None:
        _told[:] = _NUMBERS.pack(done, total)


def nameless() -> IO[bytes]:
    """Return an open file that no folder holds: in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("answer"), "w+b")
    return tempfile.TemporaryFile()


def _size(path: Path) -> int:
    """Return the bytes of a file or of the files in a folder, 0 where there is none."""
    with suppress(OSError, ValueError, RuntimeError):
        if path.is_dir():
            return sum(inner.stat().st_size for inner in files_below(path))
        return path.stat().st_size
    return 0


def _memory_for(path: Path) -> int:
    """Return how much memory reading and packing a file may take."""
    size = _size(path)
    if path.suffix in _PACKED:
        return _MAX_RATIO * size + _FREE_UNPACKED
    small_items = min(size * _SMALL_ITEMS_PER_BYTE, _MOST_FOR_SMALL_ITEMS)
    return max(size * _MEMORY_PER_BYTE, small_items)


def _fork() -> int:
    with warnings.catch_warnings():
        # Of threads that the child does not have; it needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


@contextmanager
def _shared() -> Iterator[None]:
    """Have memory in which the child can tell how far it is, if anybody watches."""
    global _told
    _told = mmap.mmap(-1, _NUMBERS.size) if _watcher else None
    try:
        yield
    finally:
        _told = None


def _end_of(child: int, names: str) -> int:
    """Wait for a process; whatever interrupts the wait ends that process."""
    try:
        while _watcher and _told:
            ended, status = os.waitpid(child, os.WNOHANG)
            _watcher(names, *_NUMBERS.unpack(_told[:]))
            if ended:
                return status
            time.sleep(_LOOK_SECONDS)
        return os.waitpid(child, 0)[1]
    except ChildProcessError:  # SIGCHLD is ignored here, and with it how the child ended
        return 0
    except BaseException:
        with suppress(OSError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise


def _work(
    answer: IO[bytes],
    function: Callable[[], Any],
    limits: tuple[int, int],
    names: str,
    parent: int,
    leftovers: list[Path],
) -> NoReturn:
    """Do the child's work; nothing of this process is ended or flushed by its end."""
    global _is_child
    code = 1
    try:
        _is_child = True
        # Whoever interrupts the parent is answered by the parent.
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        # Among a million small arrays looking for circles takes longer than reading.
        gc.disable()
        follower = threading.Thread(target=_follow, args=(parent, leftovers), daemon=True)
        follower.start()
        lines = _log_into_a_list()
        _be_silent()
        _limit(*limits)
        try:
            _write_answer(answer, (*_outcome(function), lines))
        except RecursionError:
            _write_answer(answer, ("refused", f"Cannot read {names}: it is nested too deeply.", []))
        except (TypeError, AttributeError, pickle.PicklingError):
            _write_answer(answer, ("failed", traceback.format_exc(), []))
        code = 0
    except MemoryError:
        code = _MEMORY_IS_FULL
    finally:
        os._exit(code)


def _follow(parent: int, leftovers: list[Path]) -> None:
    """End this process, and what it leaves, once its parent has gone."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    for path in leftovers:
        with suppress(OSError):
            path.unlink()
    os._exit(1)


def _log_into_a_list() -> list[tuple[str, int, str]]:
    """Let every logger of this process write into the list that is returned."""
    lines: list[tuple[str, int, str]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.name, record.levelno, record.getMessage()))

    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.handlers, logger.propagate = [], True
    logging.root.handlers = [Collector()]
    return lines


def _be_silent() -> None:
    """Keep the last words of a library that crashes from the terminal."""
    faulthandler.disable()
    logging.captureWarnings(True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _limit(memory: int, seconds: int) -> None:
    """Set what this process may take from now on, as far as the system can."""
    wanted = {resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_CPU: (seconds, seconds + 5)}
    held = Path("/proc/self/statm")
    if held.exists():
        data = int(held.read_text().split()[5]) * resource.getpagesize()
        most = data + _FREE_MEMORY + memory
        wanted[resource.RLIMIT_DATA] = (most, most)
    for kind, pair in wanted.items():
        with suppress(OSError, ValueError):
            set_before = resource.getrlimit(kind)
            bounds = [
                new if old == resource.RLIM_INFINITY else min(new, old)
                for new, old in zip(pair, set_before, strict=True)
            ]
            resource.setrlimit(kind, (bounds[0], bounds[1]))


def _outcome(function: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "value", function()
    except UserError as error:
        return "refused", str(error)
    except MemoryError:
        return "refused", ""
    except OSError as error:
        named = () if error.filename is None else (str(error.filename),)
        return "system", (error.errno, error.strerror, *named)
    except Exception:  # noqa: BLE001 (told where it can be seen)
        return "failed", traceback.format_exc()


def _write_answer(answer: IO[bytes], value: Any) -> None:
    answer.seek(0)
    pickle.dump(value, answer, protocol=5)
    answer.flush()


class _Answer(pickle.Unpickler):
    """Plain data and arrays; nothing else may be named."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAYS and name in _MAKERS:
            return super().find_class(module, name)
        raise RuntimeError(f"a process of its own answered with {module}.{name}")
