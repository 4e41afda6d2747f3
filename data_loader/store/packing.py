"""From tables of small arrays to a few large ones: values, offsets, a mask."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.formats.layouts import files_of
from data_loader.formats.read import (
    read_feature_file,
    read_plain_mapping,
    read_text_feature_file,
)
from data_loader.formats.tables import FeatureTable, TextTable
from data_loader.sets.layout import ExpertSource, TextSource
from data_loader.sets.near_ids import hint
from data_loader.store.packed import Part, Recipe, offsets_of
from data_loader.store.word_vectors import WordCount, read_word_vectors, wanted_words
from utils.errors import UserError, short

_GROUP_BYTES = 4 << 20
_FLOAT16, _FLOAT32 = np.dtype("<f2"), np.dtype("<f4")


def expert_recipe(source: ExpertSource) -> Recipe:
    """Return how to pack an expert.

    Parts: `values` (videos, D) with zeros for missing ones, or (sum of tokens, D) and `offsets`
    (videos + 1); `available` (videos,) bool. Facts: `ids`.
    """
    settings = {"variable_length": source.variable_length, "size": source.size}
    if source.average:
        settings["average"] = True
    if source.are_parts:
        settings["are_parts"] = True
    files = tuple(part for path in source.files for part in files_of(path))
    return Recipe(f"expert-{source.name}", files, settings, lambda: _pack_expert(source))


def captions_recipe(path: Path) -> Recipe:
    """Return how to pack raw captions.

    Parts: `text` (bytes,), all captions in UTF-8; `offsets` (captions + 1) into it;
    `caption_offsets` (videos + 1). Facts: `ids`.
    """
    return Recipe("captions", (path,), {}, lambda: _pack_captions(read_captions(path)))


def text_recipe(name: str, source: TextSource, size: int | None, dataset: str) -> Recipe:
    """Return how to pack text features.

    Parts: `values` (sum of words, D); `offsets` (captions + 1) into it; `caption_offsets`
    (videos + 1). Facts: `ids`.
    """

    def make() -> tuple[dict[str, Part], dict[str, Any]]:
        return _pack_text(read_text_source(source), name, source.files[0], size, dataset)

    keys = (source.key_mapping,) if source.key_mapping else ()
    return Recipe(f"text-{name}", (*source.files, *keys), {"size": size}, make)


def read_text_source(source: TextSource) -> TextTable:
    """Read text features that may be spread over files, and name their videos by our ids."""
    table: TextTable = {}
    for path in source.files:
        table |= read_text_feature_file(path)
    if source.key_mapping is None:
        return table
    mapping = read_plain_mapping(source.key_mapping, "video ids")
    id_of = {str(other): video_id for video_id, other in mapping.items()}
    for key in table:
        if key not in id_of:
            raise UserError(
                f'{source.key_mapping} does not say which video "{short(key)}" of '
                f"{source.files[0]} is{hint(table, id_of)}."
            )
    return {id_of[key]: captions for key, captions in table.items()}


def word_vector_recipe(
    name: str, path: Path, captions: Path, size: int | None, dataset: str
) -> Recipe:
    """Return how to pack captions that are looked up in word vectors (parts as `text_recipe`)."""

    def make() -> tuple[dict[str, Part], dict[str, Any]]:
        raw = read_captions(captions)
        wanted = wanted_words(chain.from_iterable(raw.values()))
        count = WordCount()
        vectors = read_word_vectors(path, wanted).look_up(chain.from_iterable(raw.values()), count)
        table = {key: [next(vectors) for _ in texts] for key, texts in raw.items()}
        # Exhausting the lookup lets it report the words that it did not know.
        assert next(vectors, None) is None
        count.check(f"the word vectors {path}", str(captions))
        return _pack_text(table, name, path, size, dataset)

    return Recipe(f"text-{name}", (path, captions), {"size": size}, make)


def read_parts(paths: Iterable[Path]) -> FeatureTable:
    """Read features that several files hold together.

    Raises:
        UserError: a file cannot be used, or two of them have the same video.
    """
    table: FeatureTable = {}
    for path in paths:
        part = read_feature_file(path)
        if both := table.keys() & part.keys():
            raise UserError(
                f'{path} has features of the video "{short(min(both))}", and so has another part '
                "of the same expert: each video belongs into one of them."
            )
        table |= part
    return table


def read_captions(path: Path) -> dict[str, list[str]]:
    """Read raw captions: video id -> captions; a caption that is a list of tokens is joined.

    A video's only caption may stand there without a list.

    Raises:
        UserError: the file cannot be used, or a video has anything but captions.
    """
    result = {}
    for key, captions in read_plain_mapping(path, "captions").items():
        if isinstance(captions, str):
            captions = [captions]
        if not isinstance(captions, list):
            raise UserError(
                f'{path} gives the video "{short(key)}" a {type(captions).__name__}, not captions: '
                'write "id": ["a caption", "another"] for each video, or "id": "its only caption"; '
                "`python3 -m misc.import_data_set` makes that of other layouts."
            )
        texts = [" ".join(c) if _is_text_list(c) else c for c in captions]
        if not _is_text_list(texts):
            raise UserError(
                f'{path} gives the video "{short(key)}" a caption that is neither a text nor a '
                'list of tokens: write "id": ["a caption", "another"] for each video.'
            )
        result[key] = texts
    if not result:
        raise UserError(f"The captions {path} hold no video.")
    return result


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _pack_captions(captions: dict[str, list[str]]) -> tuple[dict[str, Part], dict[str, Any]]:
    texts = [text.encode("utf-8", "replace") for group in captions.values() for text in group]
    blob = np.frombuffer(b"".join(texts), dtype=np.uint8)
    return {
        "text": Part.of(blob),
        "offsets": Part.of(offsets_of([len(text) for text in texts])),
        "caption_offsets": Part.of(offsets_of([len(group) for group in captions.values()])),
    }, {"ids": list(captions)}


def _pack_text(
    table: dict[str, list[np.ndarray]], name: str, path: Path, size: int | None, dataset: str
) -> tuple[dict[str, Part], dict[str, Any]]:
    owner = f'text features "{name}" of {dataset}'
    entries = [
        (key, caption[None] if caption.ndim == 1 and caption.size else caption)
        for key, captions in table.items()
        for caption in captions
    ]
    if not table:
        raise UserError(f"The file {path} of the {owner} holds no video.")
    if not any(array.size for _, array in entries):
        raise UserError(f"The {owner} have no word of any caption in {path}.")
    size = _common_size(entries, size, owner, path)
    return {
        "values": _values(entries, size, owner, path),
        "offsets": Part.of(offsets_of([len(array) if array.size else 0 for _, array in entries])),
        "caption_offsets": Part.of(offsets_of([len(captions) for captions in table.values()])),
    }, {"ids": list(table)}


def _pack_expert(source: ExpertSource) -> tuple[dict[str, Part], dict[str, Any]]:
    if source.are_parts:
        table = read_parts(source.files)
    else:
        tables = [read_feature_file(path) for path in source.files]
        table = tables[0] if len(tables) == 1 else _joined(tables)
    owner, path = f'expert "{source.name}"', source.files[0]
    if not table:
        raise UserError(f"The file {path} of the {owner} holds no video.")
    rows = {key: rows_of(array) for key, array in table.items()}
    if source.average:
        rows = {key: average(array) for key, array in rows.items()}
    entries = list(rows.items())
    size = _common_size(entries, source.size, owner, path)
    varies = source.variable_length
    if varies is None:
        varies = not source.average and any(
            len(array) != 1 for array in rows.values() if array.size
        )
    if varies:
        available = [table[key] is not None for key in rows]
        offsets = offsets_of([len(array) if array.size else 0 for array in rows.values()])
        parts = {"offsets": Part.of(offsets)}
    else:
        available = [array.size > 0 for array in rows.values()]
        blank = np.zeros((1, size), dtype=_FLOAT16)
        entries = [(key, array if array.size else blank) for key, array in entries]
        for key, array in entries:
            if len(array) != 1:
                raise UserError(
                    f'The {owner} has {len(array)} vectors for the video "{key}" in {path}, one '
                    "was expected: mark it as variable_length (temporal: vlad) or aggregate it."
                )
        parts = {}
    parts["available"] = Part.of(np.array(available, dtype=bool))
    parts["values"] = _values(entries, size, owner, path)
    return parts, {"ids": list(rows)}


def all_finite(array: np.ndarray) -> bool:
    """Tell whether all values are numbers, also once they are float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is finite only if all it adds are; it is quicker to have, and may overflow.
        if np.isfinite(array.sum(dtype=_FLOAT32)):
            return True
        return bool(np.isfinite(array.astype(_FLOAT32, copy=False)).all())


def rows_of(array: np.ndarray | None) -> np.ndarray:
    """Return features as (tokens, D); no values for a missing expert."""
    if array is None:
        return np.empty((0,), dtype=_FLOAT16)
    return array[None] if array.ndim == 1 else array


def average(array: np.ndarray) -> np.ndarray:
    """Average tokens (T, D) to one vector (1, D); what has none stays missing."""
    if not array.size or array.ndim != 2 or len(array) == 1:
        return array
    return array.mean(axis=0, dtype=np.float64, keepdims=True).astype(_FLOAT32)


def _joined(tables: list[FeatureTable]) -> FeatureTable:
    """Concatenate several aggregates of an expert along the features; one missing, all missing."""
    result: FeatureTable = {}
    for key in tables[0]:
        arrays = [table.get(key) for table in tables]
        rows = [array[None] if array.ndim == 1 else array for array in arrays if array is not None]
        same = len(rows) == len(tables) and len({row.shape[:-1] for row in rows}) == 1
        result[key] = np.concatenate(rows, axis=-1) if same else None
    return result


def _common_size(
    entries: list[tuple[str, np.ndarray]], size: int | None, owner: str, path: Path
) -> int:
    """Return the length of the vectors, and insist that all have it."""
    for key, array in entries:
        if array.size:
            size = size_of(key, array, size, owner, path)
    if size is None:
        raise UserError(f"The {owner} is missing for every video in {path}.")
    return size


def size_of(key: str, rows: np.ndarray, size: int | None, owner: str, path: Path) -> int:
    """Return the length of a video's vectors, (n, D); `size` where it is known already.

    Raises:
        UserError: they have another length, or another number of axes.
    """
    size = size or rows.shape[-1]
    if rows.ndim != 2 or rows.shape[-1] != size:
        raise UserError(
            f"The {owner} has an array of shape {rows.shape} for the video "
            f'"{short(key)}" in {path}; vectors of size {size} were expected.'
        )
    return size


def _values(entries: list[tuple[str, np.ndarray]], size: int, owner: str, path: Path) -> Part:
    """Return all vectors under one another: float16 if the source is, float32 otherwise.

    Each piece is overwritten by the next.
    """
    present = [array for _, array in entries if array.size]
    small = bool(present) and all(array.dtype.newbyteorder("<") == _FLOAT16 for array in present)
    dtype = _FLOAT16 if small else _FLOAT32

    def pieces() -> Iterator[np.ndarray]:
        groups = list(_groups([entry for entry in entries if entry[1].size]))
        rows = [sum(len(array) for _, array in group) for group in groups]
        # One large array costs a fraction of the time of many small ones, and fresh memory twice
        # that of memory in use: all groups pass through one buffer.
        buffer = np.empty((max(rows, default=0), size), dtype=dtype)
        for group, count in zip(groups, rows, strict=True):
            values = buffer[:count]
            with np.errstate(over="ignore"):
                np.concatenate([array for _, array in group], out=values, casting="unsafe")
            if not all_finite(values):
                key = next(key for key, array in group if not all_finite(array))
                raise UserError(
                    f'The {owner} has a non-finite value for the video "{key}" in {path}: make '
                    "its features again, or mark the video as missing with a bare NaN."
                )
            yield values

    return Part(dtype, (sum(map(len, present)), size), pieces)


def _groups(entries: list[tuple[str, np.ndarray]]) -> Iterator[list[tuple[str, np.ndarray]]]:
    """Cut a list of arrays into groups of a few megabytes."""
    group: list[tuple[str, np.ndarray]] = []
    held = 0
    for entry in entries:
        group.append(entry)
        held += entry[1].nbytes
        if held >= _GROUP_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group
