"""`Searcher`: from a sentence, or another video, to the best videos of an index.

Axes: Q sentences, N videos, M experts, E embeddings of a video (M, or 1 where experts share one).
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from data_loader.sets.declared import Expert
from data_loader.sets.near_ids import hint
from misc.search.hits import Hit, Info, Word, join_segments
from misc.search.index.folder import Index
from misc.search.index.parts import VideoFacts
from misc.search.model_folder import ModelFolder
from misc.search.ranking import Found, Question, best, weighted
from model.similarity import (
    TextEmbeddings,
    VideoEmbeddings,
    expert_similarities,
    similarity_to,
)
from utils.errors import UserError, did_you_mean, listed, short

_log = logging.getLogger(__name__)

# What is not wanted counts half of what is: all of it would favour videos that are like nothing.
NOT_WANTED = 0.5
_VIDEOS_AT_ONCE = 4096
# What the path of a video may end in: an index of somebody else's names no other file.
_MEDIA = {
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".f4v", ".3gp", ".ogv", ".vob", ".asf", ".rm", ".rmvb", ".mxf", ".gif"),
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    *(".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac"),
}
# Segments are asked for in larger numbers, as neighbours become one hit.
_SEGMENTS_FOR_A_HIT = 4


Finder = Callable[[Question, int], Found]
"""Finds the best rows of an index for a question."""


class Searcher:
    """Searches an index; see `Searcher.open`. One thread at a time may use it.

    Attributes:
        info: what the index says of itself.
        index: the index, mapped.
    """

    def __init__(self, index: Index, device: torch.device, find: Finder | None = None) -> None:
        self.index = index
        self._find: Finder = partial(best, index) if find is None else find
        manifest = index.manifest
        self._model = ModelFolder(index.folder / manifest.model, device)
        self._device = device
        folders = manifest.video_folders
        self._video_folders = [None if f is None else Path(index.folder, f) for f in folders]
        self._has_segments = bool(np.isfinite(index.times[index.is_found.numpy()]).any())
        self.info = Info(
            name=index.folder.name,
            num_videos=int(index.is_found.sum()),
            experts=manifest.shape.experts,
            data_set=manifest.whose,
            model=manifest.model_kind,
            examples=manifest.examples,
            video_folder=next(filter(None, self._video_folders), None),
            threshold=manifest.threshold,
            correction=manifest.correction,
            takes_text=manifest.text is not None,
            has_weights=not manifest.shape.is_joint,
            takes_files=any(isinstance(e.get("spec"), str) for e in manifest.extractors.values()),
        )

    @classmethod
    def open(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        *,
        exact: bool = False,
        milvus: str | None = None,
    ) -> "Searcher":
        """Open an index that `misc.build_index` built.

        Args:
            folder: of the index.
            device: where queries are embedded; videos are compared on the CPU.
            exact: whether all videos are compared where the index has graphs for a shorter way.
            milvus: address of a Milvus that holds the index, which finds the videos then
                (see `misc.search.milvus`).

        Raises:
            UserError: there is no index, it is damaged, or of a later version.
        """
        index = Index(Path(folder))
        find: Finder | None = None
        if milvus is not None:
            from misc.search.milvus_index import MilvusIndex

            find = MilvusIndex(index, milvus).best
        elif index.manifest.approximate and not exact:
            from misc.search.approximate import Approximate

            find = Approximate(index).best
        return cls(index, torch.device(device), find)

    def __len__(self) -> int:
        """Number of videos that can be found."""
        return self.info.num_videos

    def __contains__(self, video_id: object) -> bool:
        return video_id in self.index.row_of

    @property
    def video_ids(self) -> list[str]:
        """N ids, in the order of `similarities`."""
        return list(self.index.row_of)

    def path_of(self, video_id: str) -> Path | None:
        """Return the file of a video, which need not exist; None where none is known."""
        row = self.index.row_of.get(video_id)
        return None if row is None else self._path(row, self.index.facts_of(row))

    # ---- embeddings and similarities ----

    def encode_text(self, texts: str | Sequence[str]) -> TextEmbeddings:
        """Embed sentences, a query each: E times (Q, D) float32 and weights (Q, M), on the CPU.

        Raises:
            UserError: a sentence has no words (that the encoder knows), or the index does not know
                how its captions were encoded.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise UserError("There is no query: a sentence was expected.")
        return self._model.encode_text(self.index.manifest.text, texts)

    @property
    def inputs(self) -> tuple[Expert, ...]:
        """What `encode_video` takes of each expert."""
        return self._model.experts(self.index.manifest.text, self.index.manifest.shape)

    def encode_video(
        self, experts: Mapping[str, Tensor], ind: Mapping[str, Tensor]
    ) -> VideoEmbeddings:
        """Embed B videos by their experts, on the CPU.

        Args:
            experts: expert -> (B, D), or (B, T, D) float32 for variable length.
            ind: expert -> (B,), 1 where the expert is there.
        """
        return self._model.encode_video(self.index.manifest.text, experts, ind)

    @torch.inference_mode()
    def similarities(self, texts: str | Sequence[str]) -> np.ndarray:
        """Compare sentences with all videos: (Q, N) float32, as `model.similarity` gives it.

        Raises:
            UserError: as `encode_text`.
        """
        return self._similarities(self.encode_text(texts)).numpy()

    def _similarities(self, text: TextEmbeddings) -> Tensor:
        result = torch.empty(len(text), len(self.index))
        for group in self.index.groups:
            for start in range(0, len(group), _VIDEOS_AT_ONCE):
                rows = slice(start, min(start + _VIDEOS_AT_ONCE, len(group)))
                video = group.embeddings(rows, self.index.manifest.shape)
                place = group.first + start
                result[:, place : place + len(video)] = similarity_to(video)(text)
        return result[:, self.index.is_found]

    # ---- searching ----

    def search(
        self,
        query: str | Sequence[str],
        k: int = 5,
        *,
        weights: Mapping[str, float] | None = None,
        without: Sequence[str] = (),
        among: Sequence[str] | None = None,
        between: tuple[float, float] | None = None,
    ) -> list[Hit]:
        """Find the videos that a sentence describes, the best first.

        Args:
            query: a sentence, or several that describe the same: the mean of their similarities.
            k: how many; fewer where there are fewer videos.
            weights: expert -> factor on the mixture weight that a sentence gives it (1 where none
                is named): 0 leaves it out.
            without: sentences that should not fit: the mean similarity to them counts against a
                video, by half.
            among: ids of the videos, or of the parents of segments, among which is searched.
            between: seconds; only segments that overlap this range are searched.

        Raises:
            UserError: a sentence has no words, an expert or all of `among` are not known, a number
                makes no sense, or the index has no segments for `between`.
        """
        wanted = [query] if isinstance(query, str) else list(query)
        unwanted = [without] if isinstance(without, str) else list(without)
        if not wanted:
            raise UserError("There is no query: a sentence was expected.")
        text = self.encode_text([*wanted, *unwanted])
        counts = [1 / len(wanted)] * len(wanted) + [-NOT_WANTED / len(unwanted) for _ in unwanted]
        return self._search(text, torch.tensor(counts), k, weights, among, between, True)

    def more_like(
        self,
        video: str | VideoEmbeddings,
        k: int = 5,
        *,
        weights: Mapping[str, float] | None = None,
        among: Sequence[str] | None = None,
        between: tuple[float, float] | None = None,
    ) -> list[Hit]:
        """Find the videos that are like another one, compared on the video side.

        The experts that both videos have count the same.

        Args:
            video: an id of the index, which is left out itself (with its neighbouring segments), or
                one embedded video (`encode_video`).
            k, weights, among, between: as for `search`.

        Raises:
            UserError: there is no such video, or as for `search`.
        """
        itself: list[int] = []
        if isinstance(video, str):
            row = self._row(video)
            itself = [row]
            video = self.index.video(torch.tensor([row]))
        text = TextEmbeddings(video.embeddings, None)
        if self.index.manifest.shape.weighted:
            text = TextEmbeddings(video.embeddings, video.availability)
        return self._search(text, torch.ones(1), k, weights, among, between, False, itself)

    def _search(
        self,
        text: TextEmbeddings,
        factors: Tensor,
        k: int,
        weights: Mapping[str, float] | None,
        among: Sequence[str] | None,
        between: tuple[float, float] | None,
        is_corrected: bool,
        leave_out: Collection[int] = (),
    ) -> list[Hit]:
        if type(k) is not int or k < 1:
            raise UserError(
                f"k is {short(repr(k))}: a number of videos of at least 1 was expected."
            )
        if weights:
            text = weighted(text, self._factors(weights))
        rows = self._rows(among, between, leave_out)
        question = Question(text, factors, rows, is_corrected)
        asked = k * _SEGMENTS_FOR_A_HIT if self._has_segments else k
        while True:
            found = self._find(question, asked)
            hits = self._hits(question, found)
            if not self._has_segments:
                return hits
            joined = join_segments(hits)
            if len(joined) >= k or len(hits) < asked:
                return joined[:k]
            asked *= 4

    def _factors(self, weights: Mapping[str, float]) -> Tensor:
        shape = self.index.manifest.shape
        unknown = [name for name in weights if name not in shape.experts]
        if unknown:
            raise UserError(
                f'This index has no expert "{short(unknown[0])}"'
                f"{did_you_mean(unknown[0], shape.experts)}: it has {', '.join(shape.experts)}."
            )
        if shape.is_joint:
            raise UserError(
                "The experts of this model share one embedding: they cannot be weighted."
            )
        for name, factor in weights.items():
            if not 0 <= factor < float("inf"):  # NaN is refused as well
                raise UserError(
                    f'The weight of the expert "{name}" is {factor}: a number of 0 or more was '
                    "expected."
                )
        largest = max(1.0, *weights.values())
        return torch.tensor([weights.get(name, 1.0) / largest for name in shape.experts])

    def _rows(
        self,
        among: Sequence[str] | None,
        between: tuple[float, float] | None,
        leave_out: Collection[int],
    ) -> Tensor | None:
        if among is None and between is None and not leave_out:
            return None
        rows = torch.ones(len(self.index), dtype=torch.bool)
        if among is not None:
            rows &= self._among(among)
        if between is not None:
            start, end = between
            if not start <= end:
                raise UserError(f"The time range {start} to {end} has no length.")
            if not self._has_segments:
                raise UserError(
                    f"The index {self.info.name} has whole videos and no segments, so that no time "
                    "can be asked for: build one of a data set that was extracted in segments "
                    "(`python3 -m misc.extract_experts --segments 10`)."
                )
            starts, ends = self.index.times.T
            rows &= torch.from_numpy((starts <= end) & (ends >= start))  # NaN is neither
        rows[list(leave_out)] = False
        return rows

    def _among(self, among: Sequence[str]) -> Tensor:
        rows = torch.zeros(len(self.index), dtype=torch.bool)
        wanted = {among} if isinstance(among, str) else set(among)
        known = self.index.row_of
        rows[[known[key] for key in wanted if key in known]] = True
        parents = self._segments_of if self._has_segments else {}
        for key in wanted - known.keys():
            rows[parents.get(key, [])] = True
        unknown = sorted(wanted - known.keys() - parents.keys())
        if unknown:
            told = f"{listed(map(short, unknown), 3)}{hint(unknown, [*known, *parents])}"
            if len(unknown) == len(wanted):
                raise UserError(f"The index {self.info.name} has none of these videos: {told}.")
            _log.warning("The index has %d of these videos not: %s.", len(unknown), told)
        return rows

    @cached_property
    def _segments_of(self) -> dict[str, list[int]]:
        """Parent -> the rows of its segments."""
        found: dict[str, list[int]] = {}
        for row in self.index.row_of.values():
            parent = self.index.facts_of(row).parent
            if parent is not None:
                found.setdefault(parent, []).append(row)
        return found

    def _row(self, video_id: str) -> int:
        row = self.index.row_of.get(video_id)
        if row is None:
            raise UserError(
                f'There is no video "{short(video_id)}" in this index of {len(self)} videos'
                f"{hint([video_id], self.index.row_of)}."
            )
        return row

    # ---- hits ----

    def _hits(self, question: Question, found: Found) -> list[Hit]:
        if not len(found.rows):
            return []
        weights, similarities = self._why(question, found.rows)
        limit = self.info.threshold if question.is_corrected else None
        hits = []
        for place, row in enumerate(found.rows.tolist()):
            facts = self.index.facts_of(row)
            video_id, score = self.index.id_of(row), float(found.scores[place])
            hits.append(
                Hit(
                    video_id=video_id,
                    similarity=float(found.similarities[place]),
                    score=score,
                    confident=None if limit is None else score >= limit,
                    weights=weights[place],
                    similarities=similarities[place],
                    path=self._path(row, facts),
                    parent=facts.parent or video_id,
                    start=facts.start,
                    end=facts.end,
                    words=tuple(Word(*word) for word in facts.words),
                    captions=tuple(facts.captions),
                )
            )
        return hits

    def _why(
        self, question: Question, rows: Tensor
    ) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        """Return each hit's weights and similarities by expert; means over several sentences."""
        shape = self.index.manifest.shape
        if shape.is_joint:
            return [{} for _ in rows], [{} for _ in rows]
        video = self.index.video(rows)
        wanted = (question.factors > 0).nonzero()[:, 0]
        weights = torch.zeros(len(rows), len(shape.experts))
        shares = torch.zeros_like(weights)
        for sentence in wanted:
            text = question.text[sentence.expand(len(rows))]
            w, s = expert_similarities(text, video)
            weights += w / len(wanted)
            shares += w * s / len(wanted)
        # Of an expert without weight the share is nothing, whatever it says.
        said = shares / torch.where(weights > 0, weights, 1.0)
        there = video.availability > 0

        def named(values: Tensor, row: int) -> dict[str, float]:
            listing = zip(shape.experts, values[row].tolist(), there[row].tolist(), strict=True)
            return {name: value for name, value, is_there in listing if is_there}

        return (
            [named(weights, row) for row in range(len(rows))],
            [named(said, row) for row in range(len(rows))],
        )

    def _path(self, row: int, facts: VideoFacts) -> Path | None:
        """Return the file of a video within its folder of videos; an index is not trusted."""
        part = self.index.place_of(row)[0]
        folder = self._video_folders[part] if part < len(self._video_folders) else None
        if folder is None or facts.path is None:
            return None
        path = PurePosixPath(facts.path)
        is_inside = not path.is_absolute() and ".." not in path.parts and "\0" not in facts.path
        if not is_inside or path.suffix.lower() not in _MEDIA:
            return None
        return folder / path
