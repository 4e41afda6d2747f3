"""A teacher of the training videos: its embeddings of given captions and videos.

B captions or videos that are asked for, M experts, D embedding size of an expert.
"""

import numpy as np
import torch

from data_loader.store.devices import fits_on
from data_loader.store.packed import MappedPages, Packed
from data_loader.store.views import gather_rows
from utils.errors import UserError


class Teacher:
    """One teacher, for the videos of a training list.

    Args:
        name: what messages call it.
        packed: its embeddings, see `teacher_files`.
        video_ids: the training list; videos are asked for by their places in it.
        caption_counts: (V,) raw captions of each of them.

    Raises:
        UserError: it does not know a video of the list, or knows another number of its captions.
    """

    def __init__(
        self, name: str, packed: Packed, video_ids: list[str], caption_counts: np.ndarray
    ) -> None:
        self.name = name
        self.experts: list[str] = packed.facts["experts"]
        self._sizes: list[int] = packed.facts["sizes"]
        self._arrays: dict[str, torch.Tensor] = {
            part: torch.from_numpy(packed.arrays[part])
            for part in ("video", "available", "text", "weights")
            if part in packed.arrays
        }
        self._pages = {part: MappedPages(packed.arrays[part]) for part in self._arrays}
        row_of = {key: row for row, key in enumerate(packed.facts["ids"])}
        self._rows = np.array([row_of.get(key, -1) for key in video_ids], dtype=np.int64)
        self._check_videos(video_ids)
        offsets = packed.arrays["caption_offsets"]
        self._first = np.asarray(offsets[self._rows])
        self._check_captions(video_ids, offsets[self._rows + 1] - self._first, caption_counts)
        self._counts = np.asarray(caption_counts)

    def _check_videos(self, video_ids: list[str]) -> None:
        unknown = np.flatnonzero(self._rows < 0)
        if len(unknown):
            raise UserError(
                f"The teacher {self.name} does not know {len(unknown)} of the {len(video_ids)} "
                f'training videos (the first is "{video_ids[unknown[0]]}"): make it with '
                "misc/make_teachers.py from a model of this data set and split."
            )

    def _check_captions(
        self, video_ids: list[str], known: np.ndarray, expected: np.ndarray
    ) -> None:
        other = np.flatnonzero(known != expected)
        if len(other):
            first = other[0]
            raise UserError(
                f"The teacher {self.name} has {known[first]} captions of the video "
                f'"{video_ids[first]}", the data set has {expected[first]} ({len(other)} videos '
                "differ): it was made from other captions; make it again with "
                "misc/make_teachers.py."
            )

    def move_to(self, device: torch.device) -> None:
        """Keep the embeddings on a device, where there is room for them."""
        if fits_on(device, self._arrays.values()):
            self._arrays = {part: values.to(device) for part, values in self._arrays.items()}

    def text(
        self, videos: np.ndarray, captions: np.ndarray
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
        """Return the embeddings of one caption for each video, M times (B, D), and their weights.

        Args:
            videos: (B,) places in the training list.
            captions: (B,) which of the video's raw captions.

        Returns:
            M times (B, D) float32, and the mixture weights (B, M); None: every expert counts 1.
        """
        videos, captions = np.asarray(videos), np.asarray(captions)
        if (captions < 0).any() or (captions >= self._counts[videos]).any():
            raise IndexError("a caption is asked for that its video does not have")
        rows = self._first[videos] + captions
        weights = self._gather("weights", rows) if "weights" in self._arrays else None
        return self._gather("text", rows).split(self._sizes, dim=1), weights

    def video(self, videos: np.ndarray) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Return the embeddings of videos, M times (B, D) float32, and their availability (B, M).

        Args:
            videos: (B,) places in the training list.
        """
        rows = self._rows[np.asarray(videos)]
        available = self._gather("available", rows)
        return self._gather("video", rows).split(self._sizes, dim=1), available

    def _gather(self, part: str, rows: np.ndarray) -> torch.Tensor:
        self._pages[part].were_read(len(rows))
        return gather_rows(self._arrays[part], rows)
