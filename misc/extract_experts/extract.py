"""Goes through the videos: decoders run ahead in processes of their own, experts follow."""

import os
import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logger.progress import progress
from misc.extract_experts.decoding.cutting import Piece
from misc.extract_experts.decoding.decoder import Decoder
from misc.extract_experts.decoding.media import End, Unreadable
from misc.extract_experts.journal import Done, Features, Journal
from misc.extract_experts.running import Experts, Running, Work
from misc.extract_experts.walk import Video
from utils.errors import UserError
from utils.stopping import deferred

_AHEAD = 2  # pieces that each decoder may be ahead of the experts
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """A video, and the experts that have not seen it yet."""

    video: Video
    state: list[int]
    experts: list[Running]


@dataclass
class Report:
    """What came of it.

    Attributes:
        videos: number that was looked at now.
        seconds: that it took.
        broken: now, id -> why.
    """

    videos: int = 0
    seconds: float = 0.0
    broken: dict[str, str] = field(default_factory=dict)


def jobs_of(
    videos: Sequence[Video], done: Mapping[str, Done], running: Sequence[Running]
) -> list[Job]:
    """Return what is left to do: of a file that has changed, everything."""
    jobs = []
    for video in videos:
        state, known = state_of(video.path), done.get(video.id)
        if known is None or known.state != state:
            missing = list(running)
        elif known.broken:
            missing = []
        else:
            missing = [
                one
                for one in running
                if one.name not in known.experts or known.experts[one.name].digest != one.digest
            ]
        if missing:
            jobs.append(Job(video, state, missing))
    return jobs


def state_of(path: Path) -> list[int]:
    """Return what changes when a file does."""
    try:
        facts = path.stat()
    except OSError:
        return [0, 0]  # the decoder says what is the matter
    return [facts.st_size, facts.st_mtime_ns]


def extract(
    jobs: Sequence[Job],
    experts: Experts,
    journal: Journal,
    base: Path,
    *,
    segments: str,
    workers: int,
    strict: bool,
) -> Report:
    """Let experts see videos, and write down each that is done.

    Args:
        jobs: what to do.
        experts: all experts.
        journal: to write into.
        base: folder that paths are written down from.
        segments: as `items_of` takes it.
        workers: processes that decode.
        strict: whether a broken video ends it.

    Raises:
        UserError: a video is broken (`strict`), or the journal cannot be written.
    """
    waiting: list[tuple[Job, Work]] = []  # that wait for a batch to be full
    with (
        progress(None, len(jobs), "videos", "video") as bar,
        closing(_seen(jobs, experts, segments, workers)) as seen,
    ):
        records = _Records(journal, base, bar)
        for job, work, problem in seen:
            if problem:
                if strict:
                    raise UserError(f"Cannot use {job.video.path}: {problem} (--strict).")
                records.broken(job, problem)
                continue
            waiting.append((job, work))
            experts.finish(len(waiting))
            ready = [pair for pair in waiting if not pair[1].unseen]
            waiting = [pair for pair in waiting if pair[1].unseen]
            for pair in ready:
                records.done(*pair)
        experts.finish()
        for pair in waiting:
            records.done(*pair)
    return records.report()


class _Records:
    """Writes down what is done, and moves the bar."""

    def __init__(self, journal: Journal, base: Path, bar: Any) -> None:
        self._journal, self._base, self._bar = journal, base, bar
        self._start = time.monotonic()
        self._report = Report()

    def done(self, job: Job, work: Work) -> None:
        assert work.end is not None
        record = self._record(job)
        record.seconds, record.items = work.end.seconds, work.end.items
        self._add(job, record, work.features())

    def broken(self, job: Job, problem: Unreadable) -> None:
        record = self._record(job)
        self._report.broken[job.video.id] = record.broken = str(problem)
        self._add(job, record if problem.is_lasting else None, {})

    def report(self) -> Report:
        self._report.seconds = time.monotonic() - self._start
        return self._report

    def _record(self, job: Job) -> Done:
        return Done(os.path.relpath(job.video.path, self._base), job.state)

    def _add(self, job: Job, record: Done | None, features: Mapping[str, Features]) -> None:
        if record is not None:
            with deferred():
                self._journal.add(job.video.id, record, features)
        self._report.videos += 1
        self._bar.update()
        rate = 60 * self._report.videos / (time.monotonic() - self._start)
        self._bar.set_postfix_str(f"{rate:.0f} a minute")


def look_at(path: Path, running: Sequence[Running]) -> dict[str, Features]:
    """Return what experts see in one file.

    Raises:
        UserError: it cannot be decoded.
    """
    experts = Experts(running, together=False)
    job = Job(Video(path.name, path), [], list(running))
    with closing(_seen([job], experts, "", 1)) as seen:
        _, work, problem = next(seen)
    if problem:
        raise UserError(f"Cannot use {path}: {problem}.")
    return work.features()


def _seen(
    jobs: Sequence[Job], experts: Experts, segments: str, workers: int
) -> Generator[tuple[Job, Work, Unreadable | None], None, None]:
    """Let experts see the pieces of all videos; give each video when all of it has gone by."""
    works: dict[int, Work] = {}
    messages = decoded(jobs, experts, segments, workers)
    for number, message in messages:
        job = jobs[number]
        work = works.get(number) or works.setdefault(number, Work(job.experts))
        if isinstance(message, Piece):
            experts.see(work, message)
        else:
            del works[number]
            if isinstance(message, End):
                work.end = message
            yield job, work, None if isinstance(message, End) else message


Message = Piece | End | Unreadable


def decoded(
    jobs: Sequence[Job], experts: Experts, segments: str, workers: int
) -> Iterator[tuple[int, Message]]:
    """Give what the decoders say, with the number of the job it is about."""
    count = max(1, min(workers, len(jobs)))
    pieces: queue.Queue[tuple[int, Message] | BaseException | None] = queue.Queue(_AHEAD * count)
    threads_each = max(1, cores() // count)
    stop = threading.Event()
    numbers = iter(range(len(jobs)))
    lock = threading.Lock()
    decoders = [Decoder(experts.looks, segments, threads_each) for _ in range(count)]

    def put(message: tuple[int, Message] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                pieces.put(message, timeout=_LOOK_SECONDS)
                return
            except queue.Full:
                continue

    def follow(decoder: Decoder) -> None:
        try:
            while not stop.is_set():
                with lock:
                    number = next(numbers, None)
                if number is None:
                    break
                job = jobs[number]
                for message in _messages(decoder, job, experts):
                    put((number, message))
                    if stop.is_set():
                        return
            put(None)
        except BaseException as error:  # noqa: BLE001 (raised again by the one who reads)
            put(error)
        finally:
            decoder.close()

    threads = [threading.Thread(target=follow, args=(one,), daemon=True) for one in decoders]
    for thread in threads:
        thread.start()
    try:
        left = count
        while left:
            message = pieces.get()
            if isinstance(message, BaseException):
                raise message
            if message is None:
                left -= 1
            else:
                yield message
    finally:
        stop.set()
        for decoder in decoders:
            decoder.interrupt()
        for thread in threads:
            thread.join()


def _messages(decoder: Decoder, job: Job, experts: Experts) -> Iterable[Message]:
    try:
        yield from decoder.pieces(job.video.path, experts.looks_of(job.experts))
    except Unreadable as error:
        yield error


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
