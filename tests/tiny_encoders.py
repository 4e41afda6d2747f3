"""Writes tiny random encoders of each family, with the files that published folders have."""

import json
from pathlib import Path
from typing import Any

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SENTENCES = ["a dog runs over the bridge", "the red bridge at night", "slowly a red dog runs"]
LONGEST = 24
SIZE = 16
LAYERS = 2

_SHAPE = {"hidden_size": SIZE, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
_BERT = {**_SHAPE, "intermediate_size": 20, "max_position_embeddings": LONGEST}
_IMAGE = {"intermediate_size": 20, "image_size": 8, "patch_size": 4}
_CLIP = {**_BERT, "pad_token_id": 5, "bos_token_id": 0, "eos_token_id": 5}
_GPT = {"n_embd": SIZE, "n_layer": LAYERS, "n_head": 2, "n_positions": LONGEST}

FAMILIES: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "electra": {**_BERT, "embedding_size": 8},
    "albert": {**_BERT, "embedding_size": 8},
    # Its positions start after that of the padding, number 1.
    "roberta": {**_BERT, "max_position_embeddings": LONGEST + 2},
    "gpt2": _GPT,
    "openai-gpt": _GPT,
    "ctrl": {**_GPT, "dff": 20},
    "xlnet": {"d_model": SIZE, "n_layer": LAYERS, "n_head": 2, "d_inner": 20},
    "t5": {"d_model": SIZE, "d_kv": 8, "d_ff": 20, "num_layers": LAYERS, "num_heads": 2},
    # An encoder-decoder without a class for its encoder alone.
    "bart": {
        "d_model": SIZE,
        "encoder_layers": LAYERS,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 20,
        "decoder_ffn_dim": 20,
        "max_position_embeddings": LONGEST,
    },
    # Of two networks one reads text; saved apart it is a family of its own.
    "clip": {"projection_dim": 8, "text_config": _CLIP, "vision_config": {**_SHAPE, **_IMAGE}},
    "clip_text_model": _CLIP,
}


def make_encoder(folder: Path, family: str, seed: int = 0) -> Path:
    """Write a folder with config, random weights and tokeniser; returns it."""
    import transformers

    folder.mkdir(parents=True)
    words = write_tokenizer(folder, family)
    torch.manual_seed(seed)
    special = {"pad_token_id": 1} if family in ("roberta", "bart") else {}
    shape = {"vocab_size": words, **FAMILIES[family], **special}
    if family == "clip":
        shape["text_config"] = {"vocab_size": words, **shape["text_config"]}
    config = transformers.AutoConfig.for_model(family, **shape)
    network = transformers.AutoModel.from_config(config)
    for parameter in network.parameters():
        # The usual start is so small that words would hardly matter.
        torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, family: str) -> int:
    """Write the files of a family's tokeniser; returns the number of its tokens."""
    if family in ("bert", "electra"):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "runs", "the", "red"]
        words += [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        return len(words)
    if family in ("t5", "xlnet", "albert"):
        return _train_pieces(folder, family)
    return _write_pairs(folder, family)


def _write_pairs(folder: Path, family: str) -> int:
    """Write byte pairs, `vocab.json` and `merges.txt`, in the form of each family."""
    space, ending = ("Ġ", "") if family in ("gpt2", "roberta", "bart") else ("", "</w>")
    joined = [("d", "o"), ("do", f"g{ending}"), ("r", "e")]
    if family == "ctrl":
        tokens = [*(f"{letter}@@" for letter in LETTERS), *LETTERS, "<unk>"]
    else:
        letters = [*LETTERS, *(f"{letter}{ending}" for letter in LETTERS), *space]
        tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
        tokens += dict.fromkeys([*letters, *(a + b for a, b in joined)])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    lines = [] if family == "ctrl" else [" ".join(pair) for pair in joined]
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n")
    if family.startswith("clip"):
        # One token is the end of a text, what fills it up and what is not known.
        end = dict.fromkeys(["eos_token", "unk_token", "pad_token"], "<|endoftext|>")
        own = {"tokenizer_class": "CLIPTokenizer", "bos_token": "<s>", **end}
        (folder / "tokenizer_config.json").write_text(json.dumps(own))
    return len(tokens)


def _train_pieces(folder: Path, family: str) -> int:
    import sentencepiece

    own = {
        "t5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
        "xlnet": {"control_symbols": "<cls>,<sep>,<pad>,<mask>,<eod>,<eop>"},
        "albert": {"pad_id": 0, "unk_id": 1, "user_defined_symbols": "[CLS],[SEP],[MASK]"},
    }[family]
    if family == "albert":
        own |= {"bos_id": -1, "eos_id": -1, "pad_piece": "<pad>"}
    with (folder / "spiece.model").open("wb") as handle:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*SENTENCES, LETTERS] * 20),
            model_writer=handle,
            vocab_size=60,
            hard_vocab_limit=False,
            minloglevel=2,
            num_threads=1,
            **own,
        )
    # T5's tokeniser adds a hundred tokens of its own.
    return 60 + (100 if family == "t5" else 0)
