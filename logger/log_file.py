"""The log of a run: short lines on the console, the same with their times in `info.log`."""

import contextlib
import copy
import logging
import sys
from collections import deque
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from utils.errors import UserError, printable
from utils.files import make_folder, reason

FILE_NAME = "info.log"
FILE_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"

# As `extra` of a message: for the file alone, the console has it otherwise.
FILE_ALONE = {"file_alone": True}

# Records that are kept for a file which is yet to be made.
MOST_WAITING = 10_000

# Loggers of this project are named after their rooms; others' are heard from warnings on.
ROOMS = {"__main__", "data_loader", "logger", "misc", "model", "test", "train", "trainer", "utils"}

# Messages may be tables; everything else that steers a terminal comes from somebody's file.
_MEANT = "\n\t"

_open_log: "RunLog | None" = None


class RunLog:
    """The handlers of one run's log; a context manager that closes them."""

    def __init__(self, folder: Path | None, level: int) -> None:
        # A file that cannot be written is found before anything is changed.
        last = _Waiting() if folder is None else _File(make_folder(folder) / FILE_NAME)
        root = logging.getLogger()
        self._handlers: list[logging.Handler] = []
        self._level_before = root.level
        root.setLevel(level)
        self._add(_Console())
        self._add(last)

    def _add(self, handler: logging.Handler) -> None:
        handler.addFilter(_is_wanted)
        logging.getLogger().addHandler(handler)
        self._handlers.append(handler)

    def into(self, folder: Path) -> None:
        """Start the file in a folder, with all that was logged since this log was opened.

        A log of more than `MOST_WAITING` records has lost its first ones by then.

        Raises:
            UserError: the file cannot be written.
        """
        waiting = next((one for one in self._handlers if isinstance(one, _Waiting)), None)
        assert waiting is not None, "a log has one file, and ends when it is closed"
        file = _File(make_folder(folder) / FILE_NAME)
        self._handlers.remove(waiting)
        logging.getLogger().removeHandler(waiting)
        self._add(file)
        for record in waiting.records:
            file.handle(record)
        waiting.close()

    def close(self) -> None:
        """Take the handlers away and close the file; closing twice does nothing."""
        global _open_log
        root = logging.getLogger()
        if self._handlers:
            root.setLevel(self._level_before)
        for handler in self._handlers:
            root.removeHandler(handler)
            handler.close()
        self._handlers = []
        if _open_log is self:
            _open_log = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The console learns from the entry point why a run stopped; the file must learn it here.
        for handler in self._handlers:
            if isinstance(handler, _File) and error is not None:
                handler.handle(_stop_record(error))
        self.close()


def open_log(folder: str | Path | None, level: int = logging.INFO) -> RunLog:
    """Log to the console and, where a folder is given, to its `info.log`, which is appended to.

    One log is open at a time: that of an earlier run is closed first, so that each of several
    runs in a process has its own file.

    Args:
        folder: made if it does not exist; None: the console alone.
        level: messages below it are left out.

    Raises:
        UserError: the file cannot be written.
    """
    global _open_log
    close_log()
    _open_log = RunLog(None if folder is None else Path(folder), level)
    return _open_log


def close_log() -> None:
    """Close the log that is open, if there is one."""
    if _open_log is not None:
        _open_log.close()


class _Console(logging.Handler):
    """Lines on stdout that leave a progress bar on the terminal whole."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_alone", False):
            return
        label = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        # A console that cannot show a letter gets its number instead.
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        shown = printable(label + self.format(record), _MEANT)
        text = shown.encode(encoding, "backslashreplace").decode(encoding)
        try:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        except OSError:
            # Whoever read the output has closed it ("| head"): the run and its file go on.
            self.addFilter(lambda _: False)


class _Waiting(logging.Handler):
    """Keeps the last records, as texts, for a file that is yet to be made."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=MOST_WAITING)

    def emit(self, record: logging.LogRecord) -> None:
        # What a record is about may be large, or change: its text is neither.
        kept = copy.copy(record)
        kept.msg, kept.args = record.getMessage(), None
        if record.exc_info:
            kept.exc_text = logging.Formatter().formatException(record.exc_info)
            kept.exc_info = None
        self.records.append(kept)


class _FileLines(logging.Formatter):
    """Lines of the file, which people show on a terminal, too."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), _MEANT)


class _File(logging.FileHandler):
    """The log file. If it cannot be written any more, this is said once and the run goes on."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path, mode="a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UserError(f"Cannot write the log {path}: {reason(error)}.") from error
        self.setFormatter(_FileLines(FILE_FORMAT))

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self.addFilter(lambda _: False)
        sys.stderr.write(f"warning: the log {self.baseFilename} ends here: {reason(error)}.\n")

    def close(self) -> None:
        # What a full disk did not take is still in the buffer, and closing tries once more.
        with contextlib.suppress(OSError):
            super().close()


def _is_wanted(record: logging.LogRecord) -> bool:
    return record.name.split(".")[0] in ROOMS or record.levelno >= logging.WARNING


def _stop_record(error: BaseException) -> logging.LogRecord:
    if isinstance(error, UserError):
        what, trace = f"Stopped: {error}", None
    elif isinstance(error, KeyboardInterrupt) and not str(error):
        what, trace = "Interrupted.", None
    elif not isinstance(error, Exception):
        # A signal's, which a run raises so that it ends in order.
        what, trace = f"Interrupted: {str(error).rstrip('.') or type(error).__name__}.", None
    else:
        what, trace = (
            "Stopped by a fault of the program.",
            (type(error), error, error.__traceback__),
        )
    return logging.LogRecord(__name__, logging.ERROR, __file__, 0, what, None, trace)
