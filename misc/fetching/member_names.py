"""Which names members of an archive may have, and where they go.

A name from an archive is a stranger's text. Accepted is only what is, on every file system, a plain
path below one of the folders of the published sets, different from all others of the archive.
"""

import unicodedata
from collections.abc import Collection, Mapping

from misc.fetching.tar_reader import ArchiveError

TOP = "data"  # the folder that members of all archives begin with

_MAX_DEPTH = 16
_MAX_PART = 200  # bytes; file systems take 255, and temporary names add to it


class MemberNames:
    """Checks the names of one archive's members, one after the other.

    Args:
        folders: names of folders below `data` that the archive may write to.
        moved: members that go elsewhere than their name says.
    """

    def __init__(self, folders: Collection[str], moved: Mapping[str, str]) -> None:
        self._folders = folders
        self._moved = moved
        # As a file system without upper and lower case sees them: spelling, and whether a folder.
        self._seen: dict[str, tuple[str, bool]] = {}

    def accept(self, name: str, is_folder: bool) -> tuple[str, ...]:
        """Return the parts of a member's path below the data folder; empty for that folder itself.

        Raises:
            ArchiveError: the name is not acceptable.
        """
        name = self._moved.get(name, name)
        parts = _parts(name.removesuffix("/") if is_folder else name)
        if is_folder and not parts:
            return ()
        if parts[:1] != [TOP]:
            raise ArchiveError(f"its member {quoted(name)} does not lie in {TOP}/")
        below = tuple(parts[1:])
        if below and below[0] not in self._folders:
            raise ArchiveError(f"its member {quoted(name)} lies in no folder of a published set")
        if not is_folder and len(below) < 2:
            raise ArchiveError(f"its member {quoted(name)} is a file where a folder must be")
        for depth in range(1, len(below) + 1):
            self._note("/".join(below[:depth]), is_folder or depth < len(below), name)
        return below

    def _note(self, path: str, is_folder: bool, name: str) -> None:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        if key not in self._seen:
            self._seen[key] = path, is_folder
            return
        spelling, was_folder = self._seen[key]
        if spelling != path:
            raise ArchiveError(
                f"its members {quoted(spelling)} and {quoted(path)} differ only in their spelling"
            )
        if was_folder != is_folder:
            raise ArchiveError(f"its member {quoted(name)} is both a file and a folder")
        if not is_folder:
            raise ArchiveError(f"its member {quoted(name)} is there twice")


def _parts(name: str) -> list[str]:
    parts = name.split("/")
    while parts[:1] == ["."]:  # `tar .` begins every name with it
        parts = parts[1:]
    for part in parts:
        fault = _fault(part)
        if fault:
            raise ArchiveError(f"its member {quoted(name)} has {fault}")
    if len(parts) > _MAX_DEPTH:
        raise ArchiveError(f"its member {quoted(name)} lies too deep")
    return parts


def _fault(part: str) -> str:
    """Say what is wrong with one part of a path; nothing if it is a plain name."""
    if part in ("", ".", ".."):
        return "an absolute path or a step such as .. in its name"
    if "\\" in part or ":" in part or any(unicodedata.category(c)[0] == "C" for c in part):
        return "a backslash, a colon or an invisible character in its name"
    if part != part.rstrip(" ."):
        return "a dot or a space at the end of a name"
    if len(part.encode()) > _MAX_PART:
        return "too long a name"
    return ""


def quoted(name: str) -> str:
    """A name as a message may show it: short, and without characters that move the cursor."""
    text = ascii(name)
    return text if len(text) <= 120 else f"{text[:117]}..."
