"""The folder of a Hugging Face encoder: found on disk or fetched by name, and what lies in it.

Nothing in it is executed: code that comes with a model is never run, weights are safetensors or
are read as weights only.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from misc.text_embeddings.known_encoders import KNOWN
from misc.text_embeddings.record import file_hash, first_line
from utils.errors import UserError, did_you_mean, short
from utils.files import is_there, read_json

logger = logging.getLogger(__name__)

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.spm", "*.tiktoken")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_FILES = ("*.json", "*.txt", *_TOKENIZERS)
# The same weights for other programs.
_UNUSED = ("onnx/*", "openvino/*", "coreml/*", "original/*")
_TRANSFORMER, _POOLING, _NORMALIZE = "Transformer", "Pooling", "Normalize"
_MODE = "pooling_mode_"


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a network and its tokeniser.

    Attributes:
        path: holds config, weights and tokeniser.
        record: name and revision: a commit hash, or the hashes of what decides the result.
        max_length: what a sentence-transformers folder says of the length, if it is one.
        sentence_pooling: how such a folder makes one vector of a text: "mean", "max" or "cls".
        normalise: whether it scales that vector to length 1.
    """

    path: Path
    record: dict[str, Any]
    max_length: int | None = None
    sentence_pooling: str | None = None
    normalise: bool = False


def find_model(name: str, revision: str | None) -> ModelFolder:
    """Return the folder of an encoder.

    Args:
        name: a folder, or a name on the hub, which is fetched unless it lies in the local cache.
        revision: branch, tag or commit on the hub; None: its main branch.

    Raises:
        UserError: there is none of that name, or the folder lacks a part.
    """
    if is_there(Path(name), Path.is_dir):
        if revision is not None:
            raise UserError(f"--revision has no meaning for the folder {name}.")
        return _describe(Path(name), name, None)
    path = _fetch(name, revision)
    return _describe(path, name, path.name)


def _fetch(name: str, revision: str | None) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing_packages() from error
    logger.info("Looking for %s in the local cache or on the Hugging Face hub", name)
    try:
        path = Path(_snapshot(huggingface_hub, name, revision, (*_FILES, "*.safetensors")))
        if not any(path.glob("*.safetensors")):
            path = Path(_snapshot(huggingface_hub, name, revision, (*_FILES, *_WEIGHTS)))
    except Exception as error:
        # Its clients raise errors of several libraries; each means that the model is not to be had.
        raise UserError(
            f'The encoder "{name}"{_hint(name)} is no folder here and cannot be '
            f"fetched from the Hugging Face hub ({first_line(error)}); "
            "give the folder of a model that you downloaded elsewhere."
        ) from error
    return path


def missing_packages() -> UserError:
    """Say how to get the packages that only these encoders need."""
    return UserError(
        "Hugging Face encoders need more packages: run "
        "`pip install -r requirements/text-requirements.txt`."
    )


def _hint(name: str) -> str:
    is_known = any(name == known.hub for known in KNOWN.values())
    return "" if is_known else did_you_mean(name, KNOWN)


def _snapshot(hub: Any, name: str, revision: str | None, files: tuple[str, ...]) -> str:
    return hub.snapshot_download(
        name, revision=revision, allow_patterns=list(files), ignore_patterns=list(_UNUSED)
    )


def _describe(folder: Path, name: str, commit: str | None) -> ModelFolder:
    modules = folder / "modules.json"
    sentence = _sentence_modules(folder, modules) if modules.is_file() else {}
    path = folder / sentence.get("path", "")
    if not (path / "config.json").is_file():
        raise UserError(
            f"The folder {path} holds no model: it has no config.json. A folder as Hugging Face's "
            "save_pretrained writes it was expected, with config, weights and tokeniser."
        )
    weights = next((files for kind in _WEIGHTS if (files := sorted(path.glob(kind)))), [])
    if not weights:
        raise UserError(f"The folder {path} holds no weights ({' or '.join(_WEIGHTS)}).")
    # Without them transformers makes a tokeniser that knows no word, and says nothing.
    tokenizer = sorted({file for pattern in _TOKENIZERS for file in path.glob(pattern)})
    if not tokenizer:
        raise UserError(
            f"The folder {path} holds no tokeniser ({', '.join(_TOKENIZERS)}): save the model's "
            "tokeniser into it."
        )
    files = [path / "config.json", *weights, *tokenizer]
    revision = commit or {file.name: f"sha256:{file_hash(file)}" for file in files}
    return ModelFolder(
        path=path,
        record={"name": name, "revision": revision},
        max_length=_max_length(path) if sentence else None,
        sentence_pooling=sentence.get("pooling"),
        normalise=sentence.get("normalise", False),
    )


def _sentence_modules(folder: Path, modules: Path) -> dict[str, Any]:
    """Read how a sentence-transformers folder is put together."""
    parts = read_json(modules, "list of modules")
    try:
        by_kind = {str(part["type"]).rsplit(".", 1)[-1]: str(part["path"]) for part in parts}
    except (TypeError, KeyError) as error:
        raise UserError(f"The list of modules {modules} is not valid.") from error
    for inner in by_kind.values():
        if Path(inner).is_absolute() or ".." in Path(inner).parts:
            raise UserError(f'The list of modules {modules} leads out of its folder: "{inner}".')
    if _TRANSFORMER not in by_kind:
        raise UserError(
            f"The folder {folder} is a sentence encoder without a transformer (it has "
            f"{', '.join(map(short, by_kind))}): only those with one give hidden states."
        )
    result: dict[str, Any] = {"path": by_kind[_TRANSFORMER]}
    # Further layers (Dense, LayerNorm) make another vector than pooling alone.
    if _POOLING in by_kind and not set(by_kind) - {_TRANSFORMER, _POOLING, _NORMALIZE}:
        settings = read_json(folder / by_kind[_POOLING] / "config.json", "pooling of the model")
        result["pooling"] = _pooling(settings)
        result["normalise"] = _NORMALIZE in by_kind
    return result


def _pooling(settings: Any) -> str | None:
    """Return the one pooling that a sentence encoder uses, None for a mixture or another."""
    if not isinstance(settings, dict):
        return None
    if isinstance(settings.get("pooling_mode"), str):
        used = [settings["pooling_mode"]]
    else:
        names = [key for key, on in settings.items() if key.startswith(_MODE) and on is True]
        used = [
            key.removeprefix(_MODE).removesuffix("_token").removesuffix("_tokens") for key in names
        ]
    return used[0] if len(used) == 1 and used[0] in ("cls", "mean", "max") else None


def _max_length(path: Path) -> int | None:
    settings = path / "sentence_bert_config.json"
    if not settings.is_file():
        return None
    value = read_json(settings, "settings of the model")
    length = value.get("max_seq_length") if isinstance(value, dict) else None
    return length if isinstance(length, int) and length > 0 else None
