"""A query is encoded as the captions of the training were, by whatever made their features."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainer
from misc.build_index.__main__ import main as build_main
from misc.prepare_text_embeddings import main as prepare_main
from misc.search.index.manifest import FILE_NAME
from misc.search.searcher import Searcher
from tests.search_index import make_checkpoint
from tests.test_text_embeddings import write_mil_nce
from tests.tiny_set import WORDS
from trainer.build import build_loader
from trainer.evaluation.evaluate import compare
from utils.config import Config
from utils.errors import UserError


def hugging_face(folder: Path, *flags: str) -> list[str]:
    pytest.importorskip("transformers")
    from tests.tiny_encoders import make_encoder

    return ["--encoder", str(make_encoder(folder / "encoder", "bert")), *flags]


def mil_nce(folder: Path) -> list[str]:
    write_mil_nce(folder, WORDS)
    weights = str(folder / "s3d_howto100m.pth")
    return ["--encoder", "howto100m_mil_nce", "--weights", weights]


def word_means(folder: Path) -> list[str]:
    return ["--encoder", str(folder / "tiny" / "words.bin"), "--pooling", "mean"]


# What the encoder's flags are, and whether its features are one vector for a caption.
ENCODERS: dict[str, tuple[Callable[[Path], list[str]], bool]] = {
    "tokens": (hugging_face, False),
    "mean": (lambda folder: hugging_face(folder, "--pooling", "mean"), True),
    "cls": (lambda folder: hugging_face(folder, "--pooling", "cls", "--layer", "1"), True),
    "mil_nce": (mil_nce, True),
    "word means": (word_means, True),
}


def checkpoint_with(folder: Path, kind: str) -> tuple[Path, list[str]]:
    """A checkpoint over the tiny set whose text features were made by an encoder."""
    make, is_vector = ENCODERS[kind]
    make_checkpoint(folder)
    flags, data = make(folder), folder / "tiny"
    prepare_main(
        [*flags, "--captions", str(data / "captions.json"), "--output", str(data / "t.npz")]
    )
    size = json.loads((data / "t.npz.json").read_text())["size"]
    told = json.loads((data / "dataset.json").read_text())
    told["text_features"] = {"made": {"file": "t.npz", "size": size}}
    (data / "dataset.json").write_text(json.dumps(told))

    def change(values: dict[str, Any]) -> None:
        values["experts"]["text_feat"] = "made"
        values["experts"]["text_agg"] = "avg" if is_vector else "vlad"
        values["arch"]["args"]["vlad_clusters"]["text"] = 0 if is_vector else 2
        values["data_loader"]["args"]["max_tokens"]["text"] = 1 if is_vector else 5

    return make_checkpoint(folder, change=change, make_data=False), flags


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_caption_is_compared_as_in_the_evaluation(tmp_path: Path, kind: str) -> None:
    path, flags = checkpoint_with(tmp_path, kind)
    index = tmp_path / "index"
    more = flags[2:4] if kind == "mil_nce" else []  # nobody records where those weights lie
    build_main([str(path), "--output", str(index), *(flags[:2] if more else []), *more])
    if (tmp_path / "encoder").exists():
        (tmp_path / "encoder").rename(tmp_path / "gone")  # the index has its own
    searcher = Searcher.open(index)
    net, _ = trainer.load_model(path)
    config = Config.from_file(path.with_name("config.json"))
    retrieval = build_loader(config.eval_config(), 0).retrieval
    expected = compare(net, retrieval, torch.device("cpu")).sims.numpy()
    columns = [searcher.video_ids.index(key) for key in retrieval.video_ids]
    captions = [texts[0] for texts in retrieval.captions]
    np.testing.assert_allclose(searcher.similarities(captions)[:, columns], expected, atol=1e-5)
    # One by one as well: no caption depends on the others.
    alone = np.concatenate([searcher.similarities(caption) for caption in captions])
    np.testing.assert_allclose(alone[:, columns], expected, atol=1e-5)


def test_an_encoder_that_is_not_the_recorded_one_is_refused(tmp_path: Path) -> None:
    path, _ = checkpoint_with(tmp_path, "word means")
    words = tmp_path / "tiny" / "words.bin"
    words.write_bytes(words.read_bytes()[:-9] + b"\0\0\0\0\0\0\0\0\n")
    with pytest.raises(UserError, match=r"another encoder .*sha256 differs.*--encoder"):
        build_main([str(path), "--output", str(tmp_path / "index")])
    assert not (tmp_path / "index").exists()


def test_without_a_recorded_encoder_only_videos_are_searched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, flags = checkpoint_with(tmp_path, "word means")
    (tmp_path / "tiny" / "t.npz.json").unlink()
    index = tmp_path / "index"
    build_main([str(path), "--output", str(index)])
    assert "Nobody has said what made the text features" in caplog.text
    searcher = Searcher.open(index)
    assert not searcher.info.takes_text and searcher.more_like("clip33")
    with pytest.raises(UserError, match=r"does not know what made the text features.*--encoder"):
        searcher.search("red cat")
    # Word by word is not what the features are: that is noticed.
    build_main([str(path), "--output", str(index), *flags[:2]])
    assert Searcher.open(index).info.takes_text


def test_another_encoder_of_the_same_size_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_checkpoint(tmp_path)
    other = tmp_path / "other.txt"
    rng = np.random.default_rng(3)
    rows = [f"{word} " + " ".join(map(str, rng.standard_normal(12))) for word in WORDS]
    other.write_text("\n".join([f"{len(WORDS)} 12", *rows]) + "\n")
    build_main([str(path), "--output", str(tmp_path / "index"), "--encoder", str(other)])
    assert "does not give the text features that the model was trained on" in caplog.text


def test_an_index_without_text(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path)
    build_main([str(path), "--output", str(tmp_path / "index"), "--no_text", "--no_correction"])
    told = json.loads((tmp_path / "index" / FILE_NAME).read_text())
    assert told["text"] is None and told["hubness"] is None and told["correction"] == "none"
