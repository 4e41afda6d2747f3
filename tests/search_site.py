"""A searcher that counts common words, in place of an index: for tests of the page alone."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from misc.search.hits import Hit, Info, Word
from utils.errors import UserError, short

EXPERTS = ("scene", "sound", "speech")


class WordSearcher:
    """Finds videos by the words of their captions.

    Each expert's similarity is drawn from the video's number: sliders change the order.

    Args:
        captions: video id -> its caption.
        paths: video id -> its file.
        times: video id -> start and end of the segment that it is.
        info: what the index says of itself, where it differs.
    """

    def __init__(
        self,
        captions: Mapping[str, str],
        paths: Mapping[str, Path] | None = None,
        times: Mapping[str, tuple[float, float]] | None = None,
        **info: object,
    ) -> None:
        self._captions, self._paths = dict(captions), dict(paths or {})
        self._times = dict(times or {})
        self.video_ids = list(captions)
        said = {
            "name": "tiny",
            "num_videos": len(captions),
            "experts": EXPERTS,
            "data_set": "Tiny",
            "model": "train-ce",
            "examples": tuple(captions.values())[:3],
            "video_folder": None,
            "threshold": None,
            "correction": "none",
            "takes_text": True,
            "has_weights": True,
        }
        self.info = Info(**(said | info))

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._captions

    def __len__(self) -> int:
        return len(self._captions)

    def path_of(self, video_id: str) -> Path | None:
        return self._paths.get(video_id)

    def search(
        self,
        query: str,
        k: int,
        *,
        weights: Mapping[str, float] | None = None,
        without: Sequence[str] = (),
    ) -> list[Hit]:
        if not _words(query):
            raise UserError("The query has no words.")
        return self._best(self.video_ids, query, k, weights or {}, without)

    def more_like(self, video_id: str, k: int, *, weights: Mapping[str, float]) -> list[Hit]:
        if video_id not in self:
            raise UserError(f'There is no video "{short(video_id)}".')
        others = [other for other in self.video_ids if other != video_id]
        return self._best(others, self._captions[video_id], k, weights, ())

    def _best(
        self,
        ids: Sequence[str],
        text: str,
        k: int,
        weights: Mapping[str, float],
        without: Sequence[str],
    ) -> list[Hit]:
        hits = [self._hit(self.video_ids.index(one), text, weights, without) for one in ids]
        return sorted(hits, key=lambda hit: -hit.score)[:k]

    def _hit(
        self, place: int, text: str, weights: Mapping[str, float], without: Sequence[str]
    ) -> Hit:
        video_id = self.video_ids[place]
        caption = _words(self._captions[video_id])
        common = len(_words(text) & caption) / max(1, len(_words(text)))
        unwanted = len(_words(" ".join(without)) & caption)
        apart = {"scene": common, "sound": 0.02 * (place % 7) - 0.04, "speech": 0.01 * (place % 5)}
        factors = {name: weights.get(name, 1.0) * (4 if name == "scene" else 3) for name in EXPERTS}
        total = sum(factors.values()) or 1.0
        factors = {name: factor / total for name, factor in factors.items()}
        similarity = sum(factors[name] * apart[name] for name in EXPERTS)
        words = (
            Word("speech", "good morning", 0.5, 0.9),
            Word("speech", self._captions[video_id], 0.4),
        )
        return Hit(
            video_id,
            similarity,
            similarity - unwanted,
            similarity > 0.2,
            factors,
            apart,
            self._paths.get(video_id),
            video_id,
            *self._times.get(video_id, (None, None)),
            words=words if place == 1 else (),
            captions=(self._captions[video_id],),
        )


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
