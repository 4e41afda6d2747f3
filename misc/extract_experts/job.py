"""One extraction from front to end: what is asked for, what is there, what is left to do."""

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from misc.extract_experts.assemble import (
    TEXTS,
    VIDEOS,
    Lost,
    Table,
    free,
    item_ids,
    lost_features,
    only,
    seen_by,
    usable,
    without,
    write_features,
    write_texts,
    write_videos,
)
from misc.extract_experts.data_set import (
    TOOL,
    Finishing,
    Said,
    check_captions,
    finish_without_captions,
    made_by,
)
from misc.extract_experts.decoding.cutting import CUTS
from misc.extract_experts.expert import Words
from misc.extract_experts.experts.table import PRESETS, Wanted, wanted_expert
from misc.extract_experts.extract import cores, extract, jobs_of
from misc.extract_experts.feature_file import FEATURES
from misc.extract_experts.journal import Done, Journal, read_journals
from misc.extract_experts.machines import write_scripts
from misc.extract_experts.report import broken_lines, table_lines
from misc.extract_experts.running import Experts, Running, load_experts
from misc.extract_experts.walk import Video, find_videos
from misc.import_data_set.asked import TOOL as IMPORTER
from misc.import_data_set.asked import Making
from misc.import_data_set.gather import Request
from misc.results.sbatch import Limits
from utils.command_line import select_device
from utils.errors import UserError, listed
from utils.files import (
    PATH_ERRORS,
    alone,
    check_writable,
    exists,
    is_there,
    make_folder,
    read_json,
    reason,
    write_json,
)

_WORK, _SETTINGS = ".extraction", "settings.json"
_DEFAULT_PRESET = "built-in"
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Asked:
    """What the command line asks for; see its help."""

    videos: Sequence[Path]
    output: Path | None
    experts: Sequence[str] = ()
    preset: str | None = None
    device: str | None = None
    precision: str | None = None
    segments: str = ""
    workers: int | None = None
    strict: bool = False
    captions: Sequence[tuple[str, str]] = ()
    split_files: Sequence[tuple[str, str]] = ()
    text_encoder: str | None = None
    captions_as: str = "each"
    shard: tuple[int, int] | None = None
    sbatch: Path | None = None
    shards: int = 10
    sbatch_time: str = Limits.time
    sbatch_memory: str = Limits.memory
    sbatch_option: Sequence[str] = field(default_factory=list)


def run(asked: Asked, arguments: Sequence[str]) -> Iterator[str]:
    """Do what is asked for, and say what was done.

    Args:
        asked: the command line, read.
        arguments: the command line, as it stands: shards are given the same.

    Raises:
        UserError: something cannot be used; before videos are looked at, where that is known.
    """
    place = _place_of(asked)
    work = place / _WORK
    earlier = _earlier(place, work, asked.segments)
    _check_tools(asked.segments)
    wanted = _wanted(asked, earlier)
    made_by(place)
    done = read_journals(work)
    found = find_videos(asked.videos, _known(place, done))
    yield from found.said
    if asked.captions:
        ids = dict.fromkeys([*(video.id for video in found.videos), *done])
        check_captions(asked.captions, [*ids], bool(asked.segments))
    if asked.sbatch:
        limits = Limits(asked.sbatch_time, asked.sbatch_memory)
        yield from write_scripts(asked.sbatch, arguments, asked.shards, limits, asked.sbatch_option)
        return
    device = select_device(asked.device)
    half = asked.precision == "half" if asked.precision else device != "cpu"
    running = load_experts(wanted, device, half, asked.segments)
    missing = [folder for folder in (work, place, *place.parents) if not is_there(folder)]
    make_folder(work)
    number, count = asked.shard or (1, 1)
    name = f"{number}-of-{count}"
    lock = work / name if asked.shard else work
    with alone(lock, f"extracting into {place}"), _undone(place, [] if asked.shard else missing):
        specs = {one.name: one.spec for one in wanted}
        settings = {"tool": TOOL, "segments": asked.segments, "experts": specs}
        write_json(work / _SETTINGS, settings)
        videos = found.videos[number - 1 :: count]
        others = [] if asked.shard else _others(place, done, videos)
        lost = lost_features(place, read_journals(work), asked.segments)
        if lost:
            experts = listed(sorted({expert for _, expert in lost}))
            yield f"features of {experts} are not what was written: these look at videos again"
        yield from _look(asked, videos, others, running, work, name, place, lost)
        if asked.shard:
            return
        digests = {one.name: one.digest for one in running}
        done = only(digests, without(read_journals(work), lost))
        tables, texts = _assemble(place, done, running, asked.segments)
        if not tables:
            raise UserError("No expert has seen anything that becomes a vector: name others.")
        free(work, name, place, done, asked.segments)
    items = [item for name, one in usable(done) for item in item_ids(name, one, asked.segments)]
    empty = [one.name for one in running if one.loaded.size and one.name not in tables]
    if empty:
        yield f"no video has the experts {', '.join(empty)}: they are left out of the data set"
    if not asked.captions and made_by(place) != IMPORTER:
        finish_without_captions(place, tables, items)
        yield f"{asked.output}: {len(items)} videos to search, without captions to train on"
        return
    said = {one.name: (texts[one.name], one.facts()) for one in running if not one.loaded.size}
    yield from _with_captions(asked, tables, said, work, len(items))


def _with_captions(
    asked: Asked, tables: Mapping[str, Table], said: Said, work: Path, videos: int
) -> Iterator[str]:
    """Make a data set to train on, and say how."""
    assert asked.output
    folders = [path for path in asked.videos if path.is_dir()]
    shown = os.path.relpath(folders[0]) if len(folders) == 1 else None
    finishing = Finishing(
        asked.output,
        Request(list(asked.captions), [], list(asked.split_files)),
        Making(None, asked.captions_as, asked.text_encoder, None, shown),
        asked.device,
    )
    imported = [*finishing.with_captions(tables)]
    yield from finishing.with_words(tables, said, work, videos) or imported
    yield "Train:"
    yield f"  python3 train.py --config {shlex.quote(str(asked.output / 'config.json'))}"


# --- What is there --------------------------------------------------------------------------------


def _place_of(asked: Asked) -> Path:
    """Return the data set's folder.

    Raises:
        UserError: it or the videos are not named, or it cannot be written.
    """
    if asked.output is None or not asked.videos:
        missing = "--output" if asked.videos else "--videos"
        raise UserError(f"{missing} is missing: name the videos and the data set's folder.")
    try:
        place = asked.output.resolve()
    except PATH_ERRORS as error:
        raise UserError(f"Cannot write {asked.output}: {reason(error)}.") from error
    check_writable(place)
    return place


def _earlier(place: Path, work: Path, segments: str) -> dict[str, str]:
    """Return the experts of earlier commands, name -> what was asked for.

    Raises:
        UserError: something else lies there, or the videos were cut in another way.
    """
    path = work / _SETTINGS
    if not exists(path):
        for inner in (work, place / "experts", place / "videos.json", place / "texts"):
            # What a killed process was about to write begins with a dot.
            is_ours = inner == work and all(p.name.startswith(".") for p in work.glob("*"))
            if is_there(inner) and not is_ours:
                raise UserError(
                    f"{inner} is there and was not written by this tool: choose another --output."
                )
        return {}
    found = read_json(path, "record of what was extracted")
    experts = found.get("experts") if isinstance(found, dict) else None
    if not isinstance(experts, dict) or found.get("tool") != TOOL:
        raise UserError(f"{path} is damaged: it does not say what was extracted.")
    if found.get("segments") != segments:
        before = f"--segments {found['segments']}" if found.get("segments") else "no --segments"
        raise UserError(f"{place} was extracted with {before}: choose another --output.")
    return {str(name): str(spec) for name, spec in experts.items()}


def _wanted(asked: Asked, earlier: Mapping[str, str]) -> list[Wanted]:
    """Return the experts: those of before, with what is asked for now over and behind them."""
    specs = [*(PRESETS[asked.preset] if asked.preset else ()), *asked.experts]
    if not specs and not earlier:
        specs = list(PRESETS[_DEFAULT_PRESET])
    now = [wanted_expert(spec) for spec in specs]
    names = [one.name for one in now]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(
            f'The expert "{min(twice)}" is asked for twice: give each a name, NAME=EXPERT:MODEL.'
        )
    before = [wanted_expert(spec) for name, spec in earlier.items() if name not in names]
    return sorted([*before, *now], key=lambda one: one.name)


@contextmanager
def _undone(place: Path, missing: Sequence[Path]) -> Iterator[None]:
    """Let nothing stay of what fails before anything was seen.

    What was seen stays, and the same command goes on from there.

    Args:
        place: folder of the data set.
        missing: what is made of `.extraction` and the folders above it, the innermost first.
    """
    try:
        yield
    except UserError:
        work = place / _WORK
        known = [one for _, video in usable(read_journals(work)) for one in video.experts.values()]
        if work in missing and not any(any(one.rows) or any(one.words) for one in known):
            for made in (work, place / FEATURES, place / TEXTS):
                shutil.rmtree(made, ignore_errors=True)
            (place / VIDEOS).unlink(missing_ok=True)
            with suppress(OSError):
                for folder in missing[1:]:
                    folder.rmdir()
        raise


def _known(place: Path, done: Mapping[str, Done]) -> dict[Path, str]:
    """Return the ids of files that have one; those of files that are gone are free again."""
    files = {Path(os.path.normpath(place / one.file)): name for name, one in done.items()}
    return {path: name for path, name in files.items() if os.path.lexists(path)}


def _others(place: Path, done: Mapping[str, Done], named: Sequence[Video]) -> list[Video]:
    """Return the videos of earlier commands: a further expert, or another one, sees these too."""
    ids = {video.id for video in named}
    known = _known(place, dict(usable(done)))
    return [Video(name, path) for path, name in known.items() if name not in ids]


def _check_tools(segments: str) -> None:
    if segments == CUTS:
        try:
            import scenedetect  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"--segments {CUTS} needs scenedetect: run `pip install -r "
                "requirements/extract-requirements.txt`."
            ) from error


# --- What is left to do ---------------------------------------------------------------------------


def _look(
    asked: Asked,
    named: Sequence[Video],
    others: Sequence[Video],
    running: Sequence[Running],
    work: Path,
    name: str,
    place: Path,
    lost: Lost,
) -> Iterator[str]:
    """Let experts see what they have not seen, of videos that are named now or were before."""
    videos = [*named, *others]
    done = without(read_journals(work), lost)
    jobs = jobs_of(videos, done, running)
    with closing(Journal(work, name)) as journal:
        report = extract(
            jobs,
            Experts(running, together=bool(asked.device and asked.device != "cpu")),
            journal,
            place,
            segments=asked.segments,
            workers=asked.workers or min(cores(), _MOST_WORKERS),
            strict=asked.strict,
        )
    done = without(read_journals(work), lost)
    current = {video.id: done[video.id] for video in videos if video.id in done}
    broken = {
        video.id: (video.path, current[video.id].broken)
        for video in videos
        if video.id in current and current[video.id].broken
    }
    paths = {video.id: video.path for video in videos}
    stay = {name for name in report.broken if name in current and not current[name].broken}
    for name, why in report.broken.items():
        also = "; what was seen of it before stays" if name in stay else ""
        broken[name] = (paths[name], f"{why}{also}")
    yield from table_lines(current, running, report)
    yield from broken_lines(broken, len(videos))
    if broken and asked.strict:
        path, why = next(iter(broken.values()))
        raise UserError(f"Cannot use {path}: {why} (--strict).")
    if {video.id for video in named} <= broken.keys() - stay and not asked.shard:
        raise UserError("None of the videos can be used.")


def _assemble(
    place: Path, done: Mapping[str, Done], running: Sequence[Running], segments: str
) -> tuple[dict[str, Table], dict[str, dict[str, tuple[Words, ...]]]]:
    """Write the files of all experts; return their tables, and what they say in words."""
    write_videos(place, done, segments)
    tables, texts = {}, {}
    for one in running:
        row, seen = one.wanted.row, seen_by(one.name, done)
        if row.gives_words:
            texts[one.name] = write_texts(place, one.name, seen, segments)
        if one.loaded.size:
            table = write_features(place, one.name, seen, segments, row.is_variable, one.facts())
            if table:
                tables[one.name] = table
    return tables, texts
