"""Dual encoders by hub name: CLIP, SigLIP 2, PE-Core, CLAP.

Their second tower reads sentences into the same space, so that videos can be searched without
training: a record's "query" says what reads the sentences, `query_tower` makes it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from misc.extract_experts.expert import Chunk, Frames, Loaded, Seen, Settings, Sound
from misc.extract_experts.experts.hub import CHUNKS, IMAGES_PER_SECOND
from misc.extract_experts.experts.networks import (
    Pixels,
    precision,
    ready,
    together,
    vectors,
    weights_hash,
)
from misc.extract_experts.experts.packages import (
    HUB,
    check_name,
    fetching,
    is_folder,
    package,
    version,
)
from misc.extract_experts.experts.transformer import load_transformer, pixels_of, reader_of
from misc.extract_experts.experts.wheels_heard import is_silent
from utils.errors import UserError

QueryTower = Callable[[Sequence[str]], np.ndarray]
"""Sentences -> (sentences, D) float32 of length 1."""

_SENTENCES = 256  # in one batch


def open_clip(settings: Settings) -> Loaded:
    """A dual encoder of open_clip, `NAME/WEIGHTS` as its list has them: pictures of length 1."""
    library, network, _ = _open_clip(settings)
    config = library.get_model_preprocess_cfg(network)
    sides = config["size"]
    size = sides if isinstance(sides, int) else min(sides)
    pixels = Pixels(size, config["mean"], config["std"])
    record = {
        "model": f"open_clip {settings.model}",
        "version": version("open_clip_torch"),
        "weights": weights_hash(network),
    }
    network = ready(network, settings)

    def encode(frames: Tensor) -> Tensor:
        return network.encode_image(frames, normalize=True)

    is_square = config["resize_mode"] != "squash"
    return _of_pictures("open_clip", encode, pixels, is_square, settings, record)


def clip(settings: Settings) -> Loaded:
    """A dual encoder of transformers (CLIP, SigLIP): pictures of length 1."""
    network, folder = load_transformer("AutoModel", "clip", settings)
    _insist(network, "get_image_features", settings.model)
    pixels = pixels_of(folder, network.config.vision_config.image_size)
    record = {
        "model": f"transformers {settings.model}",
        "version": version("transformers"),
        "weights": weights_hash(network),
    }
    network = ready(network, settings)

    def encode(frames: Tensor) -> Tensor:
        return _unit(network.get_image_features(pixel_values=frames))

    # SigLIP was made with pictures pressed into a square, CLIP with their middle.
    is_square = "siglip" not in network.config.model_type
    return _of_pictures("clip", encode, pixels, is_square, settings, record)


def _of_pictures(
    row: str,
    encode: Callable[[Tensor], Tensor],
    pixels: Pixels,
    is_square: bool,
    settings: Settings,
    record: dict[str, Any],
) -> Loaded:
    def function(chunks: Sequence[Chunk]) -> list[Seen]:
        rows = together(chunks, lambda chunk: pixels(chunk.values, settings), encode)
        return [Seen(vectors(values)) for values in rows]

    black = np.zeros((1, pixels.size, pixels.size, 3), np.uint8)
    with torch.inference_mode():
        size = encode(pixels(black, settings)).shape[1]
    look = Frames(IMAGES_PER_SECOND, pixels.size, is_square)
    return Loaded(function, look, size, {**record, "query": _query(row, settings, record)}, CHUNKS)


def clap(settings: Settings) -> Loaded:
    """CLAP (Wu et al. 2023) of transformers: pieces of sound of length 1.

    It reads 48 kHz; what lies above the 8 kHz of the sound that it is given stays silent.
    """
    network, folder = load_transformer("ClapModel", "clap", settings)
    reader = reader_of("ClapFeatureExtractor", folder, "clap")
    record = {
        "model": f"transformers {settings.model}",
        "version": version("transformers"),
        "weights": weights_hash(network),
    }
    network = ready(network, settings)

    def prepare(chunk: Chunk) -> Tensor:
        from scipy.signal import resample_poly

        sound = resample_poly(chunk.values, reader.sampling_rate, Sound.RATE)
        sound = sound[: reader.nb_max_samples]  # of a longer one it would take a random part
        read = reader(sound, sampling_rate=reader.sampling_rate, return_tensors="pt")
        return read["input_features"].to(settings.device, precision(settings))

    def encode(mel: Tensor) -> Tensor:
        is_longer = torch.zeros((len(mel), 1), dtype=torch.bool, device=mel.device)
        return _unit(network.get_audio_features(input_features=mel, is_longer=is_longer))

    def function(chunks: Sequence[Chunk]) -> list[Seen]:
        heard = [chunk for chunk in chunks if not is_silent(chunk.values)]
        rows = iter(together(heard, prepare, encode) if heard else ())
        return [Seen() if is_silent(c.values) else Seen(vectors(next(rows))) for c in chunks]

    size = network.config.projection_dim
    record["query"] = _query("clap", settings, record)
    return Loaded(function, Sound(float(reader.max_length_s)), size, record, 4 * CHUNKS)


def _query(row: str, settings: Settings, record: dict[str, Any]) -> dict[str, Any]:
    return {"row": row, "model": settings.model, "weights": record["weights"]}


def query_tower(query: dict[str, Any], device: str = "cpu") -> QueryTower:
    """Make the tower that reads sentences into the space of a dual encoder's features.

    Args:
        query: the "query" of the record of an expert.
        device: where it runs.

    Raises:
        UserError: it cannot be had, or its weights are not those that made the features.
    """
    settings = Settings(str(query.get("model")), device)
    row = query.get("row")
    if row not in _TOWERS:
        raise UserError(f'No query tower is known for features of "{row}".')
    network, encode = _TOWERS[row](settings)
    if weights_hash(network) != query.get("weights"):
        raise UserError(
            f"The weights of {settings.model} are not those that made the features: extract them "
            "again, or take the model that made them."
        )
    network = ready(network, settings)

    def tower(sentences: Sequence[str]) -> np.ndarray:
        with torch.inference_mode():
            blocks = [
                vectors(encode(list(sentences[start : start + _SENTENCES])))
                for start in range(0, len(sentences), _SENTENCES)
            ]
        return np.concatenate(blocks)

    return tower


def _open_clip_tower(settings: Settings) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    library, network, name = _open_clip(settings)
    with fetching("open_clip", settings.model):
        tokenise = library.get_tokenizer(name)

    def encode(sentences: list[str]) -> Tensor:
        return network.encode_text(tokenise(sentences).to(settings.device), normalize=True)

    return network, encode


def _transformer_tower(
    kind: str, row: str, settings: Settings
) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    network, folder = load_transformer(kind, row, settings)
    tokenise = reader_of("AutoTokenizer", folder, row)
    config = network.config.text_config
    # SigLIP was made with texts filled up to its length, and reads what they are filled with.
    is_filled = "siglip" in network.config.model_type
    padding, mask = ("max_length", False) if is_filled else (True, True)
    # CLAP reads texts by RoBERTa, whose positions start after that of the padding.
    first = config.pad_token_id + 1 if kind == "ClapModel" else 0
    limit = min(config.max_position_embeddings - first, tokenise.model_max_length)

    def encode(sentences: list[str]) -> Tensor:
        tokens = tokenise(
            sentences,
            padding=padding,
            truncation=True,
            max_length=limit,
            return_attention_mask=mask,
            return_tensors="pt",
        )
        tokens = {name: value.to(settings.device) for name, value in tokens.items()}
        return _unit(network.get_text_features(**tokens))

    return network, encode


_TOWERS: dict[Any, Callable[[Settings], tuple[nn.Module, Callable[[list[str]], Tensor]]]] = {
    "open_clip": _open_clip_tower,
    "clip": lambda settings: _transformer_tower("AutoModel", "clip", settings),
    "clap": lambda settings: _transformer_tower("ClapModel", "clap", settings),
}


def _open_clip(settings: Settings) -> tuple[Any, nn.Module, str]:
    """Load a dual encoder of open_clip: the library, the network, its full name."""
    library = package("open_clip", "open_clip", HUB)
    name, weights = settings.model, None
    if is_folder(name):
        name = f"local-dir:{Path(name).absolute()}"
    elif not name.startswith("hf-hub:"):
        known = ["/".join(pair) for pair in library.list_pretrained()]
        check_name("open_clip", name, known)
        name, weights = name.split("/", 1)
    with fetching("open_clip", settings.model):
        # Without weights it would go on with random numbers.
        network = library.create_model(name, weights, require_pretrained=True)
    return library, network, name


def _insist(network: nn.Module, method: str, name: str) -> None:
    if not hasattr(network, method):
        raise UserError(
            f"{name} is a {type(network).__name__}, no dual encoder: a model such as CLIP or "
            "SigLIP was expected."
        )


def _unit(features: Any) -> Tensor:
    """Return features of length 1, from whatever the version of transformers wraps them in."""
    values = features if isinstance(features, Tensor) else features.pooler_output
    return nn.functional.normalize(values.float(), dim=-1)
