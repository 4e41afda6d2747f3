"""Where the pages of runs lie, and which of their files anybody may have."""

import re
from pathlib import Path

from logger.page.videos import LINK, SHOWN_SUFFIXES, is_file
from utils.errors import UserError
from utils.files import is_there

RUNS = "runs"  # below it, on the pages of all runs, are those of each
# What a folder of videos may hold besides is nobody's business; a page among it would be trouble.
PAGE_SUFFIXES = (".html", ".css", ".js")


def find_pages(folder: Path) -> Path | None:
    """Find the folder of pages of a run, given any of the run's three folders; else None.

    Raises:
        UserError: there is no such folder.
    """
    folder = _resolved(folder)
    places = [folder]
    for place in range(len(folder.parts)):
        if folder.parts[place] in ("models", "log"):
            places.append(Path(*folder.parts[:place], "web", *folder.parts[place + 1 :]))
    return next((place for place in places if front_page(place)), None)


def find_save_dir(folder: Path) -> Path | None:
    """Find the folder that a training's runs lie in, given it or one of its three; else None.

    Raises:
        UserError: there is no such folder.
    """
    folder = _resolved(folder)
    for place in (folder, folder.parent):
        is_inside = place == folder or folder.name in ("models", "log", "web")
        has_runs = any((place / kind).is_dir() for kind in ("models", "web"))
        if is_inside and has_runs and (place / "log").is_dir():
            return place
    return None


def _resolved(folder: Path) -> Path:
    if is_there(folder, Path.is_file):
        own = f", here {folder.parent}" if front_page(folder.parent) else ""
        raise UserError(
            f"{folder} is a file: give the folder of a run{own}, or that of all runs (data/saved)."
        )
    if not is_there(folder, Path.is_dir):
        raise UserError(
            f"There is no folder {folder}: give that of a run, as train.py names it, or that of "
            "all runs (data/saved)."
        )
    return folder.resolve()


def front_page(folder: Path) -> str | None:
    """The page to begin with: that of the test, else that of the last epoch."""
    if (folder / "index.html").is_file():
        return "index.html"
    epochs = [
        (int(number[1]), path.name)
        for path in folder.glob("epoch-*.html")
        if (number := re.fullmatch(r"epoch-(\d+)\.html", path.name))
    ]
    return max(epochs)[1] if epochs else None


def find_file(folder: Path, name: str) -> Path | None:
    """Find what a request names in the folder of pages or among its videos; None for all else.

    A link among the videos may lead anywhere: who made the folder of videos has put it there. No
    name leads out of the folders by itself, and no link out of the folder of pages is followed
    but that of the videos.
    """
    parts = name.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in name:
        return None
    path = folder.joinpath(*parts)
    is_video = parts[0] == LINK and len(parts) > 1
    if path.suffix not in (SHOWN_SUFFIXES if is_video else PAGE_SUFFIXES) or not is_file(path):
        return None
    if not is_video and not path.resolve().is_relative_to(folder.resolve()):
        return None
    return path


def find_run(save_dir: Path, name: str) -> tuple[Path, str, int] | None:
    """Find the folder of pages of the run that a request is about.

    Args:
        save_dir: of the runs.
        name: what follows `RUNS` in the request.

    Returns:
        The folder, the rest of the name within it, and how many parts lead to it.
    """
    parts = name.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in name:
        return None
    web = save_dir / "web"
    for depth in range(1, len(parts)):
        folder = web.joinpath(*parts[:depth])
        if not folder.resolve().is_relative_to(web.resolve()):
            return None
        if front_page(folder):
            return folder, "/".join(parts[depth:]), depth
    return None
