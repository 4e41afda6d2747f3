"""Checkpoints: written whole or not at all, read without ever executing what is in them."""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loader.formats.read import errors_of
from trainer.checkpoints.file import read_checkpoint_file
from trainer.checkpoints.published import translated
from utils.command_line import LARGEST_SEED
from utils.errors import Truncated, UserError, listed, short
from utils.files import replacing, temporary_name

# Keys of a checkpoint that people's scripts rely on, and what stands there.
REQUIRED_KEYS = {"arch": str, "epoch": int, "state_dict": object, "config": object}
# Left out by those who only ask what a checkpoint says of its training.
LARGE_KEYS = ("state_dict", "optimizer", "trained_weights", "moving_average", "best_weights")
# Left out by those who only want the model.
NOT_TESTED = LARGE_KEYS[1:]
SHOWN_MODULES = 40


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
    temporary = temporary_name(path)
    try:
        temporary.hardlink_to(existing)
        temporary.replace(path)
    except OSError:
        # File systems without hard links: a second copy does as well.
        with replacing(path) as handle, existing.open("rb") as source:
            shutil.copyfileobj(source, handle)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(
    path: Path, leave_out: Collection[str] = (), needs_config: bool = True
) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, ours or a published one (see `published`).

    Args:
        path: the file.
        leave_out: keys that are not wanted ("optimizer"); nothing of them is read.
        needs_config: without it weights alone will do: a checkpoint without a config, a bare state
            dict, or a `.safetensors` file. What such a file does not tell is None.

    Raises:
        UserError: the file cannot be read, is damaged, holds anything but weights and plain
            values, or is no checkpoint.
    """
    content = _read(path, leave_out)
    if not needs_config and isinstance(content, dict):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            content = {"state_dict": content}
        content = {"arch": None, "epoch": None, "config": {}} | content
    for key, kind in REQUIRED_KEYS.items():
        if key in leave_out:
            continue
        if not isinstance(content, dict) or key not in content:
            hint = "" if needs_config or key != "config" else "; give its config with --config"
            raise UserError(
                f"The file {path} is no checkpoint of a training: it has no {key}{hint}."
            )
        if not isinstance(content[key], kind) and not (content[key] is None and not needs_config):
            raise _wrong_value(path, key, content[key])
    seed = content.get("seed", 0)
    if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
        raise _wrong_value(path, "seed", seed)
    return translated(content, path)


def _wrong_value(path: Path, key: str, value: Any) -> UserError:
    return UserError(
        f"The checkpoint {path} is damaged: its {key} is {short(repr(value))} "
        f"({type(value).__name__})."
    )


def _read(path: Path, leave_out: Collection[str]) -> Any:
    if path.suffix != ".safetensors":
        return read_checkpoint_file(path, leave_out)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with errors_of(path, "a checkpoint"):
        try:
            return load_file(path)
        except SafetensorError as error:
            raise Truncated(str(error).partition("\n")[0].rstrip(".")) from error


def steps_done(checkpoint: Mapping[str, Any]) -> tuple[int, int]:
    """Return how far the training of a checkpoint has come: whole epochs, and steps of the next."""
    course = checkpoint.get("epoch_in_course")
    steps = course.get("steps") if isinstance(course, dict) else 0
    return checkpoint["epoch"], steps if type(steps) is int else 0


def load_what_fits(net: nn.Module, weights: Mapping[str, Tensor], path: Path) -> str:
    """Start a model from the weights of another one: those of the same name and shape.

    Returns:
        A table of what was loaded, what is new (keeps its random start), and what was left out.

    Raises:
        UserError: nothing fits.
    """
    own = net.state_dict()
    fitting = {n: v for n, v in weights.items() if n in own and v.shape == own[n].shape}
    learned = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    if not learned & fitting.keys():
        raise UserError(
            f"Nothing in {path} fits this model: of its {len(weights)} tensors none has the name "
            "and the shape of a weight that learns here; is it of another architecture?"
        )
    net.load_state_dict(fitting, strict=False)
    rows = [f"{'loaded':<9} {len(fitting):>5} tensors, {_count(fitting):>12,} values"]
    new = {name: value for name, value in own.items() if name not in fitting}
    left = {name: value for name, value in weights.items() if name not in fitting}
    for what, tensors in (("new", new), ("left out", left)):
        row = f"{what:<9} {len(tensors):>5} tensors, {_count(tensors):>12,} values"
        rows.append(f"{row}: {_by_module(tensors)}" if tensors else row)
    return "\n".join(rows)


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in tensors.values())


def _by_module(tensors: Mapping[str, Tensor]) -> str:
    """List the names, the tensors of one module together."""
    modules = dict.fromkeys(name.rpartition(".")[0] or name for name in tensors)
    return listed(modules, SHOWN_MODULES)


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
    report = "; ".join(f"{len(n)} {kind}: {listed(n, 2)}" for kind, n in kinds.items() if n)
    if report:
        raise UserError(
            f"The checkpoint {path} does not fit this model: {report}. Use the config that it was "
            "trained with (config.json beside it)."
        )
    net.load_state_dict(state_dict)
