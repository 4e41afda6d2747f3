"""Being asked to end: Ctrl-C, and the system's SIGTERM and SIGHUP, answered alike.

Work that must not be cut in two says so (`deferred`), and asks in between whether somebody waits
for the end (`requested`); everything else ends where it stands, by the exception `Stopped`.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BASE_CODE = 128  # what a shell adds to the number of the signal that ended a program

_SECONDS_TO_LEAVE = 0.01

_depth = 0  # of blocks that must not be cut in two
_pending: int | None = None


class Stopped(KeyboardInterrupt):
    """Somebody asked this process to end.

    Attributes:
        signal_number: what asked.
        saved: how to go on, a clause; empty where nothing was to be saved.
    """

    def __init__(self, signal_number: int, saved: str = "") -> None:
        self.signal_number = signal_number
        self.saved = saved
        super().__init__(signal_number, saved)

    @property
    def exit_code(self) -> int:
        return BASE_CODE + self.signal_number

    def __str__(self) -> str:
        by = signal.Signals(self.signal_number).name
        how = "interrupted" if self.signal_number == signal.SIGINT else f"ended by {by}"
        return f"{how}; {self.saved}" if self.saved else how


def quiet_while_loading() -> None:
    """Let Ctrl-C end a program that is still being loaded without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def answering_signals() -> Iterator[None]:
    """Answer signals while a program runs; those that were ignored (nohup) stay ignored."""
    global _pending, _depth
    _pending, _depth = None, 0
    before = {}
    is_main = threading.current_thread() is threading.main_thread()
    for number in _SIGNALS if is_main else ():  # no other thread may choose handlers
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, _answer)
    hook, sys.unraisablehook = sys.unraisablehook, _once_more
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Let signals wait until the end of this block; a second Ctrl-C does not wait any longer.

    Raises:
        Stopped: at the end of the (outermost) block, where a signal waits by then.
    """
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    if not _depth and _pending is not None:
        raise Stopped(_pending)


@contextmanager
def last_words() -> Iterator[None]:
    """Let a stop that has been noticed be the last: what is saved now is not interrupted."""
    global _pending, _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        _pending = None


def requested() -> int:
    """Return the signal that waits for the end of a `deferred` block, 0 where there is none."""
    return _pending or 0


def stop_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """Find what asked for the end: in a library it may come out as an error of another kind."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def _once_more(lost: "sys.UnraisableHookArgs") -> None:
    """Send a signal again that struck where Python lets no exception through (a finaliser)."""
    global _pending
    if isinstance(lost.exc_value, Stopped):
        _pending = None
        number = lost.exc_value.signal_number
        threading.Timer(_SECONDS_TO_LEAVE, os.kill, (os.getpid(), number)).start()
    else:
        sys.__unraisablehook__(lost)


def _answer(number: int, frame: FrameType | None) -> None:
    global _pending
    if _depth and not (number == signal.SIGINT and _pending == signal.SIGINT):
        _pending = _pending or number
        return
    _pending = number
    raise Stopped(number)
