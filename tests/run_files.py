"""Looks at what a run left in its folders."""

from collections.abc import Callable
from pathlib import Path

import torch

Run = Callable[..., tuple[int, str]]
"""Runs an entry point as the shell does (fixture `run`): its exit code and what it wrote."""


def only_run(saved: Path) -> Path:
    """Folder with the checkpoints of the only run under `saved`."""
    [config] = (saved / "models").rglob("config.json")
    return config.parent


def beside(models: Path, kind: str) -> Path:
    """The log or web folder of the run whose checkpoints lie in `models`."""
    parts = list(models.parts)
    parts[parts.index("models")] = kind
    return Path(*parts)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]
