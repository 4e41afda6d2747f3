"""Tiny random networks of the libraries whose models experts are made of, saved as folders."""

import json
from pathlib import Path

import torch

from tests.tiny_encoders import write_tokenizer

SIZE = 16
_TOWER = {"width": 32, "layers": 1, "heads": 2}
_LAYERS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def make_timm(folder: Path, name: str = "test_vit", **arguments: object) -> Path:
    """Write a network of timm as its hub has them."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name, **arguments)
    timm.models.save_for_hf(network, folder, model_args=arguments or None)
    return folder


def make_open_clip(folder: Path, squash: bool = False) -> Path:
    """Write a dual encoder of open_clip."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    vision = {"image_size": 32, "patch_size": 16, "head_width": 16, "width": 32, "layers": 1}
    config = {
        "embed_dim": SIZE,
        "vision_cfg": vision,
        "text_cfg": {**_TOWER, "context_length": 12, "vocab_size": 49408},
    }
    (folder / "open_clip_config.json").write_text(
        json.dumps(
            {
                "model_cfg": config,
                "preprocess_cfg": {"resize_mode": "squash" if squash else "shortest"},
            }
        )
    )
    torch.manual_seed(0)
    network = open_clip.CLIP(**config)
    save_file(dict(network.state_dict()), folder / "open_clip_model.safetensors")
    return folder


def make_siglip(folder: Path) -> Path:
    """Write a SigLIP of transformers that reads texts of 8 tokens."""
    import transformers

    folder.mkdir(parents=True)
    words = write_tokenizer(folder, "clip")
    tower = {**_LAYERS, "intermediate_size": 20}
    text = {**tower, "vocab_size": words, "max_position_embeddings": 8, "projection_size": 16}
    vision = {**tower, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    transformers.SiglipModel(config).save_pretrained(folder)
    colours = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(colours))
    return folder


def make_videomae(folder: Path) -> Path:
    """Write a VideoMAE of clips of 4 frames."""
    import transformers

    torch.manual_seed(0)
    shape = {"image_size": 16, "patch_size": 8, "num_frames": 4, "intermediate_size": 20}
    transformers.VideoMAEModel(transformers.VideoMAEConfig(**_LAYERS, **shape)).save_pretrained(
        folder
    )
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(colours))
    return folder


def make_clap(folder: Path, fusion: bool = False) -> Path:
    """Write a CLAP of pieces of 1 second."""
    import transformers

    folder.mkdir(parents=True)
    words = write_tokenizer(folder, "roberta")
    text = {**_LAYERS, "vocab_size": words, "intermediate_size": 20, "projection_dim": SIZE}
    audio = {
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "projection_dim": SIZE,
        "num_hidden_layers": 2,
        "enable_fusion": fusion,
        "enable_patch_layer_norm": True,
    }
    torch.manual_seed(0)
    config = transformers.ClapConfig(
        text_config={**text, "max_position_embeddings": 34},
        audio_config=audio,
        projection_dim=SIZE,
    )
    transformers.ClapModel(config).save_pretrained(folder)
    transformers.ClapFeatureExtractor(
        max_length_s=1, truncation="fusion" if fusion else "rand_trunc"
    ).save_pretrained(folder)
    return folder


def make_whisper(folder: Path, says: str) -> Path:
    """Write a Whisper that always says the same, from 0 to 1 second: a letter at each position."""
    import transformers

    folder.mkdir(parents=True)
    write_tokenizer(folder, "gpt2")
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>"]
    special += ["<|translate|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    special += ["<|notimestamps|>"]
    times = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    tokens = transformers.WhisperTokenizer.from_pretrained(folder)
    tokens.add_special_tokens({"additional_special_tokens": special})
    tokens.add_tokens(times)
    tokens.save_pretrained(folder)
    number = {name: tokens.convert_tokens_to_ids(name) for name in (*special, *times)}
    config = transformers.WhisperConfig(
        vocab_size=len(tokens),
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=20,
        decoder_ffn_dim=20,
        max_target_positions=32,
        decoder_start_token_id=number["<|startoftranscript|>"],
        eos_token_id=number["<|endoftext|>"],
        pad_token_id=number["<|endoftext|>"],
        bos_token_id=number["<|endoftext|>"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(0)
    network = transformers.WhisperForConditionalGeneration(config)
    said = [
        *tokens(says, add_special_tokens=False)["input_ids"],
        number["<|1.00|>"],
        number["<|endoftext|>"],
    ]
    _say(network, [number["<|0.00|>"], *said])
    network.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=number["<|startoftranscript|>"],
        eos_token_id=number["<|endoftext|>"],
        pad_token_id=number["<|endoftext|>"],
        no_timestamps_token_id=number["<|notimestamps|>"],
        prev_sot_token_id=number["<|startofprev|>"],
        max_length=24,
        is_multilingual=False,
        return_timestamps=True,
        max_initial_timestamp_index=50,
        alignment_heads=[[0, 0]],
    )
    network.save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@torch.no_grad()
def _say(network: torch.nn.Module, said: list[int]) -> None:
    """Let the position alone decide: its vector outweighs all else, and is that of a token."""
    words = network.model.decoder.embed_tokens.weight
    words.normal_()
    words -= words.mean(1, keepdim=True)
    words /= words.norm(dim=1, keepdim=True)
    network.model.decoder.embed_positions.weight[: len(said)] = 1000 * words[said]
    network.model.decoder.layer_norm.weight.mul_(10)
