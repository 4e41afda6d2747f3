"""An index without training: encoders whose sentences lie in the space of what they see or read.

Two kinds of experts can be compared with a sentence as they are: those of a dual encoder (CLIP,
SigLIP, CLAP; its text tower reads the sentence), and words that were heard or read, which a
sentence encoder puts into one space with the sentence. A video's experts count the same; one alone
is the similarity of `MNNet`, of vectors of length 1.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from data_loader.sets.declared import DeclaredInputs, Expert
from data_loader.sets.description import DataDescription
from misc.build_index.encoder import write_encoder
from misc.build_index.facts import words_of_experts
from misc.build_index.source import Source, extractors_of
from misc.build_index.videos import Place, Videos
from misc.search.index.manifest import Manifest
from misc.search.index.parts import Shape
from misc.search.queries import TextSide
from misc.search.towers import DUAL_ENCODER, WORDS, Towers
from misc.text_embeddings.job import Settings
from model.similarity import VideoEmbeddings
from utils.errors import UserError
from utils.files import make_folder

_log = logging.getLogger(__name__)

# Words of a video are read in pieces of so many, which every sentence encoder can take.
_WORDS_OF_A_PIECE = 40
KIND = "zero shot"


class ZeroShot(Source):
    """Encoders that need no training here.

    Args:
        name: of the data set.
        towers: expert -> what reads a sentence for it, plain data (see `misc.search.towers`).
        sizes: expert -> size of its vectors.
        folder: holds the sentence encoder, once it is written.
        encoder: the sentence encoder that the user names.
        texts: what was heard or read, to try it on.
        device: where it computes.
    """

    def __init__(
        self,
        name: str,
        towers: dict[str, dict[str, Any]],
        sizes: dict[str, int],
        device: str,
        folder: Path | None = None,
        encoder: Settings | None = None,
        texts: Sequence[str] = (),
    ) -> None:
        self.name, self.kind = name, KIND
        self._towers, self._sizes, self._device = towers, sizes, device
        self._folder, self._encoder, self._texts = folder, encoder, texts

    @classmethod
    def of(cls, description: DataDescription, encoder: Settings | None, device: str) -> "ZeroShot":
        """Find out what of a data set can be compared with a sentence.

        Raises:
            UserError: nothing can.
        """
        towers: dict[str, dict[str, Any]] = {}
        sizes: dict[str, int] = {}
        for name, made_by in extractors_of(description, tuple(description.experts)).items():
            size = description.experts[name].size
            if isinstance(made_by.get("query"), dict) and size:
                towers[name], sizes[name] = {"kind": DUAL_ENCODER, "query": made_by["query"]}, size
        heard = words_of_experts(description.root)
        if encoder is not None:
            for name in heard:
                towers[f"words of {name}"] = {"kind": WORDS, "expert": name}
        if not towers:
            words = f"; or give --encoder, by which to read the words of {', '.join(heard)}"
            raise UserError(
                f"Nothing of the data set {description.name} can be compared with a sentence "
                "without training: extract an expert of a dual encoder, such as clip or open_clip "
                f"(`python3 -m misc.extract_experts`){words if heard else ''}."
            )
        towers = dict(sorted(towers.items()))
        texts = [
            word[1] for videos in heard.values() for words in videos.values() for word in words
        ]
        return cls(description.name, towers, sizes, device, encoder=encoder, texts=texts)

    @classmethod
    def of_index(cls, manifest: Manifest, folder: Path, device: str) -> "ZeroShot":
        """Take up the encoders of an index again."""
        assert manifest.text is not None  # what a zero-shot index is known by
        sizes = dict(zip(manifest.shape.experts, manifest.shape.sizes, strict=True))
        return cls(manifest.name, manifest.text["towers"], sizes, device, folder)

    def write(self, folder: Path) -> None:
        """Write the sentence encoder, if there is one, into the folder of an index's model."""
        self._folder = make_folder(folder)
        of_words = [tower for tower in self._towers.values() if tower["kind"] == WORDS]
        if of_words:
            assert self._encoder is not None  # or there would be no words
            side = _sentence_side(folder, self._encoder, self._texts)
            for name, tower in self._towers.items():
                if tower["kind"] == WORDS:
                    tower["side"] = asdict(side)
                    self._sizes[name] = side.size

    @property
    def text(self) -> dict[str, Any]:
        """How a sentence is encoded, for the index's manifest."""
        return {"towers": self._towers}

    @property
    def fingerprint(self) -> str:
        told = json.dumps([self._towers, self._sizes], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def shape(self) -> Shape:
        names = tuple(self._towers)
        return Shape(names, tuple(self._sizes[name] for name in names), weighted=True)

    def videos(self, description: DataDescription, asked: str) -> Videos:
        seen = [name for name, tower in self._towers.items() if tower["kind"] == DUAL_ENCODER]
        # Frames of a video that were kept apart count as their mean.
        average = {
            name: {"temporal": "avg"}
            for name in seen
            if name in description.experts and description.experts[name].variable_length
        }
        place = Place.of(description, {"feat_aggregation": average})
        experts = tuple(Expert(name, False, self._sizes[name], 1) for name in seen)
        of_words = [n for n, tower in self._towers.items() if tower["kind"] == WORDS]
        names = [self._towers[name]["expert"] for name in of_words]
        inputs = DeclaredInputs(experts, 0, 1)
        found = Videos(place, inputs, asked, ("all", "all"), words=names)
        order = [*seen, *of_words]
        columns = [order.index(name) for name in self._towers]
        found.availability = found.availability[:, columns]
        return found

    def embed(self, videos: Videos, places: np.ndarray) -> VideoEmbeddings:
        experts, ind = videos.gather(places)
        parts, there = [], []
        for name, tower in self._towers.items():
            if tower["kind"] == DUAL_ENCODER:
                parts.append(normalize(experts[name], dim=1))
                there.append(ind[name])
                continue
            texts = [videos.words(int(place), tower["expert"]) for place in places]
            parts.append(self._of_words(name, texts))
            there.append(torch.tensor([float(bool(words)) for words in texts]))
        return VideoEmbeddings(tuple(parts), torch.stack(there, dim=1))

    def _of_words(self, name: str, texts: Sequence[Sequence[str]]) -> torch.Tensor:
        """Embed what was heard or read in videos: the mean over pieces of it, of length 1."""
        assert self._folder is not None  # written, or of an index
        towers = Towers({name: self._towers[name]}, self._folder, torch.device(self._device))
        result = torch.zeros(len(texts), self._sizes[name])
        for row, words in enumerate(texts):
            if words:
                pieces = _pieces(" ".join(words).split())
                result[row] = normalize(towers(pieces).embeddings[0].mean(dim=0), dim=0)
        return result


def _pieces(words: Sequence[str]) -> list[str]:
    starts = range(0, len(words), _WORDS_OF_A_PIECE)
    return [" ".join(words[start : start + _WORDS_OF_A_PIECE]) for start in starts]


def _sentence_side(folder: Path, encoder: Settings, texts: Sequence[str]) -> TextSide:
    """Write a sentence encoder; where nobody says how it pools, as it says itself, or the mean."""
    if encoder.pooling is not None:
        return write_encoder(encoder, texts, folder)
    try:
        return write_encoder(replace(encoder, pooling="sentence"), texts, folder)
    except UserError:
        return write_encoder(replace(encoder, pooling="mean"), texts, folder)
