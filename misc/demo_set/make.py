"""Makes a demo set in a folder, or completes one that was interrupted."""

import logging
import os
import shutil
from pathlib import Path

from tqdm import tqdm

from misc.demo_set.assemble import assemble, files
from misc.demo_set.settings import Places, Settings
from misc.demo_set.workers import run_chunks
from utils.errors import UserError
from utils.files import alone, make_folder, read_json, write_json

_log = logging.getLogger(__name__)


def make_demo_set(
    folder: Path,
    *,
    seed: int = 0,
    num_train: int = 1500,
    num_val: int = 250,
    num_test: int = 500,
    progress: bool = True,
    workers: int | None = None,
    train_videos: bool = False,
) -> None:
    """Make a small world of short clips in `folder`, complete an interrupted one, or do nothing.

    The set is a data set like any other (see its ``dataset.json``, which is written last): features
    of six experts, captions, lists of splits, three tables of word vectors, and videos of the
    validation and test clips (of the training clips too with `train_videos`). The same seed and
    sizes give the same files, however many `workers` (default: one for each core) make them.

    Raises:
        UserError: the folder holds something else or a set of another seed or size, cannot be
            written, or a number is out of range.
    """
    settings = Settings(seed, num_train, num_val, num_test, train_videos)
    workers = _num_cores() if workers is None else workers
    if workers < 1:
        raise UserError(f"The demo set needs at least 1 worker, not {workers}.")
    places = Places(make_folder(folder))
    with alone(places.folder, f"making the demo set in {places.folder}") as lock:
        _refuse_other_contents(places, settings)
        if not _is_complete(places, settings):
            _log.info("Making the demo set of %d clips in %s", settings.num_clips, places.folder)
            _make_chunks(places, settings, workers, lock, progress=progress)
            assemble(places, settings)
        shutil.rmtree(places.work, ignore_errors=True)


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _refuse_other_contents(places: Places, settings: Settings) -> None:
    for path, state in ((places.descriptor, "a"), (places.work_record, "an unfinished")):
        if not path.is_file():
            continue
        found = read_json(path, "description of the demo set")
        if path == places.descriptor:
            found = found.get("made_by") if isinstance(found, dict) else None
        if found == settings.made_by:
            return
        raise UserError(
            f"The folder {places.folder} holds {state} data set made with {_words(found)}, not "
            f"with {_words(settings.made_by)}: remove that folder or choose another one."
        )
    names = sorted(path.name for path in places.folder.iterdir())
    others = [name for name in names if not name.startswith(".")]
    if others:
        raise UserError(
            f"The folder {places.folder} holds other files ({others[0]}) and no demo set: "
            "choose a new or an empty folder."
        )


def _words(made_by: object) -> str:
    if not isinstance(made_by, dict):
        return "something other than this program"
    return ", ".join(f"{name} {value}" for name, value in made_by.items())


def _is_complete(places: Places, settings: Settings) -> bool:
    clips = [number for number in range(settings.num_clips) if settings.has_video(number)]
    videos = [places.video(number) for number in clips]
    return all(path.is_file() for path in (places.descriptor, *files(places, settings), *videos))


def _make_chunks(
    places: Places, settings: Settings, workers: int, lock: int, *, progress: bool
) -> None:
    # The record comes first: without it, a folder with files in it is not taken for ours.
    make_folder(places.work)
    write_json(places.work_record, settings.made_by)
    places.descriptor.unlink(missing_ok=True)
    make_folder(places.folder / "videos")
    chunks = settings.chunks()
    missing = [place for place in range(len(chunks)) if not _is_made(places, settings, place)]
    # Training clips have no video and are quick: mixed, the bar moves evenly.
    missing.sort(key=lambda place: place * 0.618 % 1)
    done = settings.num_clips - sum(len(chunks[place]) for place in missing)
    with tqdm(
        total=settings.num_clips,
        initial=done,
        desc="Making the demo set",
        unit="clip",
        disable=None if progress else True,
    ) as bar:
        for place in run_chunks(settings, places, missing, workers, lock):
            bar.update(len(chunks[place]))


def _is_made(places: Places, settings: Settings, place: int) -> bool:
    clips = [number for number in settings.chunks()[place] if settings.has_video(number)]
    videos = (places.video(number).is_file() for number in clips)
    return places.chunk(place).is_file() and all(videos)
