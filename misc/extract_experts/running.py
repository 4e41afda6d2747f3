"""Experts at work: they are handed chunks as these come, and give features of whole videos."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from misc.extract_experts.decoding.cutting import Piece
from misc.extract_experts.decoding.media import End
from misc.extract_experts.expert import Chunk, Frames, Loaded, Look, Seen, Settings, Words
from misc.extract_experts.experts.table import Wanted
from misc.extract_experts.journal import Features
from utils.errors import UserError, short

# Videos that may wait for a GPU's batch to fill.
_MOST_WAITING = 256


@dataclass
class Running:
    """An expert that is loaded.

    Attributes:
        wanted: what was asked for.
        loaded: see there.
        digest: of what decides its features.
        seconds: that it has taken so far.
        waiting: chunks that wait for others to be seen with.
    """

    wanted: Wanted
    loaded: Loaded
    digest: str
    seconds: float = 0.0
    waiting: list[tuple["Work", int, Chunk]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.wanted.name

    def facts(self) -> dict[str, Any]:
        """Return what a data set's description says of the features."""
        return {
            "spec": self.wanted.spec,
            **self.loaded.record,
            "look": look_facts(self.loaded.look),
            "licence": self.wanted.row.licence,
        }


def look_facts(look: Look) -> dict[str, Any]:
    kind = "frames" if isinstance(look, Frames) else "sound"
    return {"of": kind, **asdict(look)}


def load_experts(wanted: Sequence[Wanted], device: str, half: bool, segments: str) -> list[Running]:
    """Load experts.

    Raises:
        UserError: a package or a file is missing, or a name is not known.
    """
    running = []
    for one in wanted:
        loaded = one.row.load(Settings(one.model, device, half))
        decides = [one.row.name, one.row.is_variable, loaded.record, look_facts(loaded.look)]
        text = json.dumps([*decides, loaded.size, segments], sort_keys=True)
        running.append(Running(one, loaded, hashlib.sha256(text.encode()).hexdigest()))
    return running


class Work:
    """One video while experts look at it."""

    def __init__(self, experts: Sequence[Running]) -> None:
        self.experts = experts
        self.end: End | None = None
        self.unseen = 0  # chunks that wait in a batch
        self._rows: dict[tuple[str, int], list[np.ndarray]] = {}
        self._sums: dict[tuple[str, int], tuple[np.ndarray, int]] = {}
        self._words: dict[tuple[str, int], list[Words]] = {}

    def take(self, expert: Running, item: int, seen: Seen) -> None:
        """Add what an expert has seen in a chunk."""
        key = (expert.name, item)
        if seen.vectors is not None and len(seen.vectors):
            rows = np.asarray(seen.vectors, np.float32)
            if expert.wanted.row.is_variable:
                self._rows.setdefault(key, []).append(rows)
            else:
                total, count = self._sums.get(key, (np.zeros(rows.shape[1]), 0))
                self._sums[key] = (total + rows.sum(0, dtype=np.float64), count + len(rows))
        self._words.setdefault(key, []).extend(seen.words)

    def features(self) -> dict[str, Features]:
        """Return what each expert has seen in each item, once the video has ended."""
        count = len(self.end.items) if self.end else 0
        return {
            expert.name: Features(
                expert.digest,
                [self._vectors(expert, item) for item in range(count)],
                [self._told(expert, item) for item in range(count)],
            )
            for expert in self.experts
        }

    def _told(self, expert: Running, item: int) -> list[Words]:
        """Return the words of an item; none lasts longer than it does."""
        start, end = self.end.items[item]
        words = self._words.get((expert.name, item), [])
        return [Words(w.text, w.start, max(w.start, min(w.end, end - start))) for w in words]

    def _vectors(self, expert: Running, item: int) -> np.ndarray:
        key = (expert.name, item)
        if key in self._sums:
            total, count = self._sums[key]
            return (total / count).astype(np.float32)[None]
        rows = self._rows.get(key, [])
        return np.concatenate(rows) if rows else np.empty((0, expert.loaded.size), np.float32)


class Experts:
    """All experts, which share what is decoded.

    Args:
        running: the experts.
        together: whether chunks of several videos are seen in one call, as a GPU likes it. Else
            each is seen by itself, and features do not depend on the company by a single bit.
    """

    def __init__(self, running: Sequence[Running], together: bool) -> None:
        self.running = running
        self.looks: list[Look] = list(dict.fromkeys(one.loaded.look for one in running))
        self._together = together

    def looks_of(self, experts: Sequence[Running]) -> list[int]:
        """Return the numbers of the looks that some experts need."""
        wanted = {one.loaded.look for one in experts}
        return [number for number, look in enumerate(self.looks) if look in wanted]

    def see(self, work: Work, piece: Piece) -> None:
        """Let the experts of a video see a piece of it."""
        chunk = Chunk(piece.values, piece.times)
        for expert in work.experts:
            if expert.loaded.look == self.looks[piece.look]:
                expert.waiting.append((work, piece.item, chunk))
                work.unseen += 1
                if len(expert.waiting) >= (expert.loaded.batch if self._together else 1):
                    _run(expert)

    def finish(self, waiting: int | None = None) -> None:
        """Let everything be seen that waits, unless so few videos do that this can wait."""
        if waiting is None or waiting > _MOST_WAITING:
            for expert in self.running:
                if expert.waiting:
                    _run(expert)


def _run(expert: Running) -> None:
    waiting, expert.waiting = expert.waiting, []
    start = time.perf_counter()
    seen = expert.loaded.function([chunk for _, _, chunk in waiting])
    expert.seconds += time.perf_counter() - start
    for (work, item, _), one in zip(waiting, seen, strict=True):
        _check(expert, one)
        work.take(expert, item, one)
        work.unseen -= 1


def _check(expert: Running, seen: Seen) -> None:
    """Insist that vectors are what the expert promises.

    Raises:
        UserError: they are not finite numbers.
    """
    if seen.vectors is None or not len(seen.vectors):
        return
    size = expert.loaded.size
    if seen.vectors.ndim != 2 or seen.vectors.shape[1] != size:
        raise RuntimeError(f"{expert.name} gives {seen.vectors.shape}, not vectors of size {size}")
    if not np.isfinite(seen.vectors).all():
        raise UserError(
            f'The expert "{short(expert.name)}" gives values that are not finite: run it in full '
            "precision (--precision full)."
        )
