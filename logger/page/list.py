"""The list of a run's rankings pages, which every one of them shows.

It is a script, `pages.js`, as pages opened from the file system may read no other file; its whole
content is one assignment of JSON.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from utils.files import replacing

PAGE_LIST = "pages.js"
_START, _END = "globalThis.rankingPages = ", ";\n"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PageEntry:
    """One page of the list: its file, what it is called and the figures beside that."""

    file: str
    name: str
    figures: str
    order: int = 0  # epochs by number; the test of the best model comes last


def add_to_page_list(folder: Path, entry: PageEntry) -> list[PageEntry]:
    """Put a page into its folder's list, in the place of an older one of the same file.

    Pages that are no longer there leave the list; a list that cannot be read is begun anew.

    Raises:
        UserError: the list cannot be written.
    """
    kept = [e for e in _read(folder) if e.file != entry.file and (folder / e.file).is_file()]
    entries = sorted([*kept, entry], key=lambda e: (e.order, e.file))
    # JSON in ASCII is a script that means the same, whatever the names hold.
    content = _START + json.dumps([asdict(e) for e in entries], allow_nan=False) + _END
    with replacing(folder / PAGE_LIST, "w", encoding="ascii", newline="\n") as handle:
        handle.write(content)
    return entries


def _read(folder: Path) -> list[PageEntry]:
    path = folder / PAGE_LIST
    try:
        content = path.read_text(encoding="ascii")
        entries = json.loads(content.removeprefix(_START).removesuffix(_END))
        return [
            PageEntry(**entry) for entry in entries if Path(entry["file"]).name == entry["file"]
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.warning("The list of pages %s is begun anew, it cannot be read: %s.", path, error)
        return []
