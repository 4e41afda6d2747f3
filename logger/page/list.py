"""The list of a folder's pages: a script that each of them loads."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from logger.page.scripts import as_json
from utils.files import replacing

_log = logging.getLogger(__name__)

PAGE_LIST = "pages.js"
_TARGET = "globalThis.rankingPages"


@dataclass(frozen=True)
class PageEntry:
    """One page of the list: its file, what it is called and the figures beside that."""

    file: str
    name: str
    figures: str
    order: int = 0  # see `Page.order`
    data: str = ""  # folder of all its queries, beside it; "" where it has none


def add_to_page_list(folder: Path, entry: PageEntry) -> list[PageEntry]:
    """Put a page into its folder's list, in the place of an older one of the same file.

    Pages that are no longer there leave the list; a list that cannot be read is begun anew.

    Raises:
        UserError: the list cannot be written.
    """
    kept = [
        e for e in read_page_list(folder) if e.file != entry.file and (folder / e.file).is_file()
    ]
    entries = sorted([*kept, entry], key=lambda e: (e.order, e.file))
    with replacing(folder / PAGE_LIST, "w", encoding="ascii", newline="\n") as handle:
        handle.write(f"{_TARGET} = {as_json([asdict(e) for e in entries])};\n")
    return entries


def read_page_list(folder: Path) -> list[PageEntry]:
    """Read a folder's list: empty where there is none, or one that cannot be read."""
    path = folder / PAGE_LIST
    try:
        content = path.read_text(encoding="ascii")
        entries = json.loads(content.removeprefix(f"{_TARGET} = ").removesuffix(";\n"))
        found = [PageEntry(**entry) for entry in entries]
        return [e for e in found if all(Path(n).name == n for n in (e.file, e.data))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.warning("The list of pages %s is begun anew, it cannot be read: %s.", path, error)
        return []
