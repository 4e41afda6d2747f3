"""What the user asks of an encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Settings:
    """The flags that concern the encoder; None where the user says nothing.

    Attributes:
        encoder: a known name, a file, a folder or a name on the Hugging Face hub.
        weights: the file or folder of a known encoder.
        dictionary: the words of MIL-NCE.
        pooling: "tokens", "mean", ...
        layer: the hidden states to take.
        special_tokens: "keep" or "drop".
        max_length: tokens of a caption that are read.
        revision: branch, tag or commit on the hub.
    """

    encoder: str
    weights: Path | None = None
    dictionary: Path | None = None
    pooling: str | None = None
    layer: int | None = None
    special_tokens: str | None = None
    max_length: int | None = None
    revision: str | None = None

    def refuse(self, kind: str, *flags: str) -> None:
        """Insist that flags without a meaning for this kind of encoder are not given.

        Raises:
            UserError: one of them is.
        """
        for flag in flags:
            if getattr(self, flag) is not None:
                raise UserError(
                    f'--{flag} has no meaning for {kind}, which is what "{self.encoder}" is.'
                )

    def choose_pooling(self, kind: str, known: Sequence[str]) -> str:
        """Return the pooling, by default the first of the known ones.

        Raises:
            UserError: this kind of encoder does not know it.
        """
        if self.pooling is None:
            return known[0]
        if self.pooling not in known:
            raise UserError(
                f'--pooling "{self.pooling}" is not known for {kind}'
                f"{did_you_mean(self.pooling, known)}: known are {', '.join(known)}."
            )
        return self.pooling
