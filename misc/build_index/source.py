"""What embeds the videos of an index: a trained model, or encoders that need no training here."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.loader import ExpertDataLoader
from data_loader.sets.declared import DeclaredInputs, ModelInputs
from data_loader.sets.description import DataDescription
from misc.build_index.videos import Place, Videos
from misc.make_data_set import make_data_set
from misc.search.index.parts import Shape
from misc.search.model_folder import ModelFolder, write_model
from model.similarity import RetrievalModel, TextEmbeddings, VideoEmbeddings
from trainer.build import build_loader, build_net
from trainer.checkpoints.checkpoint import NOT_TESTED, load_checkpoint
from trainer.evaluation.evaluate import embed_videos, evaluating
from trainer.load import net_of
from trainer.runs.finding import config_of_checkpoint, find_checkpoint
from utils.config import Config
from utils.errors import UserError
from utils.files import read_json

CALIBRATED_CAPTIONS = 1000


class Source(ABC):
    """Embeds the videos of an index.

    Attributes:
        name: of the experiment, or of the data set.
        kind: the experiment, or what searches without training.
    """

    name: str
    kind: str

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """What tells it from any other: what others embed cannot be compared with."""

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """What its embeddings look like."""

    @abstractmethod
    def videos(self, description: DataDescription, asked: str) -> Videos:
        """Open videos of a data set: a list's name, or a file of ids."""

    @abstractmethod
    def embed(self, videos: Videos, places: np.ndarray) -> VideoEmbeddings:
        """Embed some of its videos; the embeddings lie on the CPU."""


class Trained(Source):
    """A trained model, from a checkpoint or from an index.

    Args:
        net: in evaluation mode, on its device.
        config: of its training.
        inputs: sizes of experts and captions.
        device: where it computes.
        epoch: of the checkpoint.
        checkpoint: where it came from.
    """

    def __init__(
        self,
        net: RetrievalModel,
        config: Config,
        inputs: ModelInputs,
        device: torch.device,
        epoch: int | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self.name = self.kind = config.name
        self.net, self.config, self.inputs, self.device = net, config, inputs, device
        self.epoch, self.checkpoint = epoch, checkpoint

    @classmethod
    def of_checkpoint(
        cls, checkpoint: Path, config: Config, device: torch.device
    ) -> tuple["Trained", ExpertDataLoader]:
        """Load the model of a training, and open the data that it was trained on.

        Raises:
            UserError: the model or the data cannot be used.
        """
        make_data_set(config.values)
        loader = build_loader(config, seed=0, device=str(device))
        inputs = DeclaredInputs(loader.experts, loader.text_size, loader.max_text_tokens)
        content = load_checkpoint(checkpoint, NOT_TESTED, needs_config=False)
        net = net_of(content, checkpoint, config, inputs, device)
        return cls(net, config, inputs, device, content["epoch"], checkpoint), loader

    @classmethod
    def of_index(cls, folder: ModelFolder, device: torch.device) -> "Trained":
        """Load the model of an index."""
        return cls(folder.net, folder.config, folder.inputs, device)

    @property
    def fingerprint(self) -> str:
        """A hash of the weights and of how they are used."""
        found = hashlib.sha256(repr(sorted(self.net.expert_dims.items())).encode())
        arch = {key: self.config["arch"][key] for key in sorted(self.config["arch"])}
        found.update(repr((arch, self.inputs.max_text_tokens)).encode())
        for name, value in sorted(self.net.state_dict().items()):
            found.update(name.encode())
            found.update(value.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    @property
    def shape(self) -> Shape:
        """Found out by one video and one caption of zeros."""
        experts = {
            e.name: torch.zeros(1, *([e.max_tokens] if e.variable_length else []), e.size)
            for e in self.inputs.experts
        }
        text = torch.zeros(1, 1, self.inputs.max_text_tokens, self.inputs.text_size)
        with torch.inference_mode(), evaluating(self.net):
            caption = self.net.encode_text(
                text.to(self.device), torch.ones(1, 1, device=self.device)
            )
        video = self._embedded(experts, {name: torch.ones(1) for name in experts})
        sizes = tuple(embedding.shape[1] for embedding in video.embeddings)
        return Shape(tuple(self.net.expert_dims), sizes, caption.weights is not None)

    def write(self, folder: Path) -> None:
        """Write the model into the folder of an index's model."""
        write_model(folder, self.net, self.config, self.inputs, self.epoch)

    def is_same_as(self, path: Path) -> bool:
        """Whether a run or a checkpoint is of this very model."""
        checkpoint = find_checkpoint(path)
        config = config_of_checkpoint(checkpoint)
        content = load_checkpoint(checkpoint, NOT_TESTED, needs_config=False)
        try:
            net = build_net(config, self.inputs).to(self.device)
            net.load_state_dict(content["state_dict"])
        except (UserError, RuntimeError):
            return False
        other = Trained(net, config, self.inputs, self.device)
        return other.fingerprint == self.fingerprint

    def videos(self, description: DataDescription, asked: str) -> Videos:
        args = self.config["data_loader.args"]
        face_dim = self.config["experts"].get("face_dim")
        key = "data_loader.args.split_name"
        splits = (self.config[key], self.config.eval_config()[key])
        place = Place.of(description, args, face_dim)
        return Videos(place, self.inputs, asked, splits)

    def embed(self, videos: Videos, places: np.ndarray) -> VideoEmbeddings:
        return self._embedded(*videos.gather(places))

    def _embedded(
        self, experts: Mapping[str, torch.Tensor], ind: Mapping[str, torch.Tensor]
    ) -> VideoEmbeddings:
        with torch.inference_mode(), evaluating(self.net):
            video = self.net.encode_video(
                {name: x.to(self.device) for name, x in experts.items()},
                {name: x.to(self.device) for name, x in ind.items()},
            )
        return video.to(torch.device("cpu"))

    def validation(
        self, loader: ExpertDataLoader
    ) -> tuple[TextEmbeddings, list[str], VideoEmbeddings] | None:
        """Embed validation captions, with the id and the embeddings of the video of each.

        None where a query is the mean of several captions.
        """
        retrieval = loader.retrieval
        if self.net.test_caption_mode == "avg" and retrieval.query_masks.shape[1] > 1:
            return None
        exists = np.flatnonzero(np.asarray(retrieval.query_masks).reshape(-1))
        chosen = exists[:: max(1, -(-len(exists) // CALIBRATED_CAPTIONS))]
        owners = chosen // retrieval.query_masks.shape[1]
        with torch.inference_mode(), evaluating(self.net):
            features, tokens = retrieval.queries(chosen)
            text = self.net.encode_text(features.to(self.device), tokens.to(self.device))
            video = embed_videos(self.net, retrieval, self.device).to(torch.device("cpu"))
        ids = [retrieval.video_ids[owner] for owner in owners]
        return text.to(torch.device("cpu")), ids, video[torch.from_numpy(owners)]


def extractors_of(description: DataDescription, names: tuple[str, ...]) -> dict[str, Any]:
    """Return what made each expert's features, as the data set records it."""
    told = read_json(description.source, "data set description").get("experts", {})
    found = {}
    for name in names:
        entry = told.get(name)
        made_by = entry.get("extractor") if isinstance(entry, dict) else None
        if isinstance(made_by, dict):
            found[name] = made_by
    return found
