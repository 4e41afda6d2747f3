"""The model of an index: written with it, loaded by whoever searches or adds videos."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from data_loader.sets.declared import DeclaredInputs, Expert, ModelInputs
from misc.search.queries import QueryEncoder, TextSide
from model.similarity import RetrievalModel, TextEmbeddings
from trainer.checkpoints.checkpoint import NOT_TESTED, load_checkpoint, save_checkpoint
from trainer.load import net_of
from utils.config import Config
from utils.errors import UserError

FILE_NAME = "model.pth"


class ModelFolder:
    """The model, its sizes and its text encoder, each loaded when it is needed first.

    Args:
        folder: of the model in the index.
        device: where it computes.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self._device = folder, device
        self._encoder: QueryEncoder | None = None

    @cached_property
    def _content(self) -> dict[str, Any]:
        return load_checkpoint(self.folder / FILE_NAME, NOT_TESTED)

    @cached_property
    def config(self) -> Config:
        return Config.from_dict(self._content["config"])

    @cached_property
    def inputs(self) -> DeclaredInputs:
        """The sizes of experts and captions that the model takes."""
        try:
            given = self._content["inputs"]
            experts = tuple(Expert(**expert) for expert in given["experts"])
            return DeclaredInputs(experts, given["text_size"], given["max_text_tokens"])
        except (KeyError, TypeError) as error:
            raise UserError(
                f"The index {self.folder.parent} is damaged: its model has no sizes."
            ) from error

    @cached_property
    def net(self) -> RetrievalModel:
        """The model in evaluation mode."""
        path = self.folder / FILE_NAME
        return net_of(self._content, path, self.config, self.inputs, self._device)

    def encode_text(self, side: dict[str, Any] | None, texts: Sequence[str]) -> TextEmbeddings:
        """Embed sentences, one query each, on the CPU.

        Args:
            side: how they come to the model (`TextSide` as plain data).
            texts: the sentences.

        Raises:
            UserError: nobody knows how, or a text has no words.
        """
        if self._encoder is None:
            if side is None:
                raise UserError(
                    f"The index {self.folder.parent} does not know what made the text features of "
                    "its data set, so that it cannot encode a sentence: build it anew with "
                    "`--encoder` (see `python3 -m misc.prepare_text_embeddings --help`)."
                )
            self._encoder = QueryEncoder(self.net, TextSide(**side), self.folder, self._device)
        return self._encoder(texts)


def write_model(
    folder: Path, net: RetrievalModel, config: Config, inputs: ModelInputs, epoch: int | None
) -> None:
    """Write a model as `ModelFolder` reads it.

    Raises:
        UserError: the folder cannot be written.
    """
    sizes = {
        "experts": [asdict(expert) for expert in inputs.experts],
        "text_size": inputs.text_size,
        "max_text_tokens": inputs.max_text_tokens,
    }
    save_checkpoint(
        folder / FILE_NAME,
        {
            "arch": type(net).__name__,
            "epoch": epoch or 0,
            "state_dict": {name: value.cpu() for name, value in net.state_dict().items()},
            "config": config.stored(),
            "products": net.products,
            "inputs": sizes,
        },
    )
