"""What a model has to know of the data, from config and description alone: no file is opened."""

from dataclasses import dataclass
from typing import Any, Protocol

from data_loader.sets.description import find_description
from data_loader.sets.layout import declared_expert, declared_text_size
from utils.errors import UserError, did_you_mean

TEXT_AGGREGATIONS = ("vlad", "avg")


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


@dataclass(frozen=True)
class DeclaredInputs:
    """`ModelInputs` as a config and a description declare them."""

    experts: tuple[Expert, ...]
    text_size: int
    max_text_tokens: int


def declared_inputs(
    dataset_name: str,
    split_name: str,
    max_tokens: dict[str, int],
    modalities: list[str],
    text_feat: str,
    data_dir: str | None = None,
    text_agg: str = "vlad",
    drop_feats: str = "",
    feat_aggregation: dict[str, dict[str, Any]] | None = None,
    face_dim: int | None = None,
    text_dim: int | None = None,
    **of_loading: Any,
) -> DeclaredInputs:
    """Return what the loader of these arguments (see `ExpertDataLoader`) would tell a model.

    Raises:
        UserError: a name or a value cannot be used, or a size is declared nowhere.
    """
    description = find_description(dataset_name, data_dir)
    split = description.split(split_name)
    experts = []
    for name in chosen_experts(modalities, drop_feats):
        aggregation = (feat_aggregation or {}).get(name, {})
        found = declared_expert(name, description, split, aggregation, face_dim)
        if found.size is None:
            description.check_expert(name, split)
            raise _no_size(f'expert "{name}"', f'data_loader.args.feat_aggregation["{name}"]')
        # No part of a model depends on it: 0 where the config leaves it to a later one.
        tokens = max_tokens.get(name, 0) if found.variable_length else 1
        experts.append(Expert(name, found.variable_length, found.size, tokens))
    text_size = declared_text_size(text_feat, description, text_dim)
    if text_size is None:
        raise _no_size(f'text features "{text_feat}"', "experts.text_dim")
    text_tokens = 1 if text_agg == "avg" else token_limit(max_tokens, "text")
    return DeclaredInputs(tuple(experts), text_size, text_tokens)


def token_limit(max_tokens: dict[str, int], name: str) -> int:
    """Return how many tokens of an expert, or words of "text", are kept.

    Raises:
        UserError: the config does not say.
    """
    limit = max_tokens.get(name)
    if type(limit) is not int or limit < 1:
        what = "the captions vary" if name == "text" else f'the expert "{name}" varies'
        raise UserError(
            f"{what[0].upper()}{what[1:]} in length: set data_loader.args.max_tokens.{name} "
            f"in the config to the number of tokens to keep (it is {limit!r})."
        )
    return limit


def check_values(
    text_agg: str, text_dropout: float, num_test_captions: int | None, restrict_train_captions: int
) -> None:
    """Refuse values that no data set can be loaded with.

    Raises:
        UserError: one of them is out of its range.
    """
    if text_agg not in TEXT_AGGREGATIONS:
        hint = did_you_mean(text_agg, TEXT_AGGREGATIONS)
        raise UserError(
            f'text_agg is "{text_agg}"{hint}; known are {", ".join(TEXT_AGGREGATIONS)}.'
        )
    if not 0 <= text_dropout <= 1:
        raise UserError(f"text_dropout is {text_dropout}, a probability from 0 to 1 was expected.")
    if num_test_captions is not None and num_test_captions < 1:
        raise UserError(f"num_test_captions is {num_test_captions}, at least 1 was expected.")
    if restrict_train_captions < 0:
        raise UserError(
            f"restrict_train_captions is {restrict_train_captions}, at least 0 (all) was expected."
        )


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
