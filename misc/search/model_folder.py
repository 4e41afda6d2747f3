"""The model of an index: written with it, loaded by whoever searches or adds videos."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from data_loader.sets.declared import DeclaredInputs, Expert, ModelInputs
from misc.search.index.manifest import anew
from misc.search.index.parts import Shape
from misc.search.queries import QueryEncoder, TextSide
from misc.search.towers import Towers
from model.similarity import RetrievalModel, TextEmbeddings, VideoEmbeddings
from trainer.checkpoints.checkpoint import NOT_TESTED, load_checkpoint, save_checkpoint
from trainer.evaluation.evaluate import evaluating
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
        self._encoder: QueryEncoder | Towers | None = None

    @cached_property
    def _content(self) -> dict[str, Any]:
        with self._damage():
            return load_checkpoint(self.folder / FILE_NAME, NOT_TESTED)

    @cached_property
    def config(self) -> Config:
        with self._damage():
            return Config.from_dict(self._content["config"])

    @cached_property
    def inputs(self) -> DeclaredInputs:
        """The sizes of experts and captions that the model takes."""
        try:
            given = self._content["inputs"]
            experts = tuple(Expert(**expert) for expert in given["experts"])
            return DeclaredInputs(experts, given["text_size"], given["max_text_tokens"])
        except (KeyError, TypeError) as error:
            raise self._damaged("it has no sizes") from error

    @cached_property
    def net(self) -> RetrievalModel:
        """The model in evaluation mode."""
        found = self._content, self.folder / FILE_NAME, self.config, self.inputs
        with self._damage():
            return net_of(*found, self._device)

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Add to what is wrong with the file how it is made again: by building the index."""
        try:
            yield
        except UserError as error:
            raise self._damaged(str(error).partition("; fetch")[0].removesuffix(".")) from error

    def _damaged(self, why: str) -> UserError:
        index = self.folder.parent
        return UserError(f"The model of the index {index} cannot be used: {why}; {anew(index)}.")

    def experts(self, side: dict[str, Any] | None, shape: Shape) -> tuple[Expert, ...]:
        """Return what `encode_video` takes of each expert."""
        if not _is_zero_shot(side):
            return self.inputs.experts
        pairs = zip(shape.experts, shape.sizes, strict=True)
        return tuple(Expert(name, False, size, 1) for name, size in pairs)

    @torch.inference_mode()
    def encode_video(
        self,
        side: dict[str, Any] | None,
        experts: Mapping[str, Tensor],
        ind: Mapping[str, Tensor],
    ) -> VideoEmbeddings:
        """Embed videos, on the CPU; arguments as for `Searcher.encode_video`."""
        if _is_zero_shot(side):
            there = torch.stack(list(ind.values()), dim=1)
            return VideoEmbeddings(tuple(normalize(x, dim=1) for x in experts.values()), there)
        with evaluating(self.net):
            video = self.net.encode_video(
                {name: x.to(self._device) for name, x in experts.items()},
                {name: x.to(self._device) for name, x in ind.items()},
            )
        return video.to(torch.device("cpu"))

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
            try:
                self._encoder = self._encoder_of(side)
            except (TypeError, LookupError, AttributeError) as error:
                raise self._damaged("it does not say how a sentence is read") from error
        return self._encoder(texts)

    def _encoder_of(self, side: dict[str, Any]) -> QueryEncoder | Towers:
        if _is_zero_shot(side):
            return Towers(side["towers"], self.folder, self._device)
        return QueryEncoder(self.net, TextSide(**side), self.folder, self._device)


def _is_zero_shot(side: dict[str, Any] | None) -> bool:
    return side is not None and "towers" in side


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
