"""A data set is a description: its experts, captions, text features, splits and their files.

Published sets are descriptions that ship with this package (`descriptions/*.json`); a data set of
one's own is a folder with a `dataset.json` of the same form. Nothing here opens a feature file.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import UserError, did_you_mean, is_writable, short
from utils.files import exists, read_json


@dataclass(frozen=True)
class ExpertEntry:
    """Where an expert's features lie.

    Attributes:
        files: known names of the file, relative to the data set's folders; the first is the usual.
        size: length of a feature vector, None if the config or the file decides.
        variable_length: whether a video has a varying number of vectors (tokens), None if the file
            decides.
        parts: files that hold the videos together, where it is not one file.
        extractor: what made the features (model, weights, sampling), as `misc.extract_experts`
            tells it; empty where nobody has said.
    """

    files: tuple[str, ...]
    size: int | None = None
    variable_length: bool | None = False
    parts: tuple[str, ...] = ()
    extractor: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TextEntry:
    """Where text features lie: a file of them, or word vectors to look the captions up in.

    Attributes:
        files: known names of the file, relative to the data set's folders; the first is the usual.
        size: length of a word's vector, None if the file decides.
        is_word_vectors: whether captions are looked up in it.
        parts: files that hold the same together, where it is not one file.
        parts_key_mapping: file of video id -> the id under which `parts` know the video.
        encoder: what made them (name, revision, pooling, layer and so on), as
            `misc.prepare_text_embeddings` tells it; empty where nobody has said.
    """

    files: tuple[str, ...]
    size: int | None = None
    is_word_vectors: bool = False
    parts: tuple[str, ...] = ()
    parts_key_mapping: str | None = None
    encoder: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ListEntry:
    """A list of video ids: a text file, or the list under a key of a JSON file."""

    file: str
    key: str | None = None


@dataclass(frozen=True)
class Counts:
    """How large a retrieval set is.

    Attributes:
        videos: that are searched.
        queries: that exist.
    """

    videos: int
    queries: int

    def __str__(self) -> str:
        return f"{self.videos} videos and {self.queries} queries"


@dataclass(frozen=True)
class SplitEntry:
    """The two lists of a split, and what this split replaces.

    Attributes:
        train: the training videos.
        val: the retrieval set.
        experts: experts whose files differ in this split.
        test_caption_index: file of the one caption by which each video is searched.
        challenge_test: whether the retrieval set, with its captions, is that of a challenge's test
            phase, which was published later in a folder of its own.
        expected: the size of the retrieval set, where it is published; a query is any caption.
    """

    train: ListEntry
    val: ListEntry
    experts: dict[str, ExpertEntry] = field(default_factory=dict)
    test_caption_index: str | None = None
    challenge_test: bool = False
    expected: Counts | None = None


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
        UserError: there is no such data set, its description is not valid, or `data_dir` is
            another folder than that of a data set of one's own.
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
            found = parse_description(read_json(path, "data set description"), path)
            refuse_another_folder([found.source.parent, found.root], data_dir)
            return found
    raise UserError(
        f'There is no data set "{dataset_name}"{did_you_mean(dataset_name, names)}: give a '
        f"published name ({', '.join(names)}) or a folder that holds a {FILE_NAME}."
    )


def refuse_another_folder(own: Sequence[Path], data_dir: str | Path | None) -> None:
    """Refuse a `data_dir` that would not be looked into, as it is none of a data set's own.

    Raises:
        UserError: it is another folder.
    """
    if data_dir and Path(data_dir).resolve() not in {folder.resolve() for folder in own}:
        raise UserError(
            f'data_dir "{short(data_dir, 200)}" says where a published data set lies, and would '
            f"have no effect on {own[0]}: leave it out, or give the folder that you mean as "
            "dataset_name."
        )


def parse_description(value: Any, source: Path, published: bool = False) -> DataDescription:
    """Check the JSON form of a description and return it.

    Raises:
        UserError: a key is unknown, missing, or has a value of another kind.
    """
    reader = DescriptionReader(source, published)
    if isinstance(value, dict) and value.get("splits", {}) == {}:
        raise _no_splits(value, source)
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


def _no_splits(value: dict[str, Any], source: Path) -> UserError:
    """Say how to draw the splits that a description lacks."""
    folder = source.parent
    root = folder / str(value.get("root", "."))

    def files(kind: str, key: str) -> dict[str, Path]:
        entries = value.get(kind)
        return {
            name: root / entry[key]
            for name, entry in (entries.items() if isinstance(entries, dict) else ())
            if isinstance(entry, dict) and isinstance(entry.get(key), str)
        }

    features = [f"{name}={path}" for name, path in files("experts", "file").items()]
    vectors = [str(path) for path in files("text_features", "word_vectors").values()]
    captions = value.get("captions")
    command = ["python3", "-m", "misc.import_data_set", "--output", f"{folder}-with-splits"]
    command += ["--captions", str(root / captions if isinstance(captions, str) else "FILE")]
    command += ["--features", *(features or ["NAME=FILE"])]
    command += ["--text-encoder", *vectors[:1]] if vectors else []
    return UserError(
        f'The data set description {source} has no "splits", which say on what to train and to '
        f"test: run `{shlex.join(command)}`, which draws them, or name lists of your own."
    )


def _named(entries: dict[str, Any], name: str, what: str, dataset: str, where: str = "") -> Any:
    if name not in entries:
        raise UserError(
            f'The data set {dataset} has no {what} "{name}"{did_you_mean(name, entries)}; '
            f"it has {', '.join(sorted(entries)) or 'none'}{where}."
        )
    return entries[name]


_LONGEST_NAME = 255
_LARGEST_COUNT = 1_000_000_000


class DescriptionReader:
    """Reads the parts of a description and names the place of whatever is wrong."""

    def __init__(self, source: Path, published: bool = False) -> None:
        self.source, self.published = source, published

    def fail(self, where: str, problem: str) -> UserError:
        place = f' at "{where}"' if where else ""
        return UserError(f"The data set description {self.source} is not valid{place}: {problem}.")

    def mapping(
        self, value: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(where, "it must be an object with named entries")
        known = (*required, *optional)
        for key in value:
            if key not in known:
                hint = did_you_mean(key[:_LONGEST_NAME], known)
                raise self.fail(
                    where, f'there is no entry "{short(key)}"{hint}; known are {", ".join(known)}'
                )
        for key in required:
            if key not in value:
                raise self.fail(where, f'the entry "{key}" is missing')
        return value

    def text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value:
            raise self.fail(where, "it must be a non-empty text")
        if not is_writable(value):
            raise self.fail(where, "it holds a character that no file can hold")
        return value

    def name(self, value: str, where: str) -> str:
        if len(self.text(value, where)) > _LONGEST_NAME:
            raise self.fail(where, f"a name must have at most {_LONGEST_NAME} characters")
        return value

    def text_or_none(self, entry: dict[str, Any], key: str, where: str) -> str | None:
        return self.text(entry[key], _place(where, key)) if key in entry else None

    def flag(self, entry: dict[str, Any], key: str, where: str) -> bool:
        value = entry.get(key, False)
        if not isinstance(value, bool):
            raise self.fail(_place(where, key), "it must be true or false")
        return value

    def texts(self, value: Any, where: str) -> list[str]:
        if not isinstance(value, list):
            raise self.fail(where, "it must be a list of texts")
        return [self.text(item, where) for item in value]

    def files(self, value: Any, where: str) -> tuple[str, ...]:
        """One file name, or several names under which the same file is known."""
        if isinstance(value, list) and value:
            return tuple(self.texts(value, where))
        return (self.text(value, where),)

    def size(self, value: Any, where: str) -> int | None:
        return None if value is None else self.count(value, where)

    def count(self, value: Any, where: str) -> int:
        if type(value) is not int or value < 1:
            raise self.fail(where, "it must be a whole number of at least 1")
        if value > _LARGEST_COUNT:
            raise self.fail(where, f"it must be at most {_LARGEST_COUNT}")
        return value

    def entries(self, value: Any, where: str, read: Callable[[Any, str], Any]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(where, "it must be an object with named entries")
        return {
            self.name(name, f"{where}.{name[:_LONGEST_NAME]}"): read(entry, f"{where}.{name}")
            for name, entry in value.items()
        }

    def expert(self, value: Any, where: str) -> ExpertEntry:
        optional = ("file", "parts", "size", "variable_length", "extractor")
        entry = self.mapping(value, where, (), optional)
        if ("file" in entry) == ("parts" in entry):
            raise self.fail(where, 'it must have either "file" or "parts"')
        parts = tuple(self.texts(entry.get("parts", []), f"{where}.parts"))
        if "parts" in entry and not parts:
            raise self.fail(f"{where}.parts", "it must name at least one file")
        return ExpertEntry(
            files=parts[:1] or self.files(entry["file"], f"{where}.file"),
            parts=parts,
            size=self.size(entry.get("size"), f"{where}.size"),
            variable_length=self.flag(entry, "variable_length", where)
            if "variable_length" in entry or self.published
            else None,
            extractor=self.facts(entry.get("extractor", {}), f"{where}.extractor"),
        )

    def text_feature(self, value: Any, where: str) -> TextEntry:
        optional = ("file", "word_vectors", "size", "parts", "parts_key_mapping", "encoder")
        entry = self.mapping(value, where, (), optional)
        if ("file" in entry) == ("word_vectors" in entry):
            raise self.fail(where, 'it must have either "file" or "word_vectors"')
        kind = "file" if "file" in entry else "word_vectors"
        for key, beside in (("parts", "file"), ("parts_key_mapping", "parts")):
            if key in entry and beside not in entry:
                raise self.fail(f"{where}.{key}", f'it may stand only beside "{beside}"')
        return TextEntry(
            files=self.files(entry[kind], f"{where}.{kind}"),
            size=self.size(entry.get("size"), f"{where}.size"),
            is_word_vectors=kind == "word_vectors",
            parts=tuple(self.texts(entry.get("parts", []), f"{where}.parts")),
            parts_key_mapping=self.text_or_none(entry, "parts_key_mapping", where),
            encoder=self.facts(entry.get("encoder", {}), f"{where}.encoder"),
        )

    def facts(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(where, "it must be an object with named entries")
        return value

    def split(self, value: Any, where: str) -> SplitEntry:
        optional = ("experts", "test_caption_index", "challenge_test", "expected")
        entry = self.mapping(value, where, ("train", "val"), optional)
        return SplitEntry(
            train=self.id_list(entry["train"], f"{where}.train"),
            val=self.id_list(entry["val"], f"{where}.val"),
            experts=self.entries(entry.get("experts", {}), f"{where}.experts", self.expert),
            test_caption_index=self.text_or_none(entry, "test_caption_index", where),
            challenge_test=self.flag(entry, "challenge_test", where),
            expected=self.counts(entry["expected"], f"{where}.expected")
            if "expected" in entry
            else None,
        )

    def counts(self, value: Any, where: str) -> Counts:
        entry = self.mapping(value, where, ("videos", "queries"))
        return Counts(**{key: self.count(entry[key], f"{where}.{key}") for key in entry})

    def id_list(self, value: Any, where: str) -> ListEntry:
        if isinstance(value, str):
            return ListEntry(self.text(value, where))
        entry = self.mapping(value, where, ("file", "key"))
        return ListEntry(
            self.text(entry["file"], f"{where}.file"), self.text(entry["key"], f"{where}.key")
        )


def _place(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
