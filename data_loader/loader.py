"""`ExpertDataLoader`: from what a config asks for to a training set and a retrieval set."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.batches import CaptionChoice, TrainingSet
from data_loader.formats.read import read_plain_mapping
from data_loader.retrieval_set import RetrievalSet, first_captions
from data_loader.sets.declared import Expert, LacksTokens, LoaderSettings
from data_loader.sets.description import find_description
from data_loader.sets.layout import (
    ExpertSource,
    FileFinder,
    expert_source,
    read_videos,
    videos_of,
)
from data_loader.sets.near_ids import hint
from data_loader.store.feature_store import (
    ExpertFeatures,
    ExpertView,
    FeatureStore,
    TextFeatures,
    TextView,
    fits_on,
    numbered,
)
from data_loader.teachers.teacher import Teacher, open_teacher
from utils.errors import UserError, short

logger = logging.getLogger(__name__)

# Where nobody says how many tokens are kept, this percentage of the videos is proposed to stay
# whole.
_KEPT_WHOLE = 95


class ExpertDataLoader:
    """A data set's training batches and retrieval set.

    Args:
        settings: what a config asks of it.
        seed: decides the order of the videos and the captions drawn.
        device: where tensors go.

    Attributes:
        experts: what a model needs to know about each expert, in sorted name order (this order
            fixes the order of a model's parameters).
        text_size: length of a word's vector.
        max_text_tokens: words of a caption that are kept (1 where they are averaged).
        train: the training set.
        retrieval: the retrieval set.

    Raises:
        UserError: a name, a value or a file cannot be used.
    """

    def __init__(
        self, settings: LoaderSettings, seed: int = 0, device: str | torch.device = "cpu"
    ) -> None:
        self._settings = settings
        self.description = find_description(settings.dataset_name, settings.data_dir)
        self._finder = FileFinder(self.description, settings.root_feat_folder)
        self._split = self.description.split(settings.split_name)
        self._store = store = FeatureStore(self._finder, settings.cache_dir)
        sources = [self._source(name) for name in settings.experts]
        self._features = [store.expert(source) for source in sources]
        self._text = store.text(settings.text_feat, settings.text_dim)
        self._retrieval_finder, self._retrieval_text = self._finder, self._text
        if self._split.challenge_test:
            # Its videos and captions were published later, in a folder of their own.
            folder = settings.challenge_test_root_feat_folder
            self._retrieval_finder = self._finder.preferring(folder)
            store = FeatureStore(self._retrieval_finder, settings.cache_dir)
            self._retrieval_text = store.text(settings.text_feat, settings.text_dim)
        self._raw = store.captions()
        self._check_tokens()
        self.experts = tuple(map(self._expert, self._features))
        self.text_size = self._text.size
        self.max_text_tokens = settings.tokens_of("text")
        self.train = self._training_set(seed)
        self.retrieval = self._retrieval_set()
        self.move_to(device)

    def _source(self, name: str) -> ExpertSource:
        aggregation = self._settings.feat_aggregation.get(name, {})
        return expert_source(name, self._finder, self._split, aggregation, self._settings.face_dim)

    def _check_tokens(self) -> None:
        """Insist that the config says how many tokens to keep of all that varies in length.

        Raises:
            LacksTokens: it does not.
        """
        settings = self._settings
        offsets = {f.source.name: f.offsets for f in self._features if f.offsets is not None}
        if settings.text_agg != "avg":
            offsets["text"] = self._text.offsets
        lacking = {
            name: max(1, int(np.percentile(np.diff(cuts), _KEPT_WHOLE)))
            for name, cuts in offsets.items()
            if name not in settings.max_tokens
        }
        if lacking:
            raise LacksTokens(lacking)

    def _expert(self, features: ExpertFeatures) -> Expert:
        name, varies = features.source.name, features.offsets is not None
        return Expert(name, varies, features.size, self._settings.tokens_of(name) if varies else 1)

    def move_to(self, device: str | torch.device) -> None:
        """Let tensors go to another device from now on, and keep all features there if they fit."""
        device = numbered(device)
        parts = {*self._features, self._text, self._retrieval_text}
        if fits_on(device, (part.values for part in parts)):
            for part in parts:
                part.values = part.values.to(device)
            logger.info("All features lie on %s.", device)
        elif device.type != "cpu":
            logger.info("The features are too large for %s: batches go there.", device)
        self.train.device = self.retrieval.device = device

    def _training_set(self, seed: int) -> TrainingSet:
        settings = self._settings
        if settings.training_file:
            path = self._finder.find_given(settings.training_file, "the training list")
            video_ids = read_videos(path, self.description)
        else:
            video_ids = videos_of(self._split.train, self._finder)
        experts = self._expert_views(video_ids, "train")
        view = self._text_view(self._text, video_ids, "train", settings.restrict_train_captions)
        choice = CaptionChoice.among_first(view.queries_per_video)
        if settings.caption_masks:
            path = self._finder.find_given(settings.caption_masks, "the caption masks")
            choice = choice.where(_allowed(path, video_ids, self._text, view))
        return TrainingSet(
            *(video_ids, experts, view, choice, settings.batch_size),
            text_dropout=settings.text_dropout,
            captions_per_video=settings.captions_per_video,
            seed=seed,
        )

    def _retrieval_set(self) -> RetrievalSet:
        settings = self._settings
        video_ids = videos_of(self._split.val, self._retrieval_finder)
        experts = self._expert_views(video_ids, "retrieval")
        view = self._text_view(self._retrieval_text, video_ids, "retrieval")
        self._compare_with_raw(video_ids, view)
        counts = view.queries_per_video
        is_given = bool(self._split.test_caption_index) and not settings.fuse_captions
        if is_given:
            chosen = self._given_captions(video_ids, counts)
        elif settings.num_test_captions is None and not self.description.published:
            chosen = first_captions(counts, int(counts.max()))
        else:
            wanted = 1 if settings.fuse_captions else settings.num_test_captions or 1
            chosen = first_captions(counts, wanted)
            absent = int((chosen < 0).sum())
            if absent:
                logger.info("retrieval: %d of %d queries do not exist", absent, chosen.size)
        fused = settings.fuse_captions
        return RetrievalSet(video_ids, experts, view, self._raw, chosen, fused, is_given)

    @property
    def feature_folder(self) -> Path:
        """The folder in which the data set's files are looked for first."""
        return self._finder.folders[0]

    @property
    def text_encoder(self) -> dict[str, Any]:
        """What made the text features, see `FeatureStore.text_encoder`."""
        return self._store.text_encoder(self._settings.text_feat)

    def teacher(self, name: str) -> Teacher:
        """Open a teacher of the training videos: a path, or a file in the data set's folders.

        Raises:
            UserError: there is none, it is damaged, or it is of other videos or captions.
        """
        remedy = "make it with misc/make_teachers.py from a trained model"
        if self.description.published:
            remedy = f"{self._finder.remedy()}, or {remedy}"
        path = self._finder.find_given(name, "a teacher", remedy)
        counts = self._text.index.captions(self.train.video_ids)[1]
        if self._settings.fuse_captions:
            counts = np.ones_like(counts)
        packed = open_teacher(path, self._store.folders)
        teacher = Teacher(str(path), packed, self.train.video_ids, counts)
        teacher.move_to(self.train.device)
        return teacher

    def training_queries(self, video_ids: list[str] | None = None) -> RetrievalSet:
        """Return all training videos, or some, with all of their captions as a retrieval set."""
        video_ids = self.train.video_ids if video_ids is None else video_ids
        role = "all training captions"
        experts = self._expert_views(video_ids, role)
        view = self._text_view(self._text, video_ids, role)
        counts = view.queries_per_video
        return RetrievalSet(
            video_ids,
            experts,
            view,
            self._store.captions(),
            first_captions(counts, int(counts.max())),
            fused=self._settings.fuse_captions,
            device=self.train.device,
        )

    def _expert_views(self, video_ids: list[str], role: str) -> list[ExpertView]:
        """Look at all experts for a list; warn of an expert that none of it has, and why.

        Raises:
            UserError: nothing of any video is there to be searched for.
        """
        views = [
            ExpertView(item, expert, video_ids)
            for item, expert in zip(self._features, self.experts, strict=True)
        ]
        for view in views:
            view.log(role)
        absent = [view.features for view in views if not view.availability.any()]
        if len(absent) == len(views):
            names = ", ".join(item.source.name for item in absent)
            known = {key for item in absent for key in item.ids}
            raise UserError(
                f"None of the {len(video_ids)} videos of {self._named(role)} has any of the "
                f'experts {names}: their files do not know "{video_ids[0]}" or any other of these '
                f"ids{hint(video_ids, known)}."
            )
        for item in absent:
            because = hint(video_ids, item.ids)
            logger.warning('%s: no video has "%s"%s.', role, item.source.name, because)
        return views

    def _text_view(
        self, text: TextFeatures, video_ids: list[str], role: str, first: int = 0
    ) -> TextView:
        settings, most = self._settings, self.max_text_tokens
        average = settings.text_agg == "avg"
        where = self._named(role)
        view = TextView(text, video_ids, most, settings.fuse_captions, average, first, where)
        view.log(role)
        return view

    def _named(self, role: str) -> str:
        return f'the split "{self._settings.split_name}" ({role})'

    def _compare_with_raw(self, video_ids: list[str], view: TextView) -> None:
        """Insist that text features and raw captions tell of the same captions."""
        counts = self._raw.index.captions(video_ids)[1]
        other = np.flatnonzero(counts != view.caption_counts)
        if not len(other):
            return
        first = other[0]
        message = (
            f"{len(other)} videos of the retrieval set have another number of raw captions than of "
            f'captions with text features (the first is "{video_ids[first]}": {counts[first]} and '
            f"{view.caption_counts[first]})"
        )
        if not self.description.published:
            without = [key for key, count in zip(video_ids, counts, strict=True) if not count]
            raise UserError(
                f"{message}: make the text features again from these captions"
                f"{hint(without, self._raw.index.row_of.keys())}."
            )
        logger.warning("%s; rankings may show other texts than were searched for.", message)

    def _given_captions(self, video_ids: list[str], counts: np.ndarray) -> np.ndarray:
        """Return (N, 1) the caption by which the split searches each video."""
        name = self._split.test_caption_index
        assert name is not None  # only splits that have one search so
        path = self._finder.find((name,), "the test captions' index")
        index = read_plain_mapping(path, "caption indices")
        for video_id, count in zip(video_ids, counts, strict=True):
            place = index.get(video_id)
            if type(place) is not int or not 0 <= place < count:
                raise UserError(
                    f'{path} gives the video "{video_id}" the caption {short(repr(place))}; a '
                    f"number from 0 to {count - 1} was expected{hint(video_ids, index)}."
                )
        return np.array([[index[video_id]] for video_id in video_ids], dtype=np.int64)


def _allowed(path: Path, video_ids: list[str], text: TextFeatures, view: TextView) -> np.ndarray:
    """Return which captions of the training videos a mask file allows, one after the other."""
    masks = read_plain_mapping(path, "caption masks")
    totals = text.index.captions(video_ids)[1]
    allowed = []
    for video_id, total, used in zip(video_ids, totals, view.queries_per_video, strict=True):
        try:
            mask = np.asarray(masks.get(video_id, ()), dtype=np.float32).reshape(-1)
        except (ValueError, TypeError) as error:
            raise UserError(
                f'The caption masks {path} give the video "{video_id}" no list of 0 and 1.'
            ) from error
        if len(mask) != total:
            raise UserError(
                f'The caption masks {path} have {len(mask)} entries for the video "{video_id}", '
                f"which has {total} captions{hint(video_ids, masks)}."
            )
        if not mask[:used].any():
            raise UserError(
                f'The caption masks {path} allow no caption of the training video "{video_id}": '
                "leave it out of the training list (training_file)."
            )
        allowed.append(mask[:used] > 0)
    return np.concatenate(allowed)
