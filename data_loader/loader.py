"""`ExpertDataLoader`: from the names in a config to a training set and a retrieval set."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.batches import CaptionChoice, TrainingSet
from data_loader.formats.read import read_plain_mapping
from data_loader.retrieval_set import RetrievalSet, first_captions
from data_loader.sets.declared import Expert, check_values, chosen_experts, token_limit
from data_loader.sets.description import find_description
from data_loader.sets.layout import FileFinder, expert_source
from data_loader.sets.lists import read_videos, videos_of
from data_loader.sets.near_ids import hint
from data_loader.store.devices import fits_on
from data_loader.store.feature_store import ExpertFeatures, FeatureStore, TextFeatures
from data_loader.store.views import ExpertView, TextView
from data_loader.teachers.files import open_teacher
from data_loader.teachers.teacher import Teacher
from utils.errors import UserError, short

logger = logging.getLogger(__name__)


class ExpertDataLoader:
    """A data set's training batches and retrieval set, as a config asks for them.

    Args:
        data_dir: folder of the data; None takes the description's own.
        dataset_name: a published name, or a folder that holds a `dataset.json`.
        split_name: one of the description's splits.
        batch_size: videos of a training batch.
        max_tokens: expert of variable length, and "text", -> tokens kept.
        modalities: the experts to use.
        text_feat: which of the description's text features.
        text_agg: "vlad" gives the model all words, "avg" their mean.
        drop_feats: comma-separated experts to leave out.
        feat_aggregation: expert -> how its features were aggregated; names the files of published
            visual experts, marks variable length (`temporal: vlad`) and `binarise`.
        root_feat_folder: folder of the features in `data_dir`.
        fuse_captions: join all captions of a video to one.
        num_test_captions: captions of each video of the retrieval set that are queries, the first
            ones; None: all of them for a data set of one's own, one for a published set.
        restrict_train_captions: use the first n captions of training videos only; 0 uses all.
        text_dropout: probability that a training caption keeps each word with probability 0.5.
        captions_per_video: captions of each video in a training step, each compared by itself.
        use_zeros_for_missing: accepted for the configs that set it. A missing expert is zeros with
            `ind` 0 here, with or without it.
        cache_dir: folder of the packed files, see `FeatureStore`.
        num_workers: accepted; gathering from packed arrays needs no workers.
        trn_cat, refresh_lru_cache, challenge_mode: accepted for published configs, without effect.
        challenge_test_root_feat_folder: folder of the retrieval set in the test phase of a
            challenge (split `public_server_test`), looked into before `root_feat_folder`.
        caption_masks: file of video -> 0/1 for each caption; only captions with 1 are drawn.
        training_file: list of training videos that takes the place of the split's.
        face_dim: size of the expert "face".
        text_dim: size of the text features.
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
        self,
        data_dir: str | None,
        dataset_name: str,
        split_name: str,
        batch_size: int,
        max_tokens: dict[str, int],
        modalities: list[str],
        text_feat: str,
        text_agg: str = "vlad",
        drop_feats: str = "",
        feat_aggregation: dict[str, dict[str, Any]] | None = None,
        root_feat_folder: str = "",
        fuse_captions: bool = False,
        num_test_captions: int | None = None,
        restrict_train_captions: int = 0,
        text_dropout: float = 0.0,
        captions_per_video: int = 1,
        use_zeros_for_missing: bool = False,
        cache_dir: str | None = None,
        num_workers: int = 0,
        trn_cat: int = 0,
        caption_masks: str | None = None,
        training_file: str | None = None,
        face_dim: int | None = None,
        text_dim: int | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        refresh_lru_cache: bool = False,
        challenge_mode: bool = False,
        challenge_test_root_feat_folder: str = "challenge",
    ) -> None:
        check_values(text_agg, text_dropout, num_test_captions, restrict_train_captions)
        self._max_tokens = max_tokens
        self._device = torch.device(device)
        self._fuse, self._average = fuse_captions, text_agg == "avg"
        self.description = find_description(dataset_name, data_dir)
        self._finder = FileFinder(self.description, root_feat_folder)
        self._split, self._split_name = self.description.split(split_name), split_name
        names = chosen_experts(modalities, drop_feats)
        sources = [
            expert_source(
                name, self._finder, self._split, (feat_aggregation or {}).get(name, {}), face_dim
            )
            for name in names
        ]
        self._store = store = FeatureStore(self._finder, cache_dir)
        self._features = features = [store.expert(source) for source in sources]
        self._text = text = store.text(text_feat, text_dim)
        self._retrieval_finder, retrieval_text = self._finder, text
        if self._split.challenge_test:
            # Its videos and captions were published later, in a folder of their own.
            self._retrieval_finder = self._finder.preferring(challenge_test_root_feat_folder)
            store = FeatureStore(self._retrieval_finder, cache_dir)
            retrieval_text = store.text(text_feat, text_dim)
        self._raw = store.captions()
        self._make_resident({*features, text, retrieval_text})
        self.experts = tuple(self._expert(item) for item in features)
        self.text_size = text.size
        self.max_text_tokens = 1 if self._average else token_limit(max_tokens, "text")
        self.train = self._training_set(
            features,
            text,
            training_file,
            caption_masks,
            restrict_train_captions,
            batch_size=batch_size,
            text_dropout=text_dropout,
            captions_per_video=captions_per_video,
            seed=seed,
        )
        self.retrieval = self._retrieval_set(features, retrieval_text, num_test_captions)

    def _make_resident(self, parts: Collection[ExpertFeatures | TextFeatures]) -> None:
        """Keep all features on the device that computes, if it has room for them."""
        if fits_on(self._device, (part.values for part in parts)):
            for part in parts:
                part.values = part.values.to(self._device)
            logger.info("All features lie on %s.", self._device)
        elif self._device.type != "cpu":
            logger.info("The features are too large for %s: batches go there.", self._device)

    def _expert(self, features: ExpertFeatures) -> Expert:
        name = features.source.name
        tokens = token_limit(self._max_tokens, name) if features.variable_length else 1
        return Expert(name, features.variable_length, features.size, tokens)

    def _training_set(
        self,
        features: list[ExpertFeatures],
        text: TextFeatures,
        training_file: str | None,
        caption_masks: str | None,
        restrict: int,
        **settings: Any,
    ) -> TrainingSet:
        if training_file:
            path = self._finder.find_given(training_file, "the training list")
            video_ids = read_videos(path, self.description)
        else:
            video_ids = videos_of(self._split.train, self._finder)
        experts = self._expert_views(features, video_ids, "train")
        view = self._text_view(text, video_ids, "train", restrict)
        choice = CaptionChoice.among_first(view.queries_per_video)
        if caption_masks:
            path = self._finder.find_given(caption_masks, "the caption masks")
            choice = choice.where(_allowed(path, video_ids, text, view))
        return TrainingSet(video_ids, experts, view, choice, device=self._device, **settings)

    def _retrieval_set(
        self, features: list[ExpertFeatures], text: TextFeatures, captions_per_video: int | None
    ) -> RetrievalSet:
        video_ids = videos_of(self._split.val, self._retrieval_finder)
        experts = self._expert_views(features, video_ids, "retrieval")
        view = self._text_view(text, video_ids, "retrieval")
        self._compare_with_raw(video_ids, view)
        counts = view.queries_per_video
        is_given = bool(self._split.test_caption_index) and not self._fuse
        if is_given:
            chosen = self._given_captions(video_ids, counts)
        elif captions_per_video is None and not self.description.published:
            chosen = first_captions(counts, int(counts.max()))
        else:
            wanted = 1 if self._fuse else captions_per_video or 1
            chosen = first_captions(counts, wanted)
            absent = int((chosen < 0).sum())
            if absent:
                logger.info("retrieval: %d of %d queries do not exist", absent, chosen.size)
        return RetrievalSet(
            video_ids,
            experts,
            view,
            self._raw,
            chosen,
            fused=self._fuse,
            given=is_given,
            device=self._device,
        )

    @property
    def feature_folder(self) -> Path:
        """The folder in which the data set's files are looked for first."""
        return self._finder.folders[0]

    def teacher(self, name: str) -> Teacher:
        """Open a teacher of the training videos: a path, or a file in the data set's folders.

        Raises:
            UserError: there is none, it is damaged, or it is of other videos or captions.
        """
        remedy = "make it with misc/make_teachers.py from a trained model"
        if self.description.published:
            remedy = f"{self._finder.remedy()}, or {remedy}"
        path = self._finder.find_given(name, "a teacher", remedy)
        counts = self._text.caption_ranges(self.train.video_ids)[1]
        if self._fuse:
            counts = np.ones_like(counts)
        packed = open_teacher(path, self._store.folders)
        teacher = Teacher(str(path), packed, self.train.video_ids, counts)
        teacher.move_to(self._device)
        return teacher

    def training_queries(self, video_ids: list[str] | None = None) -> RetrievalSet:
        """Return all training videos, or some, with all of their captions as a retrieval set."""
        video_ids = self.train.video_ids if video_ids is None else video_ids
        experts = self._expert_views(self._features, video_ids, "all training captions")
        view = self._text_view(self._text, video_ids, "all training captions")
        counts = view.queries_per_video
        chosen = first_captions(counts, int(counts.max()))
        return RetrievalSet(
            video_ids,
            experts,
            view,
            self._store.captions(),
            chosen,
            fused=self._fuse,
            device=self._device,
        )

    def _expert_views(
        self, features: list[ExpertFeatures], video_ids: list[str], role: str
    ) -> list[ExpertView]:
        views = [
            ExpertView(item, expert, video_ids)
            for item, expert in zip(features, self.experts, strict=True)
        ]
        for view in views:
            view.log(role)
        self._check_experts(features, views, video_ids, role)
        return views

    def _check_experts(
        self,
        features: list[ExpertFeatures],
        views: list[ExpertView],
        video_ids: list[str],
        role: str,
    ) -> None:
        """Insist that some video has some expert; warn of an expert that none has, and why.

        Raises:
            UserError: nothing of any video is there to be searched for.
        """
        absent = [
            item for item, view in zip(features, views, strict=True) if not view.availability.any()
        ]
        if len(absent) == len(features):
            names = ", ".join(item.source.name for item in absent)
            known = {key for item in absent for key in item.ids}
            raise UserError(
                f'None of the {len(video_ids)} videos of the split "{self._split_name}" ({role}) '
                f'has any of the experts {names}: their files do not know "{video_ids[0]}" or any '
                f"other of these ids{hint(video_ids, known)}."
            )
        for item in absent:
            because = hint(video_ids, item.ids)
            logger.warning('%s: no video has "%s"%s.', role, item.source.name, because)

    def _text_view(
        self, text: TextFeatures, video_ids: list[str], role: str, first: int = 0
    ) -> TextView:
        where = f'the split "{self._split_name}" ({role})'
        view = TextView(
            text, video_ids, self.max_text_tokens, self._fuse, self._average, first, where
        )
        view.log(role)
        return view

    def _compare_with_raw(self, video_ids: list[str], view: TextView) -> None:
        """Insist that text features and raw captions tell of the same captions."""
        counts = self._raw.counts(video_ids)
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
                f"{hint(without, self._raw.ids)}."
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
    totals = text.caption_ranges(video_ids)[1]
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
