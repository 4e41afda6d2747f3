"""Checkpoints: written whole or not at all, read without ever executing what is in them."""

import shutil
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loader.content import BadContent, Truncated
from data_loader.errors import UserError
from data_loader.files import reason, replacing
from trainer.checkpoint_file import read_checkpoint_file
from trainer.published_checkpoint import translated

# Keys of a checkpoint that people's scripts rely on.
REQUIRED_KEYS = ("arch", "epoch", "state_dict", "config")
# Left out by those who only ask what a checkpoint says of its training.
LARGE_KEYS = ("state_dict", "optimizer")
LISTED_KEYS = 5
# What reading a broken file may raise besides; RuntimeError covers exhausted recursion and torch.
_PARSER_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        UserError: the disk is full or the folder cannot be written; an older checkpoint of this
            name is still whole then.
    """
    with replacing(path) as handle:
        try:
            torch.save(dict(content), handle)
        except RuntimeError as error:
            # torch's archive writer hides the system's error behind its own.
            cause = error.__cause__ or error.__context__
            raise (cause if isinstance(cause, OSError) else error) from error


def link_checkpoint(existing: Path, path: Path) -> None:
    """Give a checkpoint a second name, replacing what had it."""
    temporary = path.with_name(f".{path.name}.link.tmp")
    try:
        temporary.unlink(missing_ok=True)
        temporary.hardlink_to(existing)
        temporary.replace(path)
    except OSError:
        # File systems without hard links: a second copy does as well.
        with replacing(path) as handle, existing.open("rb") as source:
            shutil.copyfileobj(source, handle)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, ours or a published one (see `published_checkpoint`).

    Args:
        path: the file.
        leave_out: keys that are not wanted ("optimizer"); nothing of them is read.

    Raises:
        UserError: the file cannot be read, is damaged, holds anything but weights and plain
            values, or is no checkpoint.
    """
    try:
        content = read_checkpoint_file(path, leave_out)
    except OSError as error:
        raise UserError(f"Cannot read the checkpoint {path}: {reason(error)}.") from error
    except (Truncated, zipfile.BadZipFile) as error:
        raise UserError(
            f"The checkpoint {path} is damaged ({_first_line(error)}): fetch or make it again."
        ) from error
    except BadContent as error:
        raise UserError(f"The checkpoint {path} is refused: {error}.") from error
    except _PARSER_ERRORS as error:
        raise UserError(
            f"The checkpoint {path} is damaged or is not a checkpoint ({_first_line(error)})."
        ) from error
    required = [key for key in REQUIRED_KEYS if key not in leave_out]
    missing = [key for key in required if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"The file {path} is no checkpoint of a training: it has no {missing[0]}.")
    return translated(content, path)


def load_weights(net: nn.Module, state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Put the weights of the checkpoint `path` into a model, all of them or none.

    Raises:
        UserError: they belong to another architecture; says what is missing, unexpected, or of
            another shape.
    """
    own = net.state_dict()
    missing = [name for name in own if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    reshaped = [
        f"{name} {tuple(state_dict[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state_dict and state_dict[name].shape != own[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    report = "; ".join(f"{len(n)} {kind}: {_listed(n)}" for kind, n in kinds.items() if n)
    if report:
        raise UserError(
            f"The checkpoint {path} does not fit this model: {report}. Use the config that it was "
            "trained with (config.json beside it)."
        )
    net.load_state_dict(state_dict)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED_KEYS} more" if len(names) > LISTED_KEYS else ""
    return ", ".join(names[:LISTED_KEYS]) + more


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
