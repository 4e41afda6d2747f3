"""The retrieval set: all videos of a list with their captions as queries, given block by block.

N videos, C captions per video, b videos of a block, T tokens, D feature size. Nothing of size
N x C x T x D is ever held: a block is gathered when it is asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from data_loader.batches import gather_experts
from data_loader.store.feature_store import ExpertView, RawCaptions, TextView, send


@dataclass(frozen=True)
class VideoBatch:
    """Some videos of a retrieval set.

    Attributes:
        experts: name -> (b, D) or (b, T, D) float32, zeros where an expert is missing.
        ind: name -> (b,) float32, 1 where the expert is there.
    """

    experts: dict[str, torch.Tensor]
    ind: dict[str, torch.Tensor]


@dataclass(frozen=True)
class TextBatch:
    """The captions of some videos of a retrieval set.

    Attributes:
        text: (b, C, T, D) float32, zeros for captions that do not exist.
        text_token_mask: (b, C) float32, number of tokens of each caption.
        query_masks: (b, C) float32, 1 for captions that exist.
    """

    text: torch.Tensor
    text_token_mask: torch.Tensor
    query_masks: torch.Tensor


@dataclass(frozen=True)
class Protocol:
    """By which queries a retrieval set is searched.

    Attributes:
        queries: how many are scored.
        captions: how many captions these videos have in all.
        name: "each" (all captions, each by itself), "mean" (a query is the mean over captions of a
            video), "first" (the first captions of each video alone), "given" (one caption of each
            video, which the split names).
        first: how many captions of a video are used, the first ones; None for all (or the given).
        fused: whether all captions of a video are joined to one.
    """

    queries: int
    captions: int
    name: str
    first: int | None = None
    fused: bool = False

    def __str__(self) -> str:
        some = "captions" if self.first is None else f"first {self.first} captions"
        if self.first == 1:
            some = "first caption"
        if self.fused:
            how = "the captions of each video joined to one"
        elif self.name == "mean":
            how = f"each the mean over the {some} of a video"
        elif self.name == "given":
            how = "for each video the one that the split names"
        elif self.name == "first":
            alone = "" if self.first == 1 else ", each by itself"
            how = f"the {some} of each video{alone}"
        else:
            how = "each caption by itself"
        return f"{self.queries} queries of {self.captions} captions, {how}"


class RetrievalSet:
    """The videos that are searched, and the captions that search for them.

    Attributes:
        video_ids: N ids.
        caption_indices: (N, C) int64, which caption of the video is the query, -1 for none.
        query_masks: (N, C) float32, 1 for captions that exist.
        device: where blocks go.
    """

    def __init__(
        self,
        video_ids: list[str],
        experts: list[ExpertView],
        text: TextView,
        captions: RawCaptions,
        caption_indices: np.ndarray,
        fused: bool = False,
        given: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        self.video_ids = video_ids
        self.caption_indices = caption_indices
        self.query_masks = (caption_indices >= 0).astype(np.float32)
        self._experts, self._text, self._raw = experts, text, captions
        self._fused, self._given = fused, given
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.video_ids)

    def protocol(self, caption_mode: str = "indep") -> Protocol:
        """Tell by which queries these videos are searched.

        Args:
            caption_mode: the model's `test_caption_mode`: "indep" takes each caption for a query,
                "avg" the mean over a video's.
        """
        width = self.caption_indices.shape[1]
        most = int(self._text.queries_per_video.max(initial=0))
        first = None if self._given or width >= most else width
        # One caption is its own mean, and no model takes it.
        if caption_mode == "avg" and width > 1:
            name = "mean"
        elif self._given:
            name = "given"
        else:
            name = "each" if first is None else "first"
        return Protocol(
            queries=len(self) if name == "mean" else int(self.query_masks.sum()),
            captions=int(self._text.caption_counts.sum()),
            name=name,
            first=first,
            fused=self._fused,
        )

    @property
    def captions(self) -> list[list[str]]:
        """The raw texts of the queries of each video; fused captions are joined to one."""
        result = []
        for video_id, indices in zip(self.video_ids, self.caption_indices, strict=True):
            texts = self._raw.of(video_id)
            if self._fused:
                result.append([" ".join(texts)])
            else:
                result.append([texts[at] for at in indices if 0 <= at < len(texts)])
        return result

    def video_blocks(self, block_size: int, videos: slice = slice(None)) -> Iterator[VideoBatch]:
        """Give all videos, or some, in order, `block_size` at a time."""
        first, end, _ = videos.indices(len(self))
        for start in range(first, end, block_size):
            chosen = np.arange(start, min(start + block_size, end))
            experts, ind = gather_experts(self._experts, chosen)
            yield VideoBatch(self._sent(experts), self._sent(ind))

    def text_blocks(self, videos_per_block: int) -> Iterator[TextBatch]:
        """Give all captions in the order of the videos, those of `videos_per_block` at a time."""
        width = self.caption_indices.shape[1]
        for start in range(0, len(self), videos_per_block):
            chosen = self.caption_indices[start : start + videos_per_block]
            videos = np.repeat(np.arange(start, start + len(chosen)), width)
            text, tokens = self._text.gather(videos, chosen.reshape(-1))
            yield TextBatch(
                text=send(text.view(len(chosen), width, *text.shape[1:]), self.device),
                text_token_mask=self._tensor(tokens.reshape(len(chosen), width)),
                query_masks=self._tensor(self.query_masks[start : start + len(chosen)]),
            )

    def queries(self, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Give chosen captions: number q is caption q % C of video q // C.

        Returns:
            (q, 1, T, D) float32, zeros for captions that do not exist, and the (q, 1) float32
            number of tokens of each.
        """
        videos = chosen // self.caption_indices.shape[1]
        text, tokens = self._text.gather(videos, self.caption_indices.reshape(-1)[chosen])
        return send(text.unsqueeze(1), self.device), self._tensor(tokens.reshape(-1, 1))

    def _sent(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: send(values, self.device) for name, values in tensors.items()}

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return send(values.astype(np.float32), self.device)


def first_captions(counts: np.ndarray, width: int) -> np.ndarray:
    """Return (N, width) the first `width` captions of each video, -1 where it has fewer."""
    places = np.broadcast_to(np.arange(width), (len(counts), width))
    return np.where(places < counts[:, None], places, -1)
