"""Experts that need no weights: they are computed of pixels and samples."""

from misc.extract_experts.expert import Row

ROWS: tuple[Row, ...] = ()
