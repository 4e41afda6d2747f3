"""TeachText: the teachers' similarities of a batch, and a student's loss against them.

T teachers, Q captions, N videos, B videos of a batch with one caption each.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from data_loader.batches import Batch, item_uniform
from data_loader.store.feature_store import send
from data_loader.teachers.teacher import Teacher
from model.loss import DistillationLoss, aggregate_teachers
from model.similarity import TextEmbeddings, VideoEmbeddings, similarity
from utils.errors import UserError

_TEACHER_STREAM = -1  # the streams from 0 on are those of the training set


def text_side(teacher: Teacher, videos: np.ndarray, captions: np.ndarray) -> TextEmbeddings:
    """What a teacher makes of given captions of given training videos, (Q,) each."""
    return TextEmbeddings(*teacher.text(videos, captions))


def video_side(teacher: Teacher, videos: np.ndarray) -> VideoEmbeddings:
    """What a teacher makes of given training videos, (N,)."""
    return VideoEmbeddings(*teacher.video(videos))


class Distillation:
    """The part that teachers take in the training of a student.

    Args:
        teachers: T teachers of the training list.
        aggregate: how their similarities become one, see `model.loss.aggregate_teachers`.
        seed: seed of the run; with "random" it decides, with the epoch and the video, which
            teacher a caption follows.
        device: where the similarities are computed.
        weight: what the loss counts beside the ranking loss, 1 as published.

    Raises:
        UserError: there is no teacher.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        aggregate: str = "mean",
        seed: int = 0,
        device: torch.device | str = "cpu",
        weight: float = 1.0,
    ) -> None:
        if not teachers:
            raise UserError("distil_params.teachers is empty: name at least one teacher.")
        self.teachers = list(teachers)
        self.aggregate = aggregate
        self.distance = DistillationLoss()
        self.weight = weight
        self._seed, self._device = seed, torch.device(device)
        self._are_finite = torch.ones(len(teachers), dtype=torch.bool, device=self._device)

    def teacher_similarities(
        self, video_indices: Tensor | np.ndarray, caption_indices: Tensor | np.ndarray
    ) -> Tensor:
        """Return each teacher's similarities of drawn captions and their videos, (T, B, B).

        Args:
            video_indices: (B,) places in the training list.
            caption_indices: (B,) which of each video's captions.
        """
        videos, captions = np.asarray(video_indices), np.asarray(caption_indices)
        sims = []
        for teacher in self.teachers:
            text, video = text_side(teacher, videos, captions), video_side(teacher, videos)
            sims.append(similarity(text.to(self._device), video.to(self._device)))
        stacked = torch.stack(sims)
        self._are_finite &= torch.isfinite(stacked).all(dim=2).all(dim=1)
        return stacked

    def check(self) -> None:
        """See to it that all similarities so far were finite: at the end of an epoch, as it waits.

        Raises:
            UserError: a teacher's embeddings are not finite.
        """
        for teacher, is_finite in zip(self.teachers, self._are_finite.tolist(), strict=True):
            if not is_finite:
                raise UserError(
                    f"The teacher {teacher.name} has embeddings that are not finite: it is "
                    "damaged; make it again with misc/make_teachers.py."
                )

    def target(
        self,
        video_indices: Tensor | np.ndarray,
        caption_indices: Tensor | np.ndarray,
        epoch: int = 0,
    ) -> Tensor:
        """Return the similarities that a student is to come near, (B, B).

        Arguments as in `teacher_similarities`; the epoch matters with "random" alone.
        """
        sims = self.teacher_similarities(video_indices, caption_indices)
        chosen = None
        if self.aggregate == "random":
            drawn = item_uniform(self._seed, epoch, np.asarray(video_indices), _TEACHER_STREAM)
            chosen = send((drawn * len(sims)).astype(np.int64), self._device)
        return aggregate_teachers(sims, self.aggregate, chosen)

    def loss(self, sims: Tensor, batch: Batch, epoch: int = 0) -> Tensor:
        """Return the weighted distillation loss of a student's similarities (B, B) of a batch."""
        target = self.target(*batch.compared, epoch)
        return self.weight * self.distance(sims, target)
