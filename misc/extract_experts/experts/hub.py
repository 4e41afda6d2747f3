"""Networks by hub name without a text tower: timm, torchvision, VideoMAE, Whisper."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from misc.extract_experts.expert import (
    Chunk,
    Frames,
    Loaded,
    Seen,
    Settings,
    Sound,
    Words,
)
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
from utils.files import is_there

IMAGES_PER_SECOND = 1.0
CHUNKS = 4  # in one batch on a GPU

# Whisper
_SPOKEN_SECONDS = 30.0  # that it reads at a time
_SPOKEN_CHUNKS = 8  # in one batch on a GPU
# As its own program decides that a piece has no speech.
_NO_SPEECH, _LIKELY = 0.6, -1.0


def timm(settings: Settings) -> Loaded:
    """An image network of timm without its classifier: pooled features."""
    library = package("timm", "timm", HUB)
    name = settings.model
    if is_folder(name):
        name = f"local-dir:{name}"
    elif "/" in name:
        name = f"hf-hub:{name.removeprefix('hf-hub:')}"
    else:
        check_name("timm", name, library.list_pretrained())
    with fetching("timm", settings.model):
        network = library.create_model(name, pretrained=True, num_classes=0)
    config = library.data.resolve_model_data_config(network)
    pixels = Pixels(min(config["input_size"][1:]), config["mean"], config["std"])
    record = {
        "model": f"timm {settings.model}",
        "version": version("timm"),
        "weights": weights_hash(network),
        "licence_of_model": network.pretrained_cfg.get("license") or "not said",
    }
    network = ready(network, settings)

    def function(chunks: Sequence[Chunk]) -> list[Seen]:
        rows = together(chunks, lambda chunk: pixels(chunk.values, settings), network)
        return [Seen(vectors(values)) for values in rows]

    black = np.zeros((1, pixels.size, pixels.size, 3), np.uint8)
    with torch.inference_mode():
        features = network(pixels(black, settings))
    if features.ndim != 2:
        raise UserError(
            f"The timm model {settings.model} gives {features.ndim - 1} axes for a picture where "
            "one vector was expected: take another one."
        )
    look = Frames(IMAGES_PER_SECOND, pixels.size, square=True)
    return Loaded(function, look, features.shape[1], record, CHUNKS)


@dataclass(frozen=True)
class Clips:
    """How a family of torchvision's networks reads videos.

    Attributes:
        head: its classifier, which is taken off.
        fps, frames: of a clip, as its weights were made.
    """

    head: str
    fps: float
    frames: int


# Family, the beginning of a name -> how it reads videos.
_CLIPS = {
    "mc3_": Clips("fc", 15, 16),
    "r2plus1d_": Clips("fc", 15, 16),
    "r3d_": Clips("fc", 15, 16),
    "s3d": Clips("classifier", 15, 32),
    "mvit_": Clips("head", 7.5, 16),
    "swin3d_": Clips("head", 15, 32),
}


def family_of(name: str) -> Clips:
    """Return how a video network of torchvision reads videos."""
    return next(how for family, how in _CLIPS.items() if name.startswith(family))


def torchvision(settings: Settings) -> Loaded:
    """A video network of torchvision without its classifier: features of each clip.

    The model is a name, or a file of weights that begins with one as torchvision's own do.
    """
    library = package("torchvision", "torchvision", HUB)
    models = library.models
    known = models.list_models(module=models.video)
    path = Path(settings.model)
    is_file = is_there(path, Path.is_file)
    name = settings.model
    if is_file:
        fitting = [model for model in known if path.name.startswith(model)]
        name = max(fitting, key=len, default=path.name)
    check_name("torchvision.models.video", name, known)
    how = family_of(name)
    weights = models.get_model_weights(name).DEFAULT
    with fetching("torchvision", settings.model):
        network = models.get_model(name, weights=None if is_file else weights)
        if is_file:
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    transform = weights.transforms()
    pixels = Pixels(transform.crop_size[0], transform.mean, transform.std)
    record = {
        "model": f"torchvision {name}",
        "version": version("torchvision"),
        "weights": weights_hash(network),
    }
    *_, last = (p for p in getattr(network, how.head).parameters() if p.ndim > 1)
    setattr(network, how.head, nn.Identity())
    look = Frames(how.fps, pixels.size, True, how.frames)
    return _of_clips(network, pixels, look, last.shape[1], settings, record)


def videomae(settings: Settings) -> Loaded:
    """VideoMAE (Tong et al. 2022), or another video network of transformers: mean of its tokens."""
    network, folder = load_transformer("VideoMAEModel", "videomae", settings)
    pixels = pixels_of(folder, network.config.image_size)
    record = {
        "model": f"transformers {settings.model}",
        "version": version("transformers"),
        "weights": weights_hash(network),
    }

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, clip_BCTHW: Tensor) -> Tensor:
            return self.network(clip_BCTHW.transpose(1, 2)).last_hidden_state.mean(1)

    look = Frames(7.5, pixels.size, True, network.config.num_frames)
    return _of_clips(Mean(), pixels, look, network.config.hidden_size, settings, record)


def _of_clips(
    network: nn.Module,
    pixels: Pixels,
    look: Frames,
    size: int,
    settings: Settings,
    record: dict[str, Any],
) -> Loaded:
    """Run a network over clips of one length, (B, 3, T, side, side) -> (B, size).

    A clip that is shorter, at the end of a video, goes on with its last frame.
    """
    network = ready(network, settings)

    def prepare(chunk: Chunk) -> Tensor:
        clip = pixels(chunk.values, settings)
        missing = clip[-1:].expand(look.count - len(clip), -1, -1, -1)
        return torch.cat([clip, missing]).transpose(0, 1)[None]

    def function(chunks: Sequence[Chunk]) -> list[Seen]:
        return [Seen(vectors(values)) for values in together(chunks, prepare, network)]

    return Loaded(function, look, size, record, CHUNKS)


def whisper(settings: Settings) -> Loaded:
    """Whisper (Radford et al. 2022) of transformers: what is said, phrase by phrase."""
    network, folder = load_transformer("WhisperForConditionalGeneration", "whisper", settings)
    reader = reader_of("WhisperFeatureExtractor", folder, "whisper")
    tokens = reader_of("WhisperTokenizer", folder, "whisper")
    record = {
        "model": f"transformers {settings.model}",
        "version": version("transformers"),
        "weights": weights_hash(network),
    }
    network = ready(network, settings)

    def function(chunks: Sequence[Chunk]) -> list[Seen]:
        heard = [chunk for chunk in chunks if not is_silent(chunk.values)]
        rows = iter(generate(heard) if heard else ())
        return [Seen() if is_silent(c.values) else Seen(None, said(c, next(rows))) for c in chunks]

    def generate(chunks: Sequence[Chunk]) -> torch.Tensor:
        sounds = [chunk.values for chunk in chunks]
        mel = reader(sounds, sampling_rate=Sound.RATE, return_tensors="pt")["input_features"]
        with torch.inference_mode():
            return network.generate(
                mel.to(settings.device, precision(settings)),
                return_timestamps=True,
                no_speech_threshold=_NO_SPEECH,
                logprob_threshold=_LIKELY,
                temperature=(0.0,),
                do_sample=False,
            )

    def said(chunk: Chunk, ids: torch.Tensor) -> tuple[Words, ...]:
        start, end = float(chunk.times[0]), len(chunk.values) / Sound.RATE
        told = tokens.decode(ids.tolist(), skip_special_tokens=True, output_offsets=True)
        pieces = told["offsets"] or [{"text": told["text"], "timestamp": (0.0, end)}]
        return tuple(
            Words(piece["text"].strip(), start + first, start + min(last, end))
            for piece in pieces
            for first, last in [piece["timestamp"]]
            if piece["text"].strip()
        )

    return Loaded(function, Sound(_SPOKEN_SECONDS), 0, record, _SPOKEN_CHUNKS)
