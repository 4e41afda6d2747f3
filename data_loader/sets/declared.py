"""What a config asks of a data set, and what both say of the data: no file is opened."""

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from data_loader.sets.description import DataDescription, SplitEntry, find_description
from utils.config_kinds import AUTO
from utils.errors import UserError, did_you_mean


@dataclass(frozen=True)
class LoaderSettings:
    """What a config asks of a data set; its values are those that the config's check lets through.

    Attributes:
        dataset_name: a published name, or a folder that holds a `dataset.json`.
        split_name: one of the description's splits.
        batch_size: videos of a training batch.
        max_tokens: expert of variable length, and "text", -> tokens kept.
        modalities: the experts to use.
        text_feat: which of the description's text features.
        data_dir: folder of the data; None takes the description's own.
        text_agg: "vlad" gives the model all words, "avg" their mean.
        drop_feats: comma-separated experts to leave out.
        feat_aggregation: expert -> how its features were aggregated; names the files of published
            visual experts, marks variable length (`temporal: vlad`) and `binarise`.
        root_feat_folder: folder of the features in `data_dir`.
        challenge_test_root_feat_folder: folder of the retrieval set in the test phase of a
            challenge (split `public_server_test`), looked into before `root_feat_folder`.
        fuse_captions: join all captions of a video to one.
        num_test_captions: captions of each video of the retrieval set that are queries, the first
            ones; None: all of them for a data set of one's own, one for a published set.
        restrict_train_captions: use the first n captions of training videos only; 0 uses all.
        text_dropout: probability that a training caption keeps each word with probability 0.5.
        captions_per_video: captions of each video in a training step, each compared by itself.
        cache_dir: folder of the packed files, see `FeatureStore`.
        caption_masks: file of video -> 0/1 for each caption; only captions with 1 are drawn.
        training_file: list of training videos that takes the place of the split's.
        face_dim: size of the expert "face".
        text_dim: size of the text features.
    """

    dataset_name: str
    split_name: str
    batch_size: int
    max_tokens: dict[str, int]
    modalities: list[str]
    text_feat: str
    data_dir: str | None = None
    text_agg: str = "vlad"
    drop_feats: str = ""
    feat_aggregation: dict[str, dict[str, Any]] = field(default_factory=dict)
    root_feat_folder: str = ""
    challenge_test_root_feat_folder: str = "challenge"
    fuse_captions: bool = False
    num_test_captions: int | None = None
    restrict_train_captions: int = 0
    text_dropout: float = 0.0
    captions_per_video: int = 1
    cache_dir: str | None = None
    caption_masks: str | None = None
    training_file: str | None = None
    face_dim: int | None = None
    text_dim: int | None = None

    @property
    def experts(self) -> list[str]:
        """The experts to use, in sorted name order (see `chosen_experts`)."""
        return chosen_experts(self.modalities, self.drop_feats)

    def tokens_of(self, name: str) -> int:
        """Return how many tokens of an expert, or words of "text", are kept.

        Raises:
            UserError: the config does not say.
        """
        if name == "text" and self.text_agg == "avg":
            return 1
        limit = self.max_tokens.get(name)
        if limit is None:
            what = "The captions vary" if name == "text" else f'The expert "{name}" varies'
            raise UserError(
                f"{what} in length: set data_loader.args.max_tokens.{name} in the config to the "
                "number of tokens to keep."
            )
        return limit


class LacksTokens(UserError):
    """A config does not say how many tokens to keep of some experts, or of captions ("text").

    Attributes:
        proposed: name -> a number that cuts few of them.
    """

    def __init__(self, proposed: dict[str, int]) -> None:
        self.proposed = proposed
        super().__init__(
            f"The config does not say how many tokens to keep of {', '.join(sorted(proposed))}, "
            "which vary in length: add "
            f'{{"data_loader": {{"args": {{"max_tokens": {json.dumps(proposed)}}}}}}}.'
        )


@dataclass(frozen=True)
class Expert:
    """What a model needs to know about an expert.

    Attributes:
        name: as in the config's modalities.
        variable_length: whether it comes as (B, max_tokens, size) instead of (B, size).
        size: D.
        max_tokens: T, 1 for a fixed size.
    """

    name: str
    variable_length: bool
    size: int
    max_tokens: int


class ModelInputs(Protocol):
    """What a model has to know of the data; a loader knows it too.

    Attributes:
        experts: the experts in sorted name order, which fixes the order of parameters.
        text_size: length of a word's vector.
        max_text_tokens: words of a caption that are kept (1 where they are averaged).
    """

    experts: tuple[Expert, ...]
    text_size: int
    max_text_tokens: int


@dataclass
class DeclaredInputs:
    """`ModelInputs` as a config and a description declare them."""

    experts: tuple[Expert, ...]
    text_size: int
    max_text_tokens: int


def declared_inputs(settings: LoaderSettings) -> DeclaredInputs:
    """Return what the loader of these settings would tell a model.

    Raises:
        UserError: a name or a value cannot be used, or a size is declared nowhere.
    """
    description = find_description(settings.dataset_name, settings.data_dir)
    split = description.split(settings.split_name)
    experts = []
    for name in settings.experts:
        aggregation = settings.feat_aggregation.get(name, {})
        found = declared_expert(name, description, split, aggregation, settings.face_dim)
        if found.size is None:
            description.check_expert(name, split)
            raise _no_size(f'expert "{name}"', f'data_loader.args.feat_aggregation["{name}"]')
        # No part of a model depends on it: 0 where the config leaves it to a later one.
        tokens = settings.max_tokens.get(name, 0) if found.variable_length else 1
        experts.append(Expert(name, bool(found.variable_length), found.size, tokens))
    text_size = declared_text_size(settings.text_feat, description, settings.text_dim)
    if text_size is None:
        raise _no_size(f'text features "{settings.text_feat}"', "experts.text_dim")
    return DeclaredInputs(tuple(experts), text_size, settings.tokens_of("text"))


def modalities_of(modalities: list[str] | str, description: DataDescription) -> list[str]:
    """Return the experts that a config names; "auto" stands for all that a data set describes."""
    return list(description.experts) if modalities == AUTO else list(modalities)


def chosen_experts(modalities: list[str], drop_feats: str) -> list[str]:
    """Return the experts to use, in sorted name order.

    Raises:
        UserError: an expert to leave out is none of the modalities, or none is left.
    """
    dropped = [name.strip() for name in drop_feats.split(",") if name.strip()]
    for name in dropped:
        if name not in modalities:
            raise UserError(
                f'drop_feats names "{name}"{did_you_mean(name, modalities)}, which is not among '
                f"the modalities ({', '.join(sorted(modalities))})."
            )
    chosen = sorted(set(modalities) - set(dropped))
    if not chosen:
        raise UserError("No expert is left: modalities is empty, or drop_feats names all of them.")
    return chosen


def _no_size(what: str, place: str) -> UserError:
    return UserError(
        f"The size of the {what} is declared neither by the data set's description nor by the "
        f"config ({place}): without the data's files it is not known."
    )


@dataclass(frozen=True)
class DeclaredExpert:
    """What is known of an expert before any of its files is opened.

    Attributes:
        size: length of a vector, None if the file decides.
        variable_length: whether a video has a varying number of vectors (tokens), None if the
            file decides.
    """

    size: int | None
    variable_length: bool | None


def declared_expert(
    name: str,
    description: DataDescription,
    split: SplitEntry,
    aggregation: dict[str, Any],
    face_dim: int | None,
) -> DeclaredExpert:
    """Return what config and description say of an expert; arguments as in `expert_source`."""
    entry = description.expert_entry(name, split)
    temporal = aggregation.get("temporal")
    variable: bool | None = temporal == "vlad"
    if entry and temporal is None:
        variable = entry.variable_length
    if name == "face" and face_dim:
        return DeclaredExpert(face_dim, variable)
    if entry and entry.size:
        return DeclaredExpert(entry.size, variable)
    size = aggregation.get("feat_dims", {}).get(aggregation.get("type", "embed"))
    # An expert without a file of its own has one file for each word of `temporal`.
    files = 1 if entry or temporal is None else len(temporal.split("-"))
    return DeclaredExpert(size * files if size else None, variable)


def declared_text_size(name: str, description: DataDescription, text_dim: int | None) -> int | None:
    """Return the size of text features that the description gives, or else the config.

    Published configs may inherit the `text_dim` of other text features than they name.

    Raises:
        UserError: the text features are unknown, or the two differ for a data set of one's own.
    """
    size = description.text_entry(name).size
    if size and text_dim and size != text_dim and not description.published:
        raise UserError(
            f'The config gives experts.text_dim {text_dim}, but the text features "{name}" of '
            f"{description.name} have size {size} by {description.source}."
        )
    return size or text_dim


def aggregated(name: str, aggregation: dict[str, Any]) -> list[str]:
    """Return the file names of a visual expert `<type>.<model>.<version>`.

    One name for each word of `temporal`:
    `aggregated_<type>_<fps>fps_<pixel_dim>px_stride<stride>[_offset<o>][_inner_stride<i>]
    [_num_segments<n>]/<model>-<word>[-logits].pickle`.

    Raises:
        UserError: the entry of `feat_aggregation` lacks a value that the name needs.
    """
    for key in ("fps", "pixel_dim", "stride", "temporal", "type"):
        if key not in aggregation:
            raise UserError(
                f'The expert "{name}" needs the value "{key}" under '
                f'data_loader.args.feat_aggregation["{name}"] of the config: the name of its file '
                "follows from it."
            )
    kind, model = name.split(".")[:2]
    folder = (
        f"aggregated_{kind.replace('-', '_')}_{aggregation['fps']}fps_"
        f"{aggregation['pixel_dim']}px_stride{aggregation['stride']}"
    )
    for key in ("offset", "inner_stride", "num_segments"):
        if aggregation.get(key) is not None:
            folder += f"_{key}{aggregation[key]}"
    ending = "-logits" if aggregation["type"] == "logits" else ""
    return [
        f"{folder}/{model}-{word}{ending}.pickle" for word in aggregation["temporal"].split("-")
    ]
