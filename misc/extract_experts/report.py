"""What the user is told at the end."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from misc.extract_experts.extract import Report
from misc.extract_experts.journal import Done
from misc.extract_experts.running import Running
from utils.errors import short

_MOST_SHOWN = 20


def table_lines(
    done: Mapping[str, Done], running: Sequence[Running], report: Report
) -> Iterator[str]:
    """Lay out what each expert has seen, and how long it took."""
    good = [one for one in done.values() if not one.broken]
    hours = sum(one.seconds for one in good) / 3600
    items = sum(len(one.items) for one in good)
    parts = f" in {items} segments" if items != len(good) else ""
    yield f"{len(good)} videos{parts}, {hours:.2f} hours"
    if report.videos:
        rate = 60 * report.videos / report.seconds if report.seconds else 0
        yield f"{report.videos} looked at now in {report.seconds:.1f} s, {rate:.0f} a minute"
    rows = [["expert", "made by", "has", "missing", "seconds now"]]
    for one in running:
        places = [video.experts[one.name] for video in good if one.name in video.experts]
        has = sum(
            1
            for place in places
            for n, words in zip(place.rows, place.words, strict=True)
            if n or words
        )
        made = one.wanted.spec.partition("=")[2]
        rows.append([one.name, made, str(has), str(items - has), f"{one.seconds:.1f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, made, *numbers in rows:
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[2:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), made.ljust(widths[1]), *cells])


def broken_lines(broken: Mapping[str, tuple[Path, str]], videos: int) -> Iterator[str]:
    """Name the videos that cannot be used, and why."""
    if not broken:
        return
    yield f"{len(broken)} of {videos} videos cannot be used and are left out:"
    for path, why in list(broken.values())[:_MOST_SHOWN]:
        yield f"  {short(path, 120)}: {why}"
    if len(broken) > _MOST_SHOWN:
        yield f"  and {len(broken) - _MOST_SHOWN} more"
