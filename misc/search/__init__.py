"""Search an index of videos by sentences: `Searcher` and the hits that it returns."""

from typing import TYPE_CHECKING, Any

from misc.search.hits import Hit, Info, Word

if TYPE_CHECKING:
    from misc.search.searcher import Searcher

__all__ = ["Hit", "Info", "Searcher", "Word"]


def __getattr__(name: str) -> Any:
    # With it comes torch, which takes its time: a slip on a command line is answered before.
    if name == "Searcher":
        from misc.search.searcher import Searcher

        return Searcher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
