"""Text features from word tables and MIL-NCE, and how the command writes, resumes and refuses."""

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_loader.formats.read import read_text_feature_file
from misc.prepare_text_embeddings import INTERRUPTED, main
from misc.text_embeddings import encoding
from misc.text_embeddings.encoding import chunk_bounds
from misc.text_embeddings.known_encoders import KNOWN
from tests.conftest import ROOT, SHARED
from tests.own_data import WORDS, OwnData, write_word_vectors
from utils.command_line import run_main

CAPTIONS = {
    "v1": ["A dog runs!", "zzz qqq", ["the", "red", "bridge"]],
    "v2": ["", "at night the DOG don't run slowly zzz"],
}
VECTORS = np.random.default_rng(3).standard_normal((len(WORDS), 5)).astype(np.float32)


def run(*arguments: object) -> int:
    return run_main(main, [str(item) for item in arguments], INTERRUPTED)


def record(output: Path) -> dict[str, Any]:
    return json.loads(output.with_name(f"{output.name}.json").read_text())


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(CAPTIONS))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "words.bin"
    write_word_vectors(path, WORDS, VECTORS)
    return path


def rows(text: str) -> np.ndarray:
    return VECTORS[[WORDS.index(word) for word in text.split()]]


EXPECTED = {
    "v1": [rows("a dog runs"), VECTORS.mean(axis=0)[None], rows("the red bridge")],
    "v2": [VECTORS.mean(axis=0)[None], rows("at night the dog slowly")],
}


def check(output: Path, expected: dict[str, list[np.ndarray]], rtol: float = 1e-6) -> None:
    found = read_text_feature_file(output)
    assert list(found) == list(expected)
    for key, wanted in expected.items():
        assert len(found[key]) == len(wanted)
        for values, right in zip(found[key], wanted, strict=True):
            assert values.shape == right.shape
            np.testing.assert_allclose(values, right, rtol=rtol, atol=1e-6)


def test_word_vectors(captions: Path, table: Path, caplog: pytest.LogCaptureFixture) -> None:
    output = captions.with_name("text.npz")
    with caplog.at_level("INFO"):
        assert run("--encoder", table, "--captions", captions, "--output", output) == 0
    check(output, EXPECTED)
    assert "5 of 16 caption words" in caplog.text
    assert "zzz (2)" in caplog.text
    assert "2 captions have no known word" in caplog.text
    note = record(output)
    assert note["captions"]["videos"] == 2 and note["captions"]["captions"] == 5
    assert note["encoder"]["unknown_words"] == 5
    assert note["encoder"]["captions_without_known_words"] == 2
    assert (note["size"], note["dtype"], note["encoder"]["pooling"]) == (5, "float32", "tokens")
    assert len(note["encoder"]["sha256"]) == 64
    assert not output.with_name("text.npz.parts").exists()


def test_poolings_and_lengths_of_word_vectors(captions: Path, table: Path) -> None:
    output = captions.with_name("text.npz")
    base = ("--encoder", table, "--captions", captions)
    assert run(*base, "--output", output, "--pooling", "mean", "--max_length", 2) == 0
    means = {k: [c[:2].mean(axis=0)[None] for c in group] for k, group in EXPECTED.items()}
    check(output, means)
    assert record(output)["encoder"]["captions_cut"] == 3
    half = captions.with_name("half.npz")
    assert run(*base, "--output", half, "--dtype", "float16") == 0
    check(half, EXPECTED, rtol=1e-3)
    assert read_text_feature_file(half)["v1"][0].dtype == np.float16


def test_published_captions_and_a_grovle_zip(tmp_path: Path) -> None:
    published = {
        k: [c.split() if isinstance(c, str) else c for c in g] for k, g in CAPTIONS.items()
    }
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps(published, protocol=2))
    lines = [f"{w} {' '.join(map(repr, v.tolist()))}" for w, v in zip(WORDS, VECTORS, strict=True)]
    with zipfile.ZipFile(tmp_path / "mt_grovle.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mt_grovle/", "")
        archive.writestr("mt_grovle/mt_grovle.txt", "\n".join(lines))
    output = tmp_path / "text.npz"
    source = ("--captions", tmp_path / "raw-captions.pkl", "--output", output)
    assert run("--encoder", tmp_path / "mt_grovle.zip", *source) == 0
    check(output, EXPECTED)


def test_names_and_sizes_are_those_of_the_published_features() -> None:
    path = SHARED / "reference" / "text_embedding_models.json"
    if not path.is_file():
        pytest.skip("the table of published encoders is not here")
    published = json.loads(path.read_text())
    assert {name: entry["dim"] for name, entry in published.items()} == {
        name: known.size for name, known in KNOWN.items()
    }
    for name, entry in published.items():
        if "weights_path" in entry:
            assert entry["weights_path"] == f"data/text_models/{KNOWN[name].file}"


# ------------------------------------------------------------------------------- MIL-NCE


def write_mil_nce(folder: Path, words: list[str], size: int = 512) -> dict[str, torch.Tensor]:
    """Write weights and dictionary as published, video branch included."""
    rng = torch.Generator().manual_seed(1)
    shapes = {
        "word_embd.weight": (len(words) + 1, 6),
        "fc1.weight": (9, 6),
        "fc1.bias": (9,),
        "fc2.weight": (size, 9),
        "fc2.bias": (size,),
    }
    weights = {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    named = {f"text_module.{name}": value for name, value in weights.items()}
    torch.save({**named, "conv1.conv1.weight": torch.zeros(2, 3)}, folder / "s3d_howto100m.pth")
    np.save(folder / "s3d_dict.npy", np.array(words))
    return weights


def mil_nce(weights: dict[str, torch.Tensor], words: list[str], text: str) -> np.ndarray:
    """Encode a caption the slow way, with the 16 places of the published network."""
    table = weights["word_embd.weight"]
    known = [table[words.index(w) + 1] for w in text.lower().split() if w in words]
    known = (known or [table[1:].mean(dim=0)])[:16]
    places = torch.stack(known + [table[0]] * (16 - len(known)))
    hidden = torch.relu(places @ weights["fc1.weight"].T + weights["fc1.bias"])
    best = hidden.max(dim=0).values
    return (best @ weights["fc2.weight"].T + weights["fc2.bias"]).numpy()[None]


TEXTS = ["a dog runs", "zzz", "", "the red Dog " * 8]


@pytest.mark.parametrize("as_objects", [False, True])
def test_mil_nce(tmp_path: Path, as_objects: bool, caplog: pytest.LogCaptureFixture) -> None:
    weights = write_mil_nce(tmp_path, WORDS)
    if as_objects:
        np.save(tmp_path / "s3d_dict.npy", np.array(WORDS, dtype=object), allow_pickle=True)
    (tmp_path / "captions.json").write_text(json.dumps({"v": TEXTS}))
    output = tmp_path / "text.npz"
    base = ("--encoder", "howto100m_mil_nce", "--weights", tmp_path / "s3d_howto100m.pth")
    base = (*base, "--captions", tmp_path / "captions.json")
    with caplog.at_level("INFO"):
        assert run(*base, "--output", output) == 0
    check(output, {"v": [mil_nce(weights, WORDS, text) for text in TEXTS]}, rtol=1e-5)
    assert "1 of 28 caption words" in caplog.text
    note = record(output)["encoder"]
    assert (note["pooling"], note["max_length"], note["captions_cut"]) == ("max", 16, 1)
    words = tmp_path / "words.npz"
    assert run(*base, "--output", words, "--pooling", "tokens") == 0
    found = read_text_feature_file(words)["v"]
    assert [len(values) for values in found] == [3, 1, 1, 16]
    hidden = torch.relu(
        weights["word_embd.weight"][2] @ weights["fc1.weight"].T + weights["fc1.bias"]
    )
    dog = hidden @ weights["fc2.weight"].T + weights["fc2.bias"]
    np.testing.assert_allclose(found[0][1], dog.numpy(), rtol=1e-5, atol=1e-5)


class _Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "s3d_dict.npy").unlink(), "s3d_dict.npy"),
        (lambda f: (f / "s3d_dict.npy").write_bytes(b"abc"), "no array of numpy"),
        (lambda f: np.save(f / "s3d_dict.npy", np.arange(3)), "array of words"),
        (lambda f: np.save(f / "s3d_dict.npy", np.array(WORDS[1:])), "each word"),
        (
            lambda f: np.save(f / "s3d_dict.npy", np.array([_Evil()]), allow_pickle=True),
            "Cannot read s3d_dict.npy",
        ),
        (lambda f: torch.save([_Evil()], f / "s3d_howto100m.pth"), "Cannot read s3d_howto100m.pth"),
        (lambda f: (f / "s3d_howto100m.pth").write_bytes(b"abc"), "Cannot read s3d_howto100m.pth"),
        (lambda f: (f / "s3d_howto100m.pth").unlink(), "expected at"),
        (lambda f: torch.save({"a": 1}, f / "s3d_howto100m.pth"), "text_module.word_embd.weight"),
        (lambda f: torch.save([1], f / "s3d_howto100m.pth"), "no named weights"),
        (lambda f: write_mil_nce(f, WORDS, size=7), "512"),
    ],
)
def test_wrong_mil_nce_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    break_it: Any,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_mil_nce(tmp_path, WORDS)
    Path("captions.json").write_text(json.dumps({"v": TEXTS}))
    break_it(tmp_path)
    weights = ("--weights", "s3d_howto100m.pth")
    source = ("--captions", "captions.json", "--output", "text.npz")
    assert run("--encoder", "howto100m_mil_nce", *weights, *source) == 2
    assert message in capsys.readouterr().err
    assert not Path("text.npz").exists() and not Path("executed").exists()


# ------------------------------------------------------------------------------- resuming

KILLED = """
import os, signal, sys
from misc.prepare_text_embeddings import main
from misc.text_embeddings import encoding
from misc.text_embeddings.output import Parts
encoding.CHUNK_CAPTIONS = 2
write, assemble = Parts.write, Parts.assemble
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def write_or_die(self, number, values):
    if number == int(sys.argv[1]):
        die()
    write(self, number, values)
def assemble_and_die(self, *arguments):
    assemble(self, *arguments)
    die()
Parts.write, Parts.assemble = write_or_die, assemble_and_die
main(sys.argv[2:])
"""


@pytest.mark.parametrize("stop", [3, 99])
def test_a_killed_run_continues(
    tmp_path: Path,
    table: Path,
    stop: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Killed in the middle, or between the file and its record, it ends with the same bytes."""
    rng = np.random.default_rng(0)
    texts = {f"v{n}": [" ".join(rng.choice(WORDS, 4)) for _ in range(3)] for n in range(5)}
    (tmp_path / "captions.json").write_text(json.dumps(texts))
    monkeypatch.setattr(encoding, "CHUNK_CAPTIONS", 2)
    base = ["--encoder", str(table), "--captions", str(tmp_path / "captions.json"), "--output"]
    whole, output = tmp_path / "whole.npz", tmp_path / "text.npz"
    assert run(*base, whole) == 0
    command = [sys.executable, "-c", KILLED, str(stop), *base, str(output)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    parts = output.with_name("text.npz.parts")
    assert len(list(parts.glob("chunk-*.npy"))) == min(stop, 8)
    assert not output.with_name("text.npz.json").exists()
    # What was half written when it died, and a chunk that the disk damaged.
    (parts / ".chunk-000003.npy.1-ab.tmp").write_bytes(b"half")
    (parts / "chunk-000001.npy").write_bytes(b"\x93NUMPY damaged")
    with caplog.at_level("INFO"):
        assert run(*base, output) == 0
    assert f"Going on: {min(stop, 8) - 1} of 8 chunks" in caplog.text
    assert output.read_bytes() == whole.read_bytes()
    assert record(output) == record(whole)
    assert not parts.exists()

    # Killed again when it removed the parts.
    for plan in (record(output), None):
        parts.mkdir()
        (parts / "chunk-000001.npy").touch()
        if plan:
            (parts / "plan.json").write_text(json.dumps(plan))
        assert run(*base, output) == 0
        assert not parts.exists() and output.read_bytes() == whole.read_bytes()


def test_finished_chunks_are_not_computed_again(
    captions: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(encoding, "CHUNK_CAPTIONS", 2)
    output = captions.with_name("text.npz")
    base = ("--encoder", table, "--captions", captions, "--output", output)
    calls: list[int] = []
    encode_chunk = encoding.encode_chunk

    def stop_at_two(*arguments: Any) -> np.ndarray:
        calls.append(arguments[1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode_chunk(*arguments)

    monkeypatch.setattr(encoding, "encode_chunk", stop_at_two)
    assert run(*base) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert run(*base) == 0
    # Captions 0 and 1 once, 2 twice because it was interrupted, then 4.
    assert calls == [0, 2, 2, 4]
    check(output, EXPECTED)
    assert run(*base) == 0
    assert calls == [0, 2, 2, 4]
    assert "complete" in capsys.readouterr().out


def test_names_that_are_no_text_are_recorded_as_utf8_has_them(captions: Path, table: Path) -> None:
    """In an ASCII locale each byte of an umlaut is half a character, as are bytes of no text."""
    named = table.with_name(os.fsdecode("ü".encode() + b"\xff.bin"))
    table.rename(named)
    name = str(named).replace("ü", "\udcc3\udcbc")
    assert os.fsencode(name) == os.fsencode(named)
    output = captions.with_name("text.npz")
    assert run("--encoder", name, "--captions", captions, "--output", output) == 0
    note = json.loads(output.with_name("text.npz.json").read_text(encoding="utf-8"))
    assert note["encoder"]["file"] == "ü\ufffd.bin"
    check(output, EXPECTED)


def test_parts_of_another_plan_are_thrown_away(
    captions: Path, table: Path, capsys: pytest.CaptureFixture
) -> None:
    output = captions.with_name("text.npz")
    parts = output.with_name("text.npz.parts")
    parts.mkdir()
    (parts / "plan.json").write_text("{}")
    np.save(parts / "chunk-000000.npy", np.zeros((13, 5), dtype=np.float32))
    base = ("--encoder", table, "--captions", captions, "--output", output)
    assert run(*base) == 0
    check(output, EXPECTED)
    # A file that was made otherwise is never replaced.
    before = output.read_bytes()
    assert run(*base, "--pooling", "mean") == 2
    message = capsys.readouterr().err
    assert "differs in: encoder, vectors" in message
    output.with_name("text.npz.json").unlink()
    assert run(*base) == 2
    assert "no record" in capsys.readouterr().err
    assert output.read_bytes() == before


def test_two_at_once(captions: Path, table: Path, capsys: pytest.CaptureFixture) -> None:
    import fcntl

    output = captions.with_name("text.npz")
    parts = output.with_name("text.npz.parts")
    parts.mkdir()
    with (parts / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        base = ("--encoder", table, "--captions", captions, "--output", output)
        assert run(*base) == 2
    assert "Another process" in capsys.readouterr().err


def test_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK_BYTES", 40)
    counts = np.array([1, 2, 1, 9, 1, 1, 1, 1, 1, 1])
    bounds = chunk_bounds(counts, size=2)
    assert bounds[0] == 0 and bounds[-1] == len(counts)
    sizes = [counts[a:b].sum() for a, b in itertools.pairwise(bounds)]
    # A caption larger than a chunk is one of its own.
    assert sizes == [4, 9, 5, 1]


# ------------------------------------------------------------------------------- the rest


def test_features_train_through_the_loader(tmp_path: Path) -> None:
    """The features of a data set's own captions are what its word vectors give while loading."""
    own = OwnData(tmp_path)
    output = tmp_path / "made.npz"
    table = ("--encoder", tmp_path / "words.bin")
    assert run(*table, "--dataset", tmp_path, "--output", output) == 0
    own.description["text_features"]["made"] = {"file": "made.npz", "size": 5}
    (tmp_path / "dataset.json").write_text(json.dumps(own.description))
    made, looked_up = own.loader(text_feat="made"), own.loader(text_feat="words")
    for one, other in zip(made.train.batches(0), looked_up.train.batches(0), strict=True):
        torch.testing.assert_close(one.text, other.text)
    one, other = (next(iter(loader.retrieval.text_blocks(9))) for loader in (made, looked_up))
    torch.testing.assert_close(one.text, other.text)
    assert one.text.abs().sum() > 0


def test_as_a_file_and_as_a_module(captions: Path, table: Path) -> None:
    for number, start in enumerate(
        (["misc/prepare_text_embeddings.py"], ["-m", "misc.prepare_text_embeddings"])
    ):
        output = captions.with_name(f"text{number}.npz")
        command = [sys.executable, *start, "--encoder", str(table)]
        command += ["--captions", str(captions), "--output", str(output)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        _, _, entry = ended.stdout.strip().rpartition(f'"text{number}": ')
        told = json.loads(entry)
        assert (told["file"], told["size"]) == (f"text{number}.npz", 5)
        assert told["encoder"]["kind"] == "word vectors" and told["encoder"]["pooling"] == "tokens"
        check(output, EXPECTED)


WRONG = [
    (["--encoder", "nothing.bin"], 'There is no encoder "nothing.bin"'),
    (["--encoder", "./nowhere"], 'There is no encoder "./nowhere"'),
    (["--encoder", "captions.json"], "captions.json is no encoder"),
    (["--encoder", "."], "holds no model: it has no config.json"),
    (["--encoder", "w2v"], "expected at data/text_models/GoogleNews-vectors-negative300.bin.gz"),
    (["--encoder", "w2v", "--weights", "words.bin"], "vectors of size 300, what was given has 5"),
    (["--encoder", "openai"], '"openai" cannot be had by its name'),
    (["--encoder", "transfo-xl-wt103"], "no Transformer-XL"),
    (["--encoder", "gpt2", "--weights", "words.bin"], "is no folder"),
    (["--encoder", "words.bin", "--layer", "2"], "--layer has no meaning for word vectors"),
    (["--encoder", "words.bin", "--pooling", "cls"], '--pooling "cls" is not known'),
    (["--encoder", "words.bin", "--captions", "no.json"], "Cannot read no.json"),
    (["--encoder", "words.bin", "--captions", "bad.json"], "Cannot read bad.json"),
    (["--encoder", "words.bin", "--captions", "list.json"], "not a mapping"),
    (["--encoder", "words.bin", "--captions", "numbers.json"], "neither a text nor a list"),
    (["--encoder", "words.bin", "--captions", "empty.json"], "holds no captions"),
    (
        ["--encoder", "words.bin", "--captions", "foreign.json"],
        "take word vectors of the captions' language",
    ),
    (["--encoder", "words.bin", "--captions", "evil.pkl"], "evil.pkl"),
    (["--encoder", "words.bin", "--output", "text.pkl"], 'must end in ".npz"'),
    (
        ["--encoder", "words.bin", "--output", "captions.json/text.npz"],
        "Cannot write captions.json/text",
    ),
    (["--encoder", "cut.bin"], "truncated"),
    (["--encoder", "words.bin", "--device", "7"], "there is no GPU 7"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_input(
    captions: Path,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(captions.parent)
    contents = {"list": ["a"], "numbers": {"v": [1]}, "empty": {"v": []}, "foreign": {"v": ["x"]}}
    for name, content in contents.items():
        Path(f"{name}.json").write_text(json.dumps(content))
    Path("bad.json").write_text("{")
    Path("evil.pkl").write_bytes(pickle.dumps({"v": _Evil()}))
    Path("cut.bin").write_bytes(table.read_bytes()[:-9])
    before = sorted(Path().rglob("*"))
    defaults = {"--captions": "captions.json", "--output": "text.npz"}
    rest = [part for pair in defaults.items() if pair[0] not in arguments for part in pair]
    assert run(*arguments, *rest) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["--encoder", "w2v", "--output", "a.npz"], "one of the arguments"),
        (["--encodr", "w2v"], "required"),
        (["--max_length", "0"], "at least 1"),
        (["--dtype", "float64"], "invalid choice"),
    ],
)
def test_wrong_command_lines(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_lone_surrogates_are_replaced(tmp_path: Path, table: Path) -> None:
    (tmp_path / "captions.json").write_text('{"v": ["dog \\ud800"]}')
    output = tmp_path / "text.npz"
    source = ("--captions", tmp_path / "captions.json", "--output", output)
    assert run("--encoder", table, *source) == 0
    check(output, {"v": [rows("dog")]})


def test_a_log_without_a_bar_tells_how_long_it_takes(
    captions: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encoding, "_SECONDS_BETWEEN_LINES", -1)
    output = captions.with_name("text.npz")
    assert run("--encoder", table, "--captions", captions, "--output", output) == 0
    assert "100 % of the tokens, about 0 minutes left" in capsys.readouterr().out


@pytest.mark.parametrize(
    "texts", [["一个男人在跑"], ["a dog", "คนกำลังวิ่ง", "ภาพยนตร์", "แมวกำลังนอน"]]
)
def test_word_vectors_refuse_languages_without_spaces(
    captions: Path, table: Path, texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    captions.write_text(json.dumps({"v": texts}))
    output = captions.with_name("text.npz")
    assert run("--encoder", table, "--captions", captions, "--output", output) == 2
    assert "written without spaces" in capsys.readouterr().err and not output.exists()


def test_words_apart_are_words_in_every_language(tmp_path: Path) -> None:
    write_word_vectors(tmp_path / "w.bin", ["狗", "跑"], VECTORS[:2])
    (tmp_path / "c.json").write_text(json.dumps({"v": ["狗 跑", "一 狗"]}))
    output = tmp_path / "t.npz"
    arguments = ["--captions", tmp_path / "c.json", "--output", output]
    assert run("--encoder", tmp_path / "w.bin", *arguments) == 0
    assert record(output)["encoder"]["unknown_words"] == 1


def test_what_made_the_text_features_is_known_to_the_loader(captions: Path, table: Path) -> None:
    own = OwnData(captions.parent)
    assert own.loader().text_encoder == {}
    assert own.loader(text_feat="words").text_encoder == {
        "kind": "word vectors",
        "file": "words.bin",
    }
    output = own.folder / "text.npz"
    made = ("--captions", captions, "--output", output, "--pooling", "mean")
    assert run("--encoder", own.folder / "words.bin", *made) == 0
    own.description["text_features"]["file"] = {"file": "text.npz"}
    own.write()
    assert own.loader().text_encoder["pooling"] == "mean"
    own.description["text_features"]["file"]["encoder"] = {"kind": "mine"}
    own.write()
    assert own.loader().text_encoder == {"kind": "mine"}
