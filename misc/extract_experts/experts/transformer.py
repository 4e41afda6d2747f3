"""Networks of transformers, from a folder or by their names on the hub."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from misc.extract_experts.expert import Settings
from misc.extract_experts.experts.networks import Pixels
from misc.extract_experts.experts.packages import HUB, fetching, is_folder, package, unusable
from utils.errors import UserError, short
from utils.files import read_json

# What stands beside the weights; tokenisers as text, tables and sentencepiece's.
_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_PICKLED = "pytorch_model*.bin"
# transformers' own numbers for image processors that say nothing else.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def find_folder(name: str, row: str) -> Path:
    """Return the folder of a model: given as such, in the hub's local cache, or fetched.

    Raises:
        UserError: there is none.
    """
    if is_folder(name):
        return Path(name)
    hub = package("huggingface_hub", row, HUB)
    with fetching("transformers", name):
        folder = Path(hub.snapshot_download(name, allow_patterns=list(_FILES)))
        if not any(folder.glob("*.safetensors")):
            folder = Path(hub.snapshot_download(name, allow_patterns=[*_FILES, _PICKLED]))
        return folder


def load_transformer(kind: str, row: str, settings: Settings) -> tuple[nn.Module, Path]:
    """Load a network of a class of transformers in float32; returns it and its folder.

    No code that comes with a model is run.

    Raises:
        UserError: there is none, or its weights lack a part.
    """
    library = package("transformers", row, HUB)
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    folder = find_folder(settings.model, row)
    try:
        network_of_kind = getattr(library, kind)
    except Exception as error:  # it is imported only now, and torchvision with it
        raise unusable("transformers", row, HUB, error) from error
    with fetching("transformers", settings.model):
        network, report = network_of_kind.from_pretrained(
            folder,
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"The weights in {folder} lack {len(missing)} parts of a {kind}, such as "
            f"{short(missing[0])}: they are of a model of another kind."
        )
    return network.eval(), folder


def reader_of(kind: str, folder: Path, row: str) -> Any:
    """Load a tokeniser or a reader of sound, by the name of its class."""
    library = package("transformers", row, HUB)
    with fetching("transformers", str(folder)):
        return getattr(library, kind).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )


def pixels_of(folder: Path, size: int) -> Pixels:
    """Return how a model's image processor turns pixels into numbers."""
    path = folder / "preprocessor_config.json"
    said = read_json(path, "image processor") if path.is_file() else {}
    if not isinstance(said, dict):
        raise UserError(f"The image processor {path} is no object with named entries.")
    return Pixels(size, said.get("image_mean") or _MEAN, said.get("image_std") or _STD)
