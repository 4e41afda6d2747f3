"""What stands for a mistake of the user or of a file, and how a message shows foreign text."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# What a terminal obeys instead of showing it: control characters (C0, C1), marks that turn the
# direction of what follows, invisible letters, ends of lines and paragraphs, halves of pairs.
# The two joiners of Persian, Indian scripts and emoji (U+200C, U+200D) are letters like others.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
_NOT_IN_ONE_LINE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class UserError(Exception):
    """Something the user gave cannot be used: a path, a file, a name, a value, a full disk.

    The message is one clear sentence (what is wrong, what was expected, what to run). The entry
    points print it and exit with code 2; anything else that is raised is a fault of the program
    and keeps its traceback.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class BadContent(ValueError):
    """The content of a file cannot be accepted; who opened it adds the file's name for the user."""


class Truncated(BadContent):
    """The file ends before what its own text announces."""


def printable(text: str, keep: str = "") -> str:
    r"""Return a text with everything that would steer a terminal escaped (`\x1b`, `\u202e`).

    Args:
        text: may hold names and captions from files of strangers.
        keep: characters that are meant, such as a line's end where a table is told.
    """

    def escaped(match: re.Match[str]) -> str:
        letter = match[0]
        return letter if letter in keep else ascii(letter)[1:-1]

    return _UNPRINTABLE.sub(escaped, text)


def short(value: object, limit: int = 60) -> str:
    """Return a name or value from outside as `printable` shows it, cut to fit in one sentence."""
    text = str(value)
    return printable(text if len(text) <= limit else f"{text[:limit]}...")


def listed(names: Iterable[str], most: int = 5, separator: str = ", ") -> str:
    """Join the first few names, and say how many there are besides."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def is_writable(text: str, in_one_line: bool = False) -> bool:
    """Tell whether a file can hold a text (no NUL, no half of a surrogate pair).

    With `in_one_line`, whether names of files and lines of logs can: no control character either.
    """
    return not (_NOT_IN_ONE_LINE if in_one_line else _UNWRITABLE).search(text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean "x"?)`` for the nearest known name, or an empty string."""
    by_lower_case = {other.lower(): other for other in known}
    nearest = get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.5)
    return f' (did you mean "{by_lower_case[nearest[0]]}"?)' if nearest else ""
