"""Why ids that were meant to be the same are not: endings, folders, letter case, zeros, forms."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

_FOLDERS = re.compile(r"^.*[/\\]", re.DOTALL)
# Letters must be among the ending's: a version ("v1.5") is none.
_ENDING = re.compile(r"(?<=.)\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{2,5}$")
_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")

_FORM, _ENDINGS = "their Unicode form", "a file's ending"
# Cause -> what makes ids equal that differ by it alone; the likeliest first.
_NORMAL_FORMS: dict[str, Callable[[str], str]] = {
    "spaces around them": str.strip,
    "folders in front of them": lambda name: _FOLDERS.sub("", name),
    _ENDINGS: lambda name: _ENDING.sub("", name),
    _FORM: lambda name: unicodedata.normalize("NFC", name),
    "letter case": str.casefold,
    "leading zeros": lambda name: _LEADING_ZEROS.sub("", name),
}


@dataclass(frozen=True)
class NearMiss:
    """Ids that some file does not know, and that it would know if they were written otherwise.

    Attributes:
        count: how many of the wanted ids meet another one so.
        causes: by what they differ.
        wanted: one of the ids that were looked for.
        known: the one that it meets.
    """

    count: int
    causes: tuple[str, ...]
    wanted: str
    known: str

    def __str__(self) -> str:
        # Two forms of one letter look the same on the screen.
        show = ascii if _FORM in self.causes else '"{}"'.format
        advice = "write the ids alike"
        ending = _ENDING.search(self.wanted)
        if self.causes == (_ENDINGS,) and ending and not _ENDING.search(self.known):
            advice += f' (or, where the lists alone have it, set "ids_end_at": "{ending[0]}" in '
            advice += "dataset.json)"
        return (
            f"{self.count} of them differ from ids there only by {' and '.join(self.causes)}, "
            f"{show(self.wanted)} from {show(self.known)}: {advice}"
        )


def near_miss(wanted: Iterable[str], known: Collection[str]) -> NearMiss | None:
    """Find how ids must be normalised to meet; None if no normal form brings any together.

    A form that several known ids share says nothing of any of them, and a known id that is wanted
    as it stands is no other one's near miss.

    Args:
        wanted: the ids that were looked for.
        known: those that are there.
    """
    wanted = list(dict.fromkeys(wanted))
    there = set(known)
    missing = [name for name in wanted if name not in there]
    free = there.difference(wanted)
    if not missing or not free:
        return None
    best: list[tuple[str, str]] = []
    for normal in (*_NORMAL_FORMS.values(), _normal):
        pairs = _pairs(missing, free, normal)
        if len(pairs) > len(best):
            best = pairs
    if not best:
        return None
    tally = Counter(_causes(*pair) for pair in best)
    causes = tally.most_common(1)[0][0]
    example = next(pair for pair in best if _causes(*pair) == causes)
    return NearMiss(len(best), causes, *example)


def hint(wanted: Iterable[str], known: Collection[str]) -> str:
    """Return `; 3 of them differ from ids there only by ...`, or an empty string."""
    found = near_miss(wanted, known)
    return f"; {found}" if found else ""


def _pairs(
    missing: list[str], free: set[str], normal: Callable[[str], str]
) -> list[tuple[str, str]]:
    meets: dict[str, str | None] = {}
    for name in free:
        form = normal(name)
        meets[form] = None if form in meets else name
    found = ((name, meets.get(normal(name))) for name in missing)
    return [(name, other) for name, other in found if other is not None]


def _normal(name: str, without: str = "") -> str:
    for cause, normal in _NORMAL_FORMS.items():
        if cause != without:
            name = normal(name)
    return name


def _causes(one: str, other: str) -> tuple[str, ...]:
    """Return what must be normalised for two ids to meet."""
    return tuple(cause for cause in _NORMAL_FORMS if _normal(one, cause) != _normal(other, cause))
