"""Puts the text encoder of a data set into the folder of an index's model."""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.retrieval_set import RetrievalSet
from data_loader.sets.declared import ModelInputs
from data_loader.store.word_vectors import read_word_vectors
from misc.build_index.videos import Place
from misc.search.queries import ENCODER_FOLDER, TextSide, padded, write_words
from misc.text_embeddings.captions import Captions
from misc.text_embeddings.encoders import dictionary_path, make_job, weights_path
from misc.text_embeddings.job import Settings, encoder_of, settings_of
from misc.text_embeddings.known_encoders import KNOWN
from misc.text_embeddings.model_folder import find_model
from utils.errors import UserError, short
from utils.files import files_below, is_there, make_folder, replacing

_log = logging.getLogger(__name__)

# What a folder of a Hugging Face model needs to be loaded; others are for other programs.
_NEEDED = (".json", ".txt", ".safetensors", ".model", ".spm", ".tiktoken", ".jinja")
_NOT_NEEDED = ("onnx", "openvino", "coreml", "original", ".git")
_TRIED = 100
_CHECKED_CAPTIONS = 16
# Features may be stored in float16, and other processors round otherwise.
_ALIKE = 0.02


def text_side(
    place: Place,
    name: str,
    inputs: ModelInputs,
    average: bool,
    texts: Sequence[str],
    folder: Path,
    asked: Settings | None,
) -> TextSide | None:
    """Write what encodes a query as the text features of a data set were encoded.

    Args:
        place: the data set of the training.
        name: of its text features.
        inputs: of the model.
        average: whether the model takes the mean of a caption's words.
        texts: some captions, to try the encoder on.
        folder: of the index's model.
        asked: the encoder that the user names; None: what the data set records.

    Returns:
        How a sentence comes to the model; None where nobody knows.

    Raises:
        UserError: the encoder is not to be found, or another one than is recorded.
    """
    entry = place.description.text_entry(name)
    record = place.store.text_encoder(name)
    if asked is None and not record:
        _log.warning(
            'Nobody has said what made the text features "%s" of %s: this index answers no '
            "sentences, only --like; name the encoder with --encoder.",
            name,
            place.description.name,
        )
        return None
    try:
        if asked is None and entry.is_word_vectors and not entry.encoder:
            path = place.finder.find_text(entry, f'the text features "{name}"').files[0]
            side = write_encoder(Settings(str(path)), texts, folder)
        elif asked is None:
            side = write_encoder(settings_of(record), texts, folder, record)
        else:
            side = write_encoder(asked, texts, folder)
    except UserError as error:
        raise UserError(
            f"The text encoder of this model cannot be used: {str(error).removesuffix('.')}; name "
            "it with --encoder (and --weights), or leave sentences out with --no_text."
        ) from error
    if side.size != inputs.text_size:
        raise UserError(
            f"The text encoder gives vectors of size {side.size}, the model was trained on "
            f"{inputs.text_size}: name the right one with --encoder."
        )
    return replace(side, max_tokens=inputs.max_text_tokens, average=average)


def write_encoder(
    settings: Settings,
    texts: Sequence[str],
    folder: Path,
    record: dict[str, Any] | None = None,
) -> TextSide:
    """Write an encoder into the folder of an index's model.

    Args:
        settings: name it.
        texts: some captions, to try it on.
        folder: of the model.
        record: what the encoder has to be; None: any.

    Returns:
        How a sentence comes to a model that takes one vector, or as many as there are.

    Raises:
        UserError: it is not to be found, or another one than is recorded.
    """
    tried = list(texts[:_TRIED])
    job = make_job(settings, Captions(Path("captions"), ["captions"], [len(tried)], tried))
    made = encoder_of(job.record)
    for key in ("kind", "sha256", "revision"):
        if record and key in record and record[key] != made.get(key):
            raise UserError(
                f'"{short(settings.encoder)}" is another encoder than the text features were made '
                f"with (its {key} differs)"
            )
    files = {}
    if made["kind"] == "word vectors":
        write_words(folder, read_word_vectors(weights_path(settings)))
    elif made["kind"] == "MIL-NCE":
        weights = weights_path(settings)
        files = {"weights": weights, "dictionary": dictionary_path(settings, weights)}
        for path in files.values():
            _copy_file(path, folder / ENCODER_FOLDER / path.name)
    else:
        _copy(str(settings.weights or settings.encoder), settings.revision, folder)
    names = {role: path.name for role, path in files.items()}
    return TextSide(made, job.size, max_tokens=1, average=True, files=names)


def _copy(name: str, revision: str | None, folder: Path) -> None:
    """Copy what a Hugging Face folder needs, as bytes: links are followed, nothing is linked."""
    known = KNOWN.get(name)
    source = find_model((known.hub if known else None) or name, revision).path
    if is_there(source.parent / "modules.json") and not is_there(source / "modules.json"):
        source = source.parent  # of sentence-transformers: the network lies in a folder of its own
    paths = [p for p in files_below(source) if not {*p.relative_to(source).parts} & {*_NOT_NEEDED}]
    suffixes = set(_NEEDED)
    if not any(path.suffix == ".safetensors" for path in paths):
        suffixes.add(".bin")
    for path in paths:
        if path.suffix in suffixes:
            _copy_file(path, folder / ENCODER_FOLDER / path.relative_to(source))


def _copy_file(source: Path, target: Path) -> None:
    make_folder(target.parent)
    with source.open("rb") as reader, replacing(target) as writer:
        shutil.copyfileobj(reader, writer)


def check_encoder(
    encode: Callable[[Sequence[str]], list[np.ndarray]], retrieval: RetrievalSet, side: TextSide
) -> None:
    """Compare the encoder of an index with text features of some captions, and warn if they differ.

    Args:
        encode: gives the features of texts, before any cut.
        retrieval: captions with their features.
        side: how a sentence comes to the model.
    """
    texts = retrieval.captions
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
