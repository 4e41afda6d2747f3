"""The one exception that stands for a mistake of the user, not of the program."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user gave cannot be used: a path, a file, a name, a value, a full disk.

    The message is one clear sentence (what is wrong, what was expected, what to run). The entry
    points print it and exit with code 2; anything else that is raised is a fault of the program
    and keeps its traceback.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean "x"?)`` for the nearest known name, or an empty string."""
    known = list(known)
    nearest = get_close_matches(str(name), known, n=1, cutoff=0.5)
    if not nearest:
        by_lower_case = {other.lower(): other for other in known}
        lower = get_close_matches(str(name).lower(), list(by_lower_case), n=1, cutoff=0.5)
        nearest = [by_lower_case[other] for other in lower]
    return f' (did you mean "{nearest[0]}"?)' if nearest else ""
