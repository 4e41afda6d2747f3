"""Captions by a Hugging Face encoder: tokens and the hidden states of one layer."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from logger.progress import progress
from misc.text_embeddings.captions import Captions
from misc.text_embeddings.job import Job, Settings, Tokens, first_line, versions
from misc.text_embeddings.known_encoders import POOLINGS
from misc.text_embeddings.model_folder import ModelFolder, find_model, missing_packages
from model.text_encoders import HiddenStates
from utils.errors import UserError, short

logger = logging.getLogger(__name__)

_TEXTS_AT_ONCE = 1000
# Tokenisers without a limit of their own announce an enormous one.
_NO_LIMIT = 1_000_000


def transformer_job(settings: Settings, name: str, captions: Captions) -> Job:
    """Encode captions by the hidden states of a Hugging Face encoder.

    Args:
        settings: the flags.
        name: a folder or a name on the hub.
        captions: what to encode.

    Raises:
        UserError: there is no such encoder, it lacks a part, or a flag does not go with it.
    """
    settings.refuse("a Hugging Face encoder", "dictionary")
    asked = settings.choose_pooling("a Hugging Face encoder", POOLINGS)
    special = settings.special_tokens or "keep"
    layer = -1 if settings.layer is None else settings.layer
    folder = find_model(name, settings.revision)
    pooling, normalise = _sentence_pooling(folder) if asked == "sentence" else (asked, False)
    tokenizer = load_tokenizer(folder.path)
    network = _load_network(folder.path)
    module = HiddenStates(network, layer)
    size = _hidden_size(module, layer, folder.path)
    limit = _limit(settings, folder, tokenizer, network)
    reader = TokenReader(tokenizer, limit, special == "drop", pooling)
    tokens, counts = reader.read(captions)
    largest = int(tokens.ids.max())
    rows = network.get_input_embeddings().num_embeddings
    if largest >= rows:
        raise UserError(
            f"The tokeniser in {folder.path} gives token {largest}, but the network knows {rows}: "
            "they are of different models."
        )
    record = {
        "kind": "Hugging Face encoder",
        **folder.record,
        "model_type": network.config.model_type,
        "pooling": pooling,
        "normalised": normalise,
        "layer": layer,
        "special_tokens": special,
        "max_length": limit,
        **counts,
        "versions": versions("numpy", "torch", "transformers", "tokenizers", "safetensors"),
    }
    # The reader has already narrowed the tokens down to the one that is asked for.
    module_pooling = "tokens" if pooling in ("cls", "last") else pooling
    return Job(tokens, module, size, module_pooling, normalise, record)


def _sentence_pooling(folder: ModelFolder) -> tuple[str, bool]:
    if folder.sentence_pooling is None:
        raise UserError(
            f"{folder.path} does not say how it makes one vector of a sentence (a "
            "sentence-transformers folder that pools by mean, max or its first token does): use "
            "--pooling mean or cls."
        )
    return folder.sentence_pooling, folder.normalise


def _library() -> Any:
    # It writes about every image processor that it cannot find.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        import transformers
    except ImportError as error:
        raise missing_packages() from error
    transformers.utils.logging.disable_progress_bar()
    return transformers


def load_tokenizer(path: Path) -> Any:
    """Load the tokeniser of a folder.

    Raises:
        UserError: it has none, or one that needs code of its own.
    """
    transformers = _library()
    try:
        return transformers.AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise _refusal("tokeniser", path, error) from error


def _load_network(path: Path) -> nn.Module:
    """Load a network without a head in float32.

    Of an encoder-decoder it is the encoder alone, of a pair of networks (CLIP: text and images) the
    one that reads text.
    """
    transformers = _library()
    try:
        config = transformers.AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
        # Nothing is generated, so nothing need be remembered.
        config.use_cache = False
        encoders = transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
        has_encoder = config.is_encoder_decoder and type(config) in encoders
        loader = transformers.AutoModelForTextEncoding if has_encoder else transformers.AutoModel
        network, report = loader.from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            # The one form of attention that every network has.
            attn_implementation="eager",
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
        )
    except Exception as error:
        raise _refusal("network", path, error) from error
    # What is missing is filled with random numbers; a pooler comes after the hidden states.
    missing = sorted(key for key in report["missing_keys"] if ".pooler." not in f".{key}")
    if missing:
        raise UserError(
            f"The weights in {path} lack {len(missing)} parts of the network that its config "
            f"describes, such as {short(missing[0])}."
        )
    if config.is_encoder_decoder and not has_encoder:
        network = network.get_encoder()
    return getattr(network, "text_model", network).eval()


def _refusal(what: str, path: Path, error: Exception) -> UserError:
    """Say why a part of a model cannot be loaded; its libraries raise errors of every kind."""
    return UserError(
        f"Cannot load the {what} in {path} ({first_line(error)}); a folder as Hugging Face's "
        "save_pretrained writes it was expected, and no model that needs code of its own."
    )


def _hidden_size(module: HiddenStates, layer: int, path: Path) -> int:
    """Return D, by trying the network on one token."""
    ids = torch.zeros((1, 1), dtype=torch.long)
    try:
        with torch.inference_mode():
            return module(ids).shape[-1]
    except IndexError as error:
        with torch.inference_mode():
            states = module.network(input_ids=ids, output_hidden_states=True).hidden_states
        raise UserError(
            f"There is no --layer {layer} in {path}: it has {len(states) - 1} layers, so 0 (the "
            f"embeddings) to {len(states) - 1}, or -1 to {-len(states)} from the end."
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise _refusal("text encoder", path, error) from error


def _limit(
    settings: Settings, folder: ModelFolder, tokenizer: Any, network: nn.Module
) -> int | None:
    """Return how many tokens of a caption are read: the least that anything allows."""
    limits = [settings.max_length, folder.max_length, tokenizer.model_max_length]
    positions = getattr(network.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions - _first_position(network))
    known = [limit for limit in limits if limit is not None and 0 < limit < _NO_LIMIT]
    if not known:
        return None
    if settings.max_length is not None and min(known) < settings.max_length:
        logger.info("The encoder reads at most %d tokens of a caption", min(known))
    added = tokenizer.num_special_tokens_to_add()
    if min(known) <= added:
        raise UserError(
            f"--max_length {min(known)} leaves no word of a caption: this encoder adds {added} "
            "tokens of its own, which count."
        )
    return min(known)


def _first_position(network: nn.Module) -> int:
    """Return the first position of a text; RoBERTa's count starts after that of the padding."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


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
        for start in progress(range(0, len(texts), _TEXTS_AT_ONCE), description="tokenising"):
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
