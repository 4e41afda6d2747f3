"""From captions to tokens, by the tokeniser of a Hugging Face model."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from misc.text_embeddings.captions import Captions
from misc.text_embeddings.tokens import Tokens
from utils.errors import UserError

logger = logging.getLogger(__name__)

_TEXTS_AT_ONCE = 1000


@dataclass(frozen=True)
class TokenReader:
    """Turns captions into tokens.

    Attributes:
        tokenizer: of the model.
        limit: tokens of a caption that are read, those that the model adds included.
        drop_special: whether the tokens that the model adds do not count.
        pooling: "cls" and "last" make one token count.
    """

    tokenizer: Any
    limit: int | None
    drop_special: bool
    pooling: str

    def read(self, captions: Captions) -> tuple[Tokens, dict[str, int]]:
        """Return all tokens, and how many captions were cut, had no word, and so on."""
        tokens = Tokens()
        cut = without = unknown = 0
        for at, (ids, special, was_cut) in enumerate(self._encodings(captions.texts)):
            cut += was_cut
            without += all(special)
            # CLIP's end of a text and its unknown token are one: what the model adds is known.
            unknown += sum(
                number == self.tokenizer.unk_token_id and not mark
                for number, mark in zip(ids, special, strict=True)
            )
            if not ids:
                ids, special = [self._stand_in(captions, at)], [1]
            tokens.add(ids, self._keep(captions, at, ids, special))
        counts = {
            "captions_cut": cut,
            "captions_without_words": without,
            "tokens": len(tokens.ids),
            "unknown_tokens": unknown,
        }
        self._log(counts, len(captions.texts))
        return tokens, counts

    def _encodings(self, texts: list[str]) -> Iterator[tuple[list[int], list[int], bool]]:
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            block = texts[start : start + _TEXTS_AT_ONCE]
            whole = self.tokenizer(block, return_special_tokens_mask=True, verbose=False)
            for at, text in enumerate(block):
                ids, special = whole["input_ids"][at], whole["special_tokens_mask"][at]
                is_long = self.limit is not None and len(ids) > self.limit
                if is_long:
                    # Cut by the tokeniser, which keeps the closing token of the model.
                    part = self.tokenizer(
                        text,
                        return_special_tokens_mask=True,
                        truncation=True,
                        max_length=self.limit,
                    )
                    ids, special = part["input_ids"], part["special_tokens_mask"]
                yield ids, special, is_long

    def _keep(self, captions: Captions, at: int, ids: list[int], special: list[int]) -> list[bool]:
        if self.pooling == "cls":
            first = self.tokenizer.cls_token_id
            if first is None or first not in ids:
                raise UserError(
                    f"--pooling cls: this encoder puts no such token into {captions.name(at)}; "
                    "use mean, last or tokens."
                )
            place = ids.index(first)
            return [number == place for number in range(len(ids))]
        # A caption without words has nothing but what the model adds.
        drop = self.drop_special and not all(special)
        keep = [not (drop and mark) for mark in special]
        if self.pooling == "last":
            place = max(number for number, kept in enumerate(keep) if kept)
            return [number == place for number in range(len(ids))]
        return keep

    def _stand_in(self, captions: Captions, at: int) -> int:
        """Return the token that stands for an empty caption, where the model adds none itself."""
        names = ("bos_token_id", "eos_token_id", "cls_token_id", "unk_token_id", "pad_token_id")
        for name in names:
            value = getattr(self.tokenizer, name, None)
            if value is not None:
                return value
        raise UserError(
            f"{captions.name(at).capitalize()} in {captions.path} is empty, and this encoder has "
            "no token for that: remove the caption."
        )

    def _log(self, counts: dict[str, int], total: int) -> None:
        if counts["captions_cut"]:
            logger.warning(
                "%d of %d captions are longer than the %d tokens that are read, and are cut",
                counts["captions_cut"],
                total,
                self.limit,
            )
        if counts["captions_without_words"]:
            logger.warning("%d captions have no words", counts["captions_without_words"])
        if counts["unknown_tokens"]:
            share = 100 * counts["unknown_tokens"] / counts["tokens"]
            logger.info(
                "%d of %d tokens (%.1f %%) are unknown to the encoder",
                counts["unknown_tokens"],
                counts["tokens"],
                share,
            )
