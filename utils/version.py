"""The version of this software, as `pyproject.toml` gives it."""

import tomllib
from functools import cache
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


@cache
def version() -> str:
    """Return the version: `2.0.0`."""
    with _PROJECT.open("rb") as handle:
        return tomllib.load(handle)["project"]["version"]
