"""Puts the text encoder of a data set into the folder of an index's model."""

import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.retrieval_set import RetrievalSet
from data_loader.sets.declared import ModelInputs
from data_loader.store.word_vectors import read_word_vectors
from misc.build_index.videos import Place
from misc.search.queries import ENCODER_FOLDER, KINDS, TextSide, padded, write_words
from misc.text_embeddings.captions import Captions
from misc.text_embeddings.encoders import make_job, table_path
from misc.text_embeddings.job import Settings, encoder_of, file_hash
from misc.text_embeddings.model_folder import find_model
from utils.errors import UserError, short
from utils.files import files_below, is_there, make_folder, replacing

_log = logging.getLogger(__name__)

_WORD_VECTORS, _HUGGING_FACE = "word vectors", "Hugging Face encoder"
# What a folder of a Hugging Face model needs to be loaded; others are for other programs.
_NEEDED = (".json", ".txt", ".safetensors", ".model", ".spm", ".tiktoken", ".jinja")
_NOT_NEEDED = ("onnx", "openvino", "coreml", "original", ".git")
_TRIED = ["a man is talking", "two dogs run on a beach"]
_CHECKED_CAPTIONS = 16
# Features may be stored in float16, and other processors round otherwise.
_ALIKE = 0.02


def text_side(
    place: Place,
    name: str,
    inputs: ModelInputs,
    folder: Path,
    asked: Settings | None,
) -> TextSide | None:
    """Write what encodes a query as the text features of a data set were encoded.

    Args:
        place: the data set of the training.
        name: of its text features.
        inputs: of the model.
        folder: of the index's model.
        asked: the encoder that the user names; None: what the data set records.

    Returns:
        How a sentence comes to the model; None where nobody knows.

    Raises:
        UserError: the encoder is not to be found, or another one than is recorded.
    """
    entry = place.description.text_entry(name)
    average = inputs.max_text_tokens == 1
    if asked is None and entry.is_word_vectors and not entry.encoder:
        path = place.finder.find_text(entry, f'the text features "{name}"').files[0]
        record: dict[str, Any] = {"kind": _WORD_VECTORS, "file": path.name}
        return _with_words(folder, path, record, inputs, average)
    record = place.store.text_encoder(name)
    if asked is None and not record:
        _log.warning(
            'Nobody has said what made the text features "%s" of %s: this index answers no '
            "sentences, only --like; name the encoder with --encoder.",
            name,
            place.description.name,
        )
        return None
    settings = asked or _settings_of(record)
    return _written(settings, None if asked else record, folder, inputs, average)


def _settings_of(record: dict[str, Any]) -> Settings:
    """Return the flags with which the same encoder is made again."""
    is_transformer = record.get("kind") == _HUGGING_FACE
    pooling = record.get("pooling")
    return Settings(
        str(record.get("name")),
        pooling="sentence" if is_transformer and record.get("normalised") else pooling,
        layer=record.get("layer"),
        special_tokens=record.get("special_tokens"),
        max_length=record.get("max_length"),
    )


def _written(
    settings: Settings,
    record: dict[str, Any] | None,
    folder: Path,
    inputs: ModelInputs,
    average: bool,
) -> TextSide:
    try:
        job = make_job(settings, Captions(Path("queries"), ["query"], [len(_TRIED)], _TRIED))
    except UserError as error:
        raise UserError(
            f"The text encoder of this model cannot be used: {str(error).removesuffix('.')}; name "
            "it with --encoder (and --weights), or leave sentences out with --no_text."
        ) from error
    made = encoder_of(job.record)
    if record is not None:
        _check_same(record, made, settings.encoder)
    if made.get("kind") == _WORD_VECTORS:
        return _with_words(folder, table_path(settings), made, inputs, average)
    if made.get("kind") not in KINDS:
        raise UserError(
            f'An index cannot hold the encoder "{short(settings.encoder)}" '
            f"({short(made.get('kind'))}): it can hold {', '.join(KINDS)}; leave sentences out "
            "with --no_text."
        )
    source = find_model(str(settings.weights or settings.encoder), settings.revision).path
    if is_there(source.parent / "modules.json") and not is_there(source / "modules.json"):
        source = source.parent  # of sentence-transformers: the network lies in a folder of its own
    _copy(source, folder / ENCODER_FOLDER)
    return _side(made, job.size, inputs, average)


def _check_same(record: dict[str, Any], made: dict[str, Any], name: str) -> None:
    for key in ("kind", "sha256", "revision"):
        if key in record and record[key] != made.get(key):
            raise UserError(
                f'The text encoder "{short(name)}" is another one than the text features were made '
                f"with (its {key} differs): name the right one with --encoder."
            )


def _with_words(
    folder: Path, path: Path, record: dict[str, Any], inputs: ModelInputs, average: bool
) -> TextSide:
    table = read_word_vectors(path)
    write_words(folder, table)
    return _side({"sha256": file_hash(path)} | record, table.size, inputs, average)


def _side(record: dict[str, Any], size: int, inputs: ModelInputs, average: bool) -> TextSide:
    if size != inputs.text_size:
        raise UserError(
            f"The text encoder gives vectors of size {size}, the model was trained on "
            f"{inputs.text_size}: name the right one with --encoder."
        )
    return TextSide(record, size, inputs.max_text_tokens, average, {})


def _copy(source: Path, target: Path) -> None:
    """Copy what a Hugging Face folder needs, as bytes: links are followed, nothing is linked."""
    paths = [p for p in files_below(source) if not {*p.relative_to(source).parts} & {*_NOT_NEEDED}]
    suffixes = set(_NEEDED)
    if not any(path.suffix == ".safetensors" for path in paths):
        suffixes.add(".bin")
    for path in paths:
        if path.suffix in suffixes:
            copy = target / path.relative_to(source)
            make_folder(copy.parent)
            with path.open("rb") as reader, replacing(copy) as writer:
                shutil.copyfileobj(reader, writer)


def check_encoder(
    encode: Any, retrieval: RetrievalSet, side: TextSide, texts: Sequence[Sequence[str]]
) -> None:
    """Compare the encoder of an index with text features of some captions, and warn if they differ.

    Args:
        encode: gives the features of texts, before any cut.
        retrieval: captions with their features.
        side: how a sentence comes to the model.
        texts: the captions of each video.
    """
    places = np.flatnonzero([bool(captions) for captions in texts])[:_CHECKED_CAPTIONS]
    if not len(places):
        return
    width = retrieval.caption_indices.shape[1]
    stored = retrieval.queries(places * width)[0][:, 0].cpu()
    made, _ = padded(encode([texts[at][0] for at in places]), side.max_tokens, side.average)
    distance = (stored - made).flatten(1).norm(dim=1)
    share = float((distance / stored.flatten(1).norm(dim=1).clamp(min=1e-9)).median())
    if not share <= _ALIKE:
        _log.warning(
            "The text encoder of this index does not give the text features that the model was "
            "trained on: those of the same captions differ by %.0f %% of their length. Is it "
            "another encoder, or were the captions treated otherwise?",
            100 * share,
        )


def all_files(folder: Path) -> Iterable[Path]:
    """Give the files of a folder, for its size."""
    return files_below(folder)
