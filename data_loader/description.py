"""A data set is a description: its experts, captions, text features, splits and their files.

Published sets are descriptions that ship with this package (`descriptions/*.json`); a data set of
one's own is a folder with a `dataset.json` of the same form. Nothing here opens a feature file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_loader.description_entries import (
    Counts,
    ExpertEntry,
    ListEntry,
    SplitEntry,
    TextEntry,
)
from data_loader.description_reader import DescriptionReader
from data_loader.errors import UserError, did_you_mean
from data_loader.files import read_json
from data_loader.paths import exists

__all__ = [
    "Counts",
    "DataDescription",
    "ExpertEntry",
    "ListEntry",
    "SplitEntry",
    "TextEntry",
    "find_description",
    "parse_description",
    "published_names",
]

PUBLISHED_FOLDER = Path(__file__).parent / "descriptions"
FILE_NAME = "dataset.json"


@dataclass(frozen=True)
class DataDescription:
    """A data set.

    Attributes:
        name: what messages call it.
        source: the file of the description.
        root: folder that all paths are relative to.
        feature_folders: folders under `root` that hold the files, in order of preference.
        experts: experts with a path of their own.
        aggregated_experts: experts whose path follows from the config's `feat_aggregation`.
        captions: file of the raw captions.
        text_features: text features by name.
        splits: splits by name.
        ids_end_at: text at which an entry of a list ends to be a video id (the dot of a file's
            suffix), None where lists hold bare ids.
        published: whether this is a published set, which can be fetched.
    """

    name: str
    source: Path
    root: Path
    feature_folders: tuple[str, ...]
    experts: dict[str, ExpertEntry]
    aggregated_experts: tuple[str, ...]
    captions: str
    text_features: dict[str, TextEntry]
    splits: dict[str, SplitEntry]
    ids_end_at: str | None = None
    published: bool = False

    def split(self, name: str) -> SplitEntry:
        """Return a split by name.

        Raises:
            UserError: there is none of that name.
        """
        return _named(self.splits, name, "split", self.name)

    def text_entry(self, name: str) -> TextEntry:
        """Return text features by name.

        Raises:
            UserError: there are none of that name; the message says where they are declared.
        """
        where = (
            f'; they are declared under "text_features" in {self.source} (the config\'s '
            "text_embedding_model_configs has no effect)"
        )
        return _named(self.text_features, name, "text feature", self.name, where)

    def video_ids(self, listed: list[str]) -> list[str]:
        """Return the video ids that the entries of a list stand for."""
        if self.ids_end_at is None:
            return listed
        return [entry.split(self.ids_end_at, 1)[0] for entry in listed]

    def expert_entry(self, name: str, split: SplitEntry) -> ExpertEntry | None:
        """Return the expert's own path in a split, None if its path follows from the config."""
        return split.experts.get(name) or self.experts.get(name)

    def check_expert(self, name: str, split: SplitEntry) -> None:
        """Insist that the data set has this expert.

        Raises:
            UserError: it has not; the message lists those that it has.
        """
        known = dict.fromkeys((*self.experts, *split.experts, *self.aggregated_experts))
        _named(known, name, "expert", self.name)


def published_names() -> list[str]:
    """Return the names of the published data sets."""
    return sorted(path.stem for path in PUBLISHED_FOLDER.glob("*.json"))


def find_description(dataset_name: str, data_dir: str | Path | None = None) -> DataDescription:
    """Return the description of a published set, or the one in a folder of one's own.

    Args:
        dataset_name: a published name, or a folder that holds a `dataset.json`.
        data_dir: folder of the data; for a published set by default `data/<name>`. A `dataset.json`
            in it is used when `dataset_name` is none of the above.

    Raises:
        UserError: there is no such data set, or its description is not valid.
    """
    names = published_names()
    if dataset_name in names:
        path = PUBLISHED_FOLDER / f"{dataset_name}.json"
        description = parse_description(read_json(path, "description"), path, published=True)
        root = Path(data_dir) if data_dir else description.root
        return DataDescription(**{**vars(description), "root": root})
    for folder in (dataset_name, data_dir):
        if folder and exists(Path(folder) / FILE_NAME):
            path = Path(folder) / FILE_NAME
            return parse_description(read_json(path, "data set description"), path)
    raise UserError(
        f'There is no data set "{dataset_name}"{did_you_mean(dataset_name, names)}: give a '
        f"published name ({', '.join(names)}) or a folder that holds a {FILE_NAME}."
    )


def parse_description(value: Any, source: Path, published: bool = False) -> DataDescription:
    """Check the JSON form of a description and return it.

    Raises:
        UserError: a key is unknown, missing, or has a value of another kind.
    """
    reader = DescriptionReader(source)
    top = reader.mapping(
        value,
        "",
        required=("name", "captions", "text_features", "splits"),
        optional=(
            "root",
            "experts",
            "aggregated_experts",
            "feature_folders",
            "ids_end_at",
            "made_by",
            "notes",
        ),
    )
    root = Path(reader.text(top.get("root", "."), "root"))
    return DataDescription(
        name=reader.name(top["name"], "name"),
        source=source,
        # A published description lies in the package, its data in the working folder.
        root=root if published else source.parent / root,
        feature_folders=tuple(reader.texts(top.get("feature_folders", []), "feature_folders")),
        experts=reader.entries(top.get("experts", {}), "experts", reader.expert),
        aggregated_experts=tuple(
            reader.texts(top.get("aggregated_experts", []), "aggregated_experts")
        ),
        captions=reader.text(top["captions"], "captions"),
        text_features=reader.entries(top["text_features"], "text_features", reader.text_feature),
        splits=reader.entries(top["splits"], "splits", reader.split),
        ids_end_at=reader.text_or_none(top, "ids_end_at", ""),
        published=published,
    )


def _named(entries: dict[str, Any], name: str, what: str, dataset: str, where: str = "") -> Any:
    if name not in entries:
        raise UserError(
            f'The data set {dataset} has no {what} "{name}"{did_you_mean(name, entries)}; '
            f"it has {', '.join(sorted(entries)) or 'none'}{where}."
        )
    return entries[name]
