"""Experts by hub name: any model of a library, from its hub or from a folder."""

from misc.extract_experts.expert import Row
from misc.extract_experts.experts.packages import late

_OF_MODEL = "the model's own"

ROWS = (
    Row(
        name="timm",
        what="pictures, any network of timm",
        is_variable=False,
        licence=_OF_MODEL,
        weights="timm:NAME, a name on the hub, or a folder",
        load=late("hub_seen", "timm"),
        needs_model=True,
    ),
    Row(
        name="torchvision",
        what="motion, any video network of torchvision",
        is_variable=False,
        licence="BSD-3-Clause; Kinetics' videos are for research",
        weights="torchvision:NAME, or a file of weights that begins with the name",
        load=late("hub_seen", "torchvision"),
        needs_model=True,
    ),
    Row(
        name="videomae",
        what="motion, VideoMAE of transformers",
        is_variable=False,
        licence=_OF_MODEL,
        weights="videomae:NAME on the hub, or a folder",
        load=late("hub_seen", "videomae"),
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
        load=late("hub_heard", "whisper"),
        needs_model=True,
        gives_words=True,
    ),
)

# The kinds of experts that Collaborative Experts used, in networks that can be had today (the
# ResNeXt for research alone, CC BY-NC 4.0).
CLASSIC = (
    *("object=timm:legacy_senet154.in1k", "rgb=timm:resnext101_32x8d.fb_wsl_ig1b_ft_in1k"),
    *("action=torchvision:r2plus1d_18", "s3d=torchvision:s3d"),
    *("sound=yamnet", "speech=faster-whisper", "ocr=rapidocr", "face=dlib"),
)
# Two of them, clip and sound, can be searched without training (VideoMAE's weights are for research
# alone, CC BY-NC 4.0).
STRONG = (
    *("clip=open_clip:ViT-B-16-SigLIP2/webli", "image=timm:vit_pe_core_base_patch16_224.fb"),
    *(
        "action=videomae:MCG-NJU/videomae-base-finetuned-kinetics",
        "sound=clap:laion/clap-htsat-unfused",
    ),
    *("speech=whisper:openai/whisper-large-v3-turbo", "ocr=rapidocr", "face=dlib"),
)
