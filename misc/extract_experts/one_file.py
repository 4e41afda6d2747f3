"""One file looked at by experts, as a query that is a video, a picture or a sound."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from misc.extract_experts.experts.table import wanted_expert
from misc.extract_experts.extract import look_at
from misc.extract_experts.running import load_experts
from utils.errors import UserError
from utils.files import is_there


def features_of(path: Path, experts: Sequence[str], device: str = "cpu") -> dict[str, np.ndarray]:
    """Return what experts see in a file: (D,), or (m, D) of an expert of variable length.

    Experts that see nothing are left out, and so are words without vectors.

    Args:
        path: a video, a picture or a sound.
        experts: as --experts takes them, `NAME=EXPERT:MODEL`.
        device: torch's name of it.

    Raises:
        UserError: the file cannot be decoded, or an expert is not known or cannot be loaded.
    """
    if not is_there(path, Path.is_file):
        raise UserError(f"There is no video {path}.")
    running = load_experts(list(map(wanted_expert, experts)), device, device != "cpu", "")
    seen = look_at(path, running)
    vectors = {one.name: seen[one.name].vectors[0] for one in running}
    return {
        one.name: vectors[one.name] if one.wanted.row.is_variable else vectors[one.name][0]
        for one in running
        if len(vectors[one.name])
    }
