"""Write the pages of all runs into a folder that any static server can serve."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from logger.page.list import PAGE_LIST
from logger.page.runs import runs_files, with_links
from logger.page.videos import LINK, SHOWN_SUFFIXES
from misc.run_pages.gather import gather
from misc.run_pages.places import PAGE_SUFFIXES, RUNS, find_file, front_page
from utils.errors import UserError
from utils.files import (
    check_writable,
    files_below,
    make_folder,
    read_json,
    reason,
    replacing,
    write_json,
)

MARK = "exported.json"  # lists what an export wrote: nothing else is ever replaced or removed


def export(save_dir: Path, folder: Path, search: str = "", copies_videos: bool = False) -> int:
    """Write all runs of `save_dir` that have pages; returns how many.

    Exporting into the same folder again replaces what the last time wrote.

    Args:
        save_dir: of the runs.
        folder: new, empty, or of an earlier export.
        search: address of a search.
        copies_videos: copy them, for a server elsewhere; otherwise the folders are linked.

    Raises:
        UserError: the folder lies among the runs, holds something else, or cannot be written.
    """
    if folder.resolve().is_relative_to(save_dir.resolve()):
        raise UserError(f"{folder} lies among the runs themselves: name a folder elsewhere.")
    before = _written_before(folder)
    check_writable(folder)
    texts = runs_files(gather(save_dir), search)
    files: dict[str, Path] = {}
    links: dict[str, Path] = {}
    web = save_dir / "web"
    runs = [place for place in _folders(web) if front_page(place)]
    for place in runs:
        name = f"{RUNS}/{place.relative_to(web).as_posix()}"
        depth = name.count("/") + 1
        for path in files_below(place):
            part = path.relative_to(place).as_posix()
            is_video = part.startswith(f"{LINK}/")
            if is_video or path.suffix not in PAGE_SUFFIXES or find_file(place, part) is None:
                continue
            if part == PAGE_LIST:
                content = path.read_text(encoding="ascii", errors="replace")
                texts[f"{name}/{part}"] = with_links(content, "../" * depth + "index.html", search)
            else:
                files[f"{name}/{part}"] = path
        videos = place / LINK
        if videos.is_dir() and copies_videos:
            shown = (p for p in files_below(videos.resolve()) if p.suffix in SHOWN_SUFFIXES)
            for path in shown:
                part = path.relative_to(videos.resolve()).as_posix()
                files[f"{name}/{LINK}/{part}"] = path
        elif videos.is_dir():
            links[f"{name}/{LINK}"] = videos.resolve()
    written = [*texts, *files, *links]
    make_folder(folder)
    write_json(folder / MARK, sorted({*written, *before}))
    try:
        _remove(folder, before - {*written})
        for name, path in links.items():
            _link(folder / name, path)
        for name, path in files.items():
            make_folder((folder / name).parent)
            with path.open("rb") as reader, replacing(folder / name, durable=False) as writer:
                shutil.copyfileobj(reader, writer)
        for name, text in texts.items():
            make_folder((folder / name).parent)
            with replacing(folder / name, "w", encoding="utf-8", newline="\n") as handle:
                handle.write(text)
    except OSError as error:
        raise UserError(f"Cannot export to {folder}: {reason(error)}.") from error
    write_json(folder / MARK, sorted(written))
    return len(runs)


def _folders(web: Path) -> list[Path]:
    return [Path(place) for place, folders, _ in os.walk(web) if not folders.sort()]


def _written_before(folder: Path) -> set[str]:
    """What an earlier export wrote into a folder; refuses one that holds other things."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return set()
    refusal = UserError(
        f"{folder} holds something else than exported pages: name a new folder for --export."
    )
    if not (folder / MARK).is_file():
        raise refusal
    names = read_json(folder / MARK, "list of exported pages")
    if not isinstance(names, list) or not all(isinstance(n, str) and _is_inside(n) for n in names):
        raise refusal
    return set(names)


def _is_inside(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/")) and "\0" not in name


def _remove(folder: Path, names: set[str]) -> None:
    """Remove files and links, and the folders that hold nothing any more."""
    for name in sorted(names):
        path = folder / name
        # A link on the way may lead out of the folder.
        if not path.parent.resolve().is_relative_to(folder.resolve()):
            continue
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        with suppress(OSError):
            for parent in path.parents[: len(Path(name).parts) - 1]:
                parent.rmdir()


def _link(link: Path, target: Path) -> None:
    make_folder(link.parent)
    relative = os.path.relpath(target, link.parent.resolve())
    if link.is_symlink():
        link.unlink()
    link.symlink_to(relative, target_is_directory=True)
