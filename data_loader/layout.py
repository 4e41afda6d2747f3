"""Finding the files of a data set: folders of the releases, names that follow from the config."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_loader.description import DataDescription, ExpertEntry, SplitEntry
from data_loader.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExpertSource:
    """One expert's files and what is declared about them.

    Attributes:
        name: the expert.
        files: one file, or several that are concatenated along the features.
        variable_length: whether a video has a varying number of vectors (tokens).
        size: declared length of a vector, None if the file decides.
        binarise: whether present features are replaced by ones.
    """

    name: str
    files: tuple[Path, ...]
    variable_length: bool
    size: int | None
    binarise: bool = False


class FileFinder:
    """Looks files up in the configured folder first, then in those of the other releases."""

    def __init__(self, description: DataDescription, feature_folder: str = "") -> None:
        self.description = description
        first = (feature_folder,) if feature_folder else ()
        names = dict.fromkeys((*first, *description.feature_folders, ""))
        self.folders = [description.root / name for name in names]

    def find(self, names: tuple[str, ...], what: str, remedy: str = "") -> Path:
        """Return the first existing file among the known names in the known folders.

        Args:
            names: names of the file, relative to the folders.
            what: its role, for messages.
            remedy: what to do where it is missing; by default, what the data set advises.

        Raises:
            UserError: there is none; the message lists where it was looked for and what to run.
        """
        candidates = [folder / name for folder in self.folders for name in names]
        for path in candidates:
            if path.is_file():
                if path != candidates[0]:
                    logger.info("%s: using %s (there is no %s)", what, path, candidates[0])
                return path
        looked = ", ".join(str(path) for path in candidates)
        raise UserError(
            f"The file of {what} of the data set {self.description.name} is missing: looked for "
            f"{looked}; {remedy or self.remedy()}."
        )

    def find_given(self, name: str, what: str, remedy: str = "") -> Path:
        """Return a file that the user names: a path of its own, or one in the known folders."""
        return Path(name) if Path(name).is_file() else self.find((name,), what, remedy)

    def remedy(self) -> str:
        """Return what to do where a file of the data set is missing."""
        if self.description.published:
            return (
                f"run `python3 misc/sync_experts.py --dataset {self.description.name}` to fetch it"
            )
        return f"check the path in {self.description.source}"


def expert_source(
    name: str,
    finder: FileFinder,
    split: SplitEntry,
    aggregation: dict[str, Any],
    face_dim: int | None,
) -> ExpertSource:
    """Return where an expert's features lie and what is declared about them.

    Args:
        name: the expert.
        finder: looks the files up.
        split: the split in use, which may replace an expert's file.
        aggregation: the expert's entry of the config's `feat_aggregation`, empty if it has none.
        face_dim: size of the `face` expert, which published configs declare apart.

    Raises:
        UserError: the expert is unknown, its config is incomplete, or a file is missing.
    """
    description = finder.description
    description.check_expert(name, split)
    entry = split.experts.get(name) or description.experts.get(name)
    temporal = aggregation.get("temporal")
    variable = entry.variable_length if entry and temporal is None else temporal == "vlad"
    if entry:
        files = (finder.find(entry.files, f'the expert "{name}"'),)
    else:
        files = tuple(
            finder.find((file,), f'the expert "{name}"') for file in aggregated(name, aggregation)
        )
    return ExpertSource(
        name=name,
        files=files,
        variable_length=variable,
        size=_declared_size(name, entry, aggregation, face_dim, len(files)),
        binarise=bool(aggregation.get("binarise", False)),
    )


def aggregated(name: str, aggregation: dict[str, Any]) -> list[str]:
    """Return the file names of a visual expert `<type>.<model>.<version>`.

    One name for each word of `temporal`:
    `aggregated_<type>_<fps>fps_<pixel_dim>px_stride<stride>[_offset<o>][_inner_stride<i>]
    [_num_segments<n>]/<model>-<word>[-logits].pickle`.

    Raises:
        UserError: the entry of `feat_aggregation` lacks a value that the name needs.
    """
    for key in ("fps", "pixel_dim", "stride", "temporal", "type"):
        if key not in aggregation:
            raise UserError(
                f'The expert "{name}" needs the value "{key}" under '
                f'data_loader.args.feat_aggregation["{name}"] of the config: the name of its file '
                "follows from it."
            )
    kind, model = name.split(".")[:2]
    folder = (
        f"aggregated_{kind.replace('-', '_')}_{aggregation['fps']}fps_"
        f"{aggregation['pixel_dim']}px_stride{aggregation['stride']}"
    )
    for key in ("offset", "inner_stride", "num_segments"):
        if aggregation.get(key) is not None:
            folder += f"_{key}{aggregation[key]}"
    ending = "-logits" if aggregation["type"] == "logits" else ""
    return [
        f"{folder}/{model}-{word}{ending}.pickle" for word in aggregation["temporal"].split("-")
    ]


def _declared_size(
    name: str,
    entry: ExpertEntry | None,
    aggregation: dict[str, Any],
    face_dim: int | None,
    files: int,
) -> int | None:
    if name == "face" and face_dim:
        return face_dim
    if entry and entry.size:
        return entry.size
    sizes = aggregation.get("feat_dims", {})
    size = sizes.get(aggregation.get("type", "embed"))
    return size * files if size else None
