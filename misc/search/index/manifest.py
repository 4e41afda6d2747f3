"""What `index.json` says of an index."""

import re
import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from misc.search.index.parts import Shape
from utils.errors import UserError, short
from utils.files import exists, is_there, read_json

FILE_NAME = "index.json"
FORMAT, VERSION = "index of videos", 1
# Names of the folders that an index may have within it.
INNER_FOLDER = re.compile(r"(?:model|part)-[0-9a-f]{16}")


@dataclass(frozen=True)
class Manifest:
    """What `index.json` says.

    Attributes:
        name: of the experiment, or of the data set where nothing was trained.
        model: name of the folder of the model.
        fingerprint: of the model: what it embeds can be compared with nothing else.
        shape: of the embeddings.
        parts: names of the parts' folders, in their order.
        removed: rows (over all parts) that are no longer found.
        data_set: whose videos it was built of.
        data_sets: for each part, whose videos it holds; see `sets`.
        video_folders: for each part, what the paths of its videos are relative to.
        extractors: expert -> what made its features, as `misc.extract_experts` records it.
        text: how a query is encoded, see `misc.search.queries`; None: nobody knows.
        model_kind: the experiment, or what searches without training.
        correction: how hubs are corrected, in words.
        hubness: the rule of the correction, see `model.hubness.Rule`; None for none.
        threshold: of a confident match; None where nothing was calibrated.
        calibration: what the threshold was chosen by, plain data.
        examples: captions.
        made_by: version and sources, plain data.
        approximate: of an approximate index beside the exact one, plain data; None for none.
    """

    name: str
    model: str
    fingerprint: str
    shape: Shape
    parts: tuple[str, ...]
    data_set: str
    data_sets: tuple[str, ...] = ()
    video_folders: tuple[str | None, ...] = ()
    extractors: dict[str, Any] = field(default_factory=dict)
    removed: tuple[int, ...] = ()
    text: dict[str, Any] | None = None
    model_kind: str = ""
    correction: str = "none"
    hubness: dict[str, Any] | None = None
    threshold: float | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
    made_by: dict[str, Any] = field(default_factory=dict)
    approximate: dict[str, Any] | None = None

    @property
    def sets(self) -> tuple[str, ...]:
        """For each part, whose videos it holds, as far as an older index tells."""
        missing = len(self.parts) - len(self.data_sets)
        return (*(self.data_set,) * missing, *self.data_sets)

    @property
    def whose(self) -> str:
        """Whose videos they are, in words."""
        return " and ".join(dict.fromkeys(self.sets))

    def _makes_sense(self) -> bool:
        """Tell whether all values are of their kinds: an index may come from anybody."""
        texts = (self.name, self.model, self.fingerprint, self.data_set, self.model_kind)
        plain = (self.extractors, *self.extractors.values(), self.calibration, self.made_by)
        maybe = (self.text, self.hubness, self.approximate)
        shape = self.shape
        return (
            _are((*texts, self.correction, *self.examples, *self.data_sets), str)
            and _are(self.video_folders, (str, NoneType))
            and _are(plain, dict)
            and _are(maybe, (dict, NoneType))
            and _are((self.threshold,), (int, float, NoneType))
            and _are(self.removed, int)
            and min(self.removed, default=0) >= 0
            and _are(shape.experts, str)
            and _are(shape.sizes, int)
            and min(shape.sizes, default=0) > 0
            and len(shape.sizes) in (1, len(shape.experts))
            and _are(self.parts, str)
            and all(INNER_FOLDER.fullmatch(name) for name in (self.model, *self.parts))
        )

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION} | asdict(self)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of an index.

        Raises:
            UserError: there is none, or it is of a later version or damaged.
        """
        path = folder / FILE_NAME
        if is_there(folder, Path.is_file):
            raise UserError(f"{folder} is a file: the folder of an index was expected.")
        if not exists(path):
            raise UserError(
                f"There is no index in {folder}: build one with `python3 -m misc.build_index RUN "
                f"--output {folder}`."
            )
        value = read_json(path, "index")
        if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
            raise UserError(f"{path} is no index of `misc.build_index`.")
        version = value.pop("version", None)
        if version != VERSION:
            raise UserError(
                f"The index {folder} is of version {short(version)}, this program reads "
                f"{VERSION}: {anew(folder)}."
            )
        try:
            shape = value.pop("shape")
            shape = Shape(tuple(shape["experts"]), tuple(shape["sizes"]), bool(shape["weighted"]))
            for key in ("parts", "removed", "examples", "video_folders", "data_sets"):
                value[key] = tuple(value.get(key, ()))
            found = cls(**value, shape=shape)
            if not found._makes_sense():
                raise ValueError("a value is of another kind, or a name leads elsewhere")
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise UserError(
                f"The index {folder} is damaged: its {FILE_NAME} makes no sense; {anew(folder)}."
            ) from error
        return found


def _are(values: Iterable[Any], kind: Any) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def anew(folder: Path) -> str:
    """Say how an index is built anew, for messages about one that is damaged."""
    told: Any = {}
    with suppress(UserError):
        told = read_json(folder / FILE_NAME)
    made_by = told.get("made_by") if isinstance(told, dict) else None
    checkpoint = made_by.get("checkpoint") if isinstance(made_by, dict) else None
    source = "RUN"
    if isinstance(checkpoint, str) and is_there(Path(checkpoint), Path.is_file):
        source = shlex.quote(checkpoint)
    elif isinstance(made_by, dict) and checkpoint is None:
        source = "DATASET --zero_shot"
    output = shlex.quote(str(folder))
    return f"build it anew with `python3 -m misc.build_index {source} --output {output}`"
