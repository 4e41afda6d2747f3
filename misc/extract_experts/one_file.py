"""One file looked at by experts, as a query that is a video, a picture or a sound."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np

from misc.extract_experts.experts.table import wanted_expert
from misc.extract_experts.extract import look_at
from misc.extract_experts.running import Running, load_experts
from utils.errors import UserError
from utils.files import is_there

_one_at_a_time = Lock()


@cache
def _loaded(experts: tuple[str, ...], device: str) -> list[Running]:
    return load_experts(list(map(wanted_expert, experts)), device, device != "cpu", "")


def features_of(path: Path, experts: Sequence[str], device: str = "cpu") -> dict[str, np.ndarray]:
    """Return what experts see in a file: (D,), or (m, D) of an expert of variable length.

    Experts that see nothing are left out, and so are words without vectors. They stay loaded for
    the next file.

    Args:
        path: a video, a picture or a sound.
        experts: as --experts takes them, `NAME=EXPERT:MODEL`.
        device: torch's name of it.

    Raises:
        UserError: the file cannot be decoded, or an expert is not known or cannot be loaded.
    """
    if is_there(path, Path.is_dir):
        raise UserError(f"{path} is a folder: one video, picture or sound was expected.")
    if not is_there(path, Path.is_file):
        raise UserError(f"There is no file {path}: a video, a picture or a sound was expected.")
    with _one_at_a_time:
        running = _loaded(tuple(experts), device)
        seen = look_at(path, running)
    vectors = {one.name: seen[one.name].vectors[0] for one in running}
    return {
        one.name: vectors[one.name] if one.wanted.row.is_variable else vectors[one.name][0]
        for one in running
        if len(vectors[one.name])
    }
