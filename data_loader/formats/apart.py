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
import os
import pickle
import resource
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Concatenate, NoReturn, ParamSpec, TypeVar

from utils.errors import UserError

TOO_MUCH_MEMORY = "it asks for far more memory than a file of its size can need"

_FREE_MEMORY = 256 << 20
_MEMORY_PER_BYTE = 4
# A number takes two bytes of text or more, and up to 32 in a list.
_MEMORY_PER_BYTE_OF_NUMBERS = 16
# The same holds for short texts.
_LISTS_OF_NUMBERS = (".json", ".mp", ".csv", ".tsv", ".jsonl")
# What may be packed within; deflate reaches about 1000:1 on zeros, which are no features.
_PACKED = (".npz", ".mat", ".h5", ".hickle", ".zip", ".gz")
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
    with nameless() as answer:
        child = _fork()
        if not child:
            limits = (sum(map(_memory_for, sources)), seconds)
            _work(answer, function, limits, names, [Path(path) for path in leftovers])
        status = _end_of(child)
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
        kind, value, logged = _Answer(answer).load()
    for name, level, line in logged:
        logging.getLogger(name).log(level, "%s", line)
    if kind == "refused":
        raise Refused(value or f"Cannot read {names}: {TOO_MUCH_MEMORY}.")
    if kind == "system":
        raise OSError(*value)
    if kind == "failed":
        raise RuntimeError(f"A process of its own that read {names} failed:\n{value}")
    return value


def nameless() -> IO[bytes]:
    """Return an open file that no folder holds: in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("answer"), "w+b")
    return tempfile.TemporaryFile()


def _size(path: Path) -> int:
    """Return the bytes of a file or of the files in a folder, 0 where there is none."""
    with suppress(OSError, ValueError, RuntimeError):
        if path.is_dir():
            return sum(entry.stat().st_size for entry in os.scandir(path))
        return path.stat().st_size
    return 0


def _memory_for(path: Path) -> int:
    """Return how much memory reading and packing a file may take."""
    size = _size(path)
    if path.suffix in _PACKED:
        return _MAX_RATIO * size + _FREE_UNPACKED
    numbers = path.suffix in _LISTS_OF_NUMBERS
    return size * (_MEMORY_PER_BYTE_OF_NUMBERS if numbers else _MEMORY_PER_BYTE)


def _fork() -> int:
    with warnings.catch_warnings():
        # Of threads that the child does not have; it needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _end_of(child: int) -> int:
    """Wait for a process; whatever interrupts the wait ends that process."""
    try:
        return os.waitpid(child, 0)[1]
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
        follower = threading.Thread(target=_follow, args=(os.getppid(), leftovers), daemon=True)
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
