"""What a check of a data set found, and how it is told."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from utils.errors import printable


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found.

    Attributes:
        where: the part of the data set ('expert "motion" (motion.npz)').
        what: what is the matter with it, or with the ids.
        ids: the videos it concerns, each with what is special about it; empty if it is no matter
            of single videos.
        cause: the likely one, if it can be told.
    """

    where: str
    what: str
    ids: tuple[str, ...] = ()
    cause: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the summary: an expert, or text features, for the videos of one list."""

    part: str
    split: str
    role: str
    videos: int
    missing: int
    tokens: tuple[int, ...]


@dataclass
class Report:
    """Everything that was found.

    Attributes:
        problems: what stops or spoils a training.
        notes: what is worth knowing.
        rows: the summary.
    """

    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def problem(self, where: str, what: str) -> None:
        """Add a problem."""
        self.problems.append(Finding(where, what))

    def note(self, where: str, what: str) -> None:
        """Add a note."""
        self.notes.append(Finding(where, what))

    def problem_of_videos(self, where: str, what: str, ids: Iterable[str], cause: str = "") -> None:
        """Add a problem of single videos, if there are any."""
        ids = tuple(ids)
        if ids:
            self.problems.append(Finding(where, what, ids, cause))

    def note_of_videos(self, where: str, what: str, ids: Iterable[str], cause: str = "") -> None:
        """Add a note on single videos, if there are any."""
        ids = tuple(ids)
        if ids:
            self.notes.append(Finding(where, what, ids, cause))

    @contextlib.contextmanager
    def as_notes(self, wanted: bool) -> Iterator[None]:
        """Take the problems that are added meanwhile for notes, if that is wanted."""
        before = len(self.problems)
        yield
        if wanted:
            self.notes += self.problems[before:]
            del self.problems[before:]


def line_of(finding: Finding, shown: int | None) -> str:
    """Tell one finding, with the first `shown` of its ids (None for all)."""
    if not finding.ids:
        return printable(f"{finding.where}: {finding.what}")
    more = len(finding.ids) - len(finding.ids[:shown])
    rest = f", and {more} more (--all shows them)" if more else ""
    listed = ", ".join(finding.ids[:shown])
    cause = f"; {finding.cause}" if finding.cause else ""
    return printable(f"{finding.where}: {len(finding.ids)} {finding.what}: {listed}{rest}{cause}")


def summary(rows: Iterable[Row]) -> list[str]:
    """Lay out what each split holds: videos, missing ones, tokens of those that are there."""
    lines: list[Sequence[str]] = [
        ("", "split", "list", "videos", "missing", "tokens min", "mean", "max")
    ]
    for row in rows:
        counts = ("-", "-", "-")
        if row.tokens:
            mean = sum(row.tokens) / len(row.tokens)
            counts = (str(min(row.tokens)), f"{mean:.1f}", str(max(row.tokens)))
        names = (printable(row.part), printable(row.split), row.role)
        lines.append((*names, str(row.videos), str(row.missing), *counts))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < 3 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
