"""Writes small data sets of one's own for tests, and reads the values back the slow way."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.loader import ExpertDataLoader
from data_loader.sets.declared import LoaderSettings
from tests.every_format import ragged, write_npz, write_pickle

WORDS = ["a", "dog", "runs", "over", "the", "red", "bridge", "at", "night", "slowly"]


def write_word_vectors(path: Path, words: list[str], values: np.ndarray) -> None:
    """Write word2vec's binary format."""
    lines = [
        word.encode() + b" " + row.astype("<f4").tobytes() + b"\n"
        for word, row in zip(words, values, strict=True)
    ]
    path.write_bytes(f"{len(words)} {values.shape[1]}\n".encode() + b"".join(lines))


class OwnData:
    """A data set in a folder, with everything that went into it.

    Attributes:
        folder: holds dataset.json.
        ids: the videos; the last `held_out` are the retrieval set.
        fixed, tokens: the tables of the two experts.
        text: video -> list of (words, 6) arrays.
        captions: video -> list of texts.
    """

    def __init__(self, folder: Path, videos: int = 11, held_out: int = 4, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.folder = folder
        self.ids = [f"v{number}" for number in range(videos)]
        self.train_ids, self.val_ids = self.ids[:-held_out], self.ids[-held_out:]
        self.fixed = {
            key: None if number % 5 == 1 else rng.standard_normal(4).astype(np.float32)
            for number, key in enumerate(self.ids)
        }
        self.tokens = ragged(rng, self.ids, 3, 6)
        self.captions = {
            key: [
                " ".join(rng.choice(WORDS, int(rng.integers(1, 8))))
                for _ in range(int(rng.integers(1, 5)))
            ]
            for key in self.ids
        }
        self.text = {
            key: [
                rng.standard_normal((len(caption.split()), 6)).astype(np.float32)
                for caption in captions
            ]
            for key, captions in self.captions.items()
        }
        self.vectors = rng.standard_normal((len(WORDS) - 1, 5)).astype(np.float32)
        self.description: dict[str, Any] = {
            "name": "own",
            "experts": {
                "fixed": {"file": "fixed.npz", "size": 4},
                "tokens": {"file": "tokens.npz", "size": 3, "variable_length": True},
            },
            "captions": "captions.json",
            "text_features": {
                "file": {"file": "text.pkl", "size": 6},
                "words": {"word_vectors": "words.bin"},
            },
            "splits": {
                "val": {"train": "train.txt", "val": {"file": "splits.json", "key": "val"}},
            },
        }
        self.write()

    def write(self) -> None:
        """Write all files."""
        write_npz(self.folder / "fixed.npz", self.fixed, variable=False)
        write_npz(self.folder / "tokens.npz", self.tokens, variable=True)
        write_pickle(self.folder / "text.pkl", self.text)
        write_word_vectors(self.folder / "words.bin", WORDS[:-1], self.vectors)
        (self.folder / "captions.json").write_text(json.dumps(self.captions))
        (self.folder / "train.txt").write_text("\n".join(self.train_ids) + "\n")
        (self.folder / "splits.json").write_text(json.dumps({"val": self.val_ids}))
        (self.folder / "dataset.json").write_text(json.dumps(self.description))

    def loader(self, **changes: Any) -> ExpertDataLoader:
        """Load it, with changed settings or another seed."""
        arguments = {
            "dataset_name": str(self.folder),
            "split_name": "val",
            "batch_size": 3,
            "max_tokens": {"tokens": 4, "text": 5},
            "modalities": ["tokens", "fixed"],
            "text_feat": "file",
        }
        seed = changes.pop("seed", 0)
        return ExpertDataLoader(LoaderSettings(**{**arguments, **changes}), seed)
