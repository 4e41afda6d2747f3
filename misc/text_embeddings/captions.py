"""The captions to encode: a file of them, or those of a data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_loader.sets.description import find_description
from data_loader.sets.layout import FileFinder
from data_loader.store.packing import read_captions
from misc.text_embeddings.job import file_hash
from utils.errors import UserError


@dataclass(frozen=True)
class Captions:
    """Raw captions.

    Attributes:
        path: the file they come from.
        ids: videos.
        counts: number of captions of each video.
        texts: all captions, video after video.
    """

    path: Path
    ids: list[str]
    counts: list[int]
    texts: list[str]

    def name(self, at: int) -> str:
        """Say which caption stands at a place of `texts`."""
        for key, count in zip(self.ids, self.counts, strict=True):
            if at < count:
                return f'caption {at + 1} of the video "{key}"'
            at -= count
        raise IndexError(at)

    def record(self) -> dict[str, Any]:
        """Say what was read, for the record beside the features."""
        return {
            "file": self.path.name,
            "sha256": file_hash(self.path),
            "videos": len(self.ids),
            "captions": len(self.texts),
        }


def read_all(path: Path) -> Captions:
    """Read a file of captions (JSON, or a pickle as published).

    Raises:
        UserError: it cannot be used, or holds no caption.
    """
    table = read_captions(path)
    # A lone surrogate, which JSON can express, is no text that a tokeniser takes.
    texts = [
        text.encode("utf-8", "replace").decode("utf-8")
        for captions in table.values()
        for text in captions
    ]
    if not texts:
        raise UserError(f"{path} holds no captions.")
    return Captions(path, list(table), [len(captions) for captions in table.values()], texts)


def captions_of_dataset(dataset: str, data_dir: Path | None, feature_folder: str) -> Path:
    """Return the captions file of a published data set or of one's own.

    Raises:
        UserError: there is no such data set, or the file is missing.
    """
    description = find_description(dataset, data_dir)
    return FileFinder(description, feature_folder).find((description.captions,), "captions")
