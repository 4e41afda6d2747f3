"""What a training uses of a data set: what stands in its way there, and what it need not mind."""

from collections.abc import Iterable
from dataclasses import dataclass

from data_loader.sets.declared import chosen_experts, modalities_of
from data_loader.sets.description import DataDescription
from utils.config import Config

# What the configs for data sets of one's own (configs/own) name.
_USUAL_TEXT, _USUAL_TEST = "words", "test"
_DATA_SET = "data_loader.args.dataset_name"


@dataclass(frozen=True)
class Use:
    """The parts of a data set that are used.

    Attributes:
        experts: their names; None where all may be used.
        text_features: their names; None where all may be used.
        splits: what is trained and tested on; empty where nobody has said so.
    """

    experts: frozenset[str] | None = None
    text_features: frozenset[str] | None = None
    splits: tuple[str, ...] = ()

    def uses_expert(self, name: str) -> bool:
        return self.experts is None or name in self.experts

    def uses_text(self, name: str) -> bool:
        return self.text_features is None or name in self.text_features


def use_by(config: Config, description: DataDescription) -> Use:
    """Return what the training of a config and its final test use of the config's data set.

    Raises:
        UserError: the config names no expert, text feature or split.
    """
    parts = parts_of(config)
    return Use(
        experts=frozenset(name for part in parts for name in _experts(part, description)),
        text_features=frozenset(part["experts.text_feat"] for part in parts),
        splits=tuple(dict.fromkeys(part["data_loader.args.split_name"] for part in parts)),
    )


def parts_of(config: Config) -> list[Config]:
    """Return the config of the training, and that of the test if it is on the same data set."""
    test = config.eval_config()
    return [config, test] if test[_DATA_SET] == config[_DATA_SET] else [config]


def usual_use(description: DataDescription) -> Use:
    """Return what is used where no config says so: all experts, the text features "words"."""
    if _USUAL_TEXT in description.text_features:
        return Use(text_features=frozenset({_USUAL_TEXT}))
    return Use()


def lacks_usual_test(description: DataDescription) -> bool:
    """Whether the configs for data sets of one's own would miss the split that they test on."""
    return not description.published and _USUAL_TEST not in description.splits


def _experts(config: Config, description: DataDescription) -> Iterable[str]:
    named = modalities_of(config["experts.modalities"], description)
    return chosen_experts(named, config.get("experts.drop_feats", ""))
