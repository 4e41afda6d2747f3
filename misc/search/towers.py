"""Reads a sentence for experts that were not trained here, each by its own tower."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from misc.search.queries import KINDS, TextSide, checked
from model.similarity import TextEmbeddings
from utils.errors import UserError

DUAL_ENCODER, WORDS = "dual encoder", "words"

Tower = Callable[[Sequence[str]], np.ndarray]
"""Sentences -> (sentences, D) float32."""


class Towers:
    """Embeds sentences for each expert; all experts weigh the same.

    Args:
        towers: expert -> its tower as plain data: "kind" is "dual encoder" (with "query", see
            `misc.extract_experts.experts.hub_dual.query_tower`) or "words" (with "side", a
            `TextSide`).
        folder: of the index's model.
        device: where it computes.
    """

    def __init__(
        self, towers: dict[str, dict[str, Any]], folder: Path, device: torch.device
    ) -> None:
        self._told = {
            name: told["query"] if told["kind"] == DUAL_ENCODER else TextSide(**told["side"])
            for name, told in towers.items()
        }
        self._folder, self._device = folder, device
        self._loaded: dict[str, Tower] = {}

    def __call__(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed sentences, one query each, on the CPU.

        Raises:
            UserError: a text has no words, or a tower cannot be had.
        """
        texts = [checked(text) for text in texts]
        parts = [self._tower(name, told)(texts) for name, told in self._told.items()]
        embeddings = tuple(normalize(torch.from_numpy(part).float(), dim=1) for part in parts)
        weights = torch.full((len(texts), len(parts)), 1 / len(parts))
        return TextEmbeddings(embeddings, weights)

    def _tower(self, name: str, told: dict[str, Any] | TextSide) -> Tower:
        # Experts of words share one encoder.
        key = WORDS if isinstance(told, TextSide) else name
        if key not in self._loaded:
            self._loaded[key] = self._load(told)
        return self._loaded[key]

    def _load(self, told: dict[str, Any] | TextSide) -> Tower:
        if isinstance(told, TextSide):
            encode = KINDS[told.encoder["kind"]](told, self._folder, self._device)
            return lambda texts: np.stack([rows.mean(axis=0) for rows in encode(texts)])
        try:
            from misc.extract_experts.experts.hub_dual import query_tower
        except ImportError as error:
            raise UserError(
                "The text towers of dual encoders come with misc.extract_experts, which this "
                "installation lacks."
            ) from error
        tower: Tower = query_tower(told, str(self._device))
        return tower
