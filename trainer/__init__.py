"""Training loop, checkpoints and evaluation. Knows model and data."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.load import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    # The rooms of this package are used one by one; only who asks for the whole loads it.
    if name == "load_model":
        from trainer.load import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
