"""A trained model, ready to embed captions and videos: `trainer.load_model("<run>")`."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from data_loader.sets.declared import ModelInputs
from model.fast import choose_products
from model.similarity import RetrievalModel
from trainer.build import build_loader, build_net, inputs_of
from trainer.checkpoints.checkpoint import NOT_TESTED, load_checkpoint, load_weights
from trainer.runs.finding import config_of_checkpoint, find_checkpoint
from utils.config import Config
from utils.errors import UserError


class LoadedModel(NamedTuple):
    """A model in evaluation mode, and the config that it was trained with."""

    net: RetrievalModel
    config: Config


def load_model(path: str | Path, device: str | torch.device = "cpu") -> LoadedModel:
    """Load the model of a run, of an experiment (its newest finished run), or of a checkpoint.

    Its `encode_text` takes captions (B, C, T, D) of the config's text features, zero-padded or not,
    and `encode_video` the experts of videos; `model.similarity.similarity` compares the two.

    Args:
        path: the run's folder, the experiment's, or a checkpoint with its config beside or in it.
        device: where the model goes.

    Raises:
        UserError: there is no such model, it cannot be read, its weights do not fit its config, or
            the size of an expert stands neither in the config nor in the data set.
    """
    checkpoint = find_checkpoint(Path(path))
    config = config_of_checkpoint(checkpoint)
    try:
        inputs: ModelInputs = inputs_of(config)
    except UserError:
        # Sizes that only the files of the data set tell.
        inputs = build_loader(config, seed=0)
    content = load_checkpoint(checkpoint, NOT_TESTED, needs_config=False)
    return LoadedModel(net_of(content, checkpoint, config, inputs, device), config)


def net_of(
    content: dict[str, Any],
    path: Path,
    config: Config,
    inputs: ModelInputs,
    device: str | torch.device = "cpu",
) -> RetrievalModel:
    """Build the model of a checkpoint's content in evaluation mode.

    Args:
        content: of the checkpoint.
        path: where it came from, for messages.
        config: of the model.
        inputs: sizes of experts and captions.
        device: where the model goes.

    Raises:
        UserError: the weights do not fit the config.
    """
    net = build_net(config, inputs)
    load_weights(net, content["state_dict"], path)
    net.to(device).eval()
    net.products = choose_products(net, content.get("products"))
    return net
