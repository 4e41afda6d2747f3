"""MNNet: inner products of given embeddings, in the model and through the real entry points."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import test as test_program
import train as train_program
from model import MNNet
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from trainer.build import build_loader
from utils.command_line import run_main
from utils.config import Config
from utils.errors import UserError

EXPERT = "s3dg.s3dg.0"
SIZE = 5


def make_net(**kwargs) -> MNNet:
    return MNNet(**({"expert_dims": {EXPERT: (SIZE, 768)}, "text_dim": SIZE} | kwargs))


def make_batch(videos: int = 4, captions: int = 1) -> dict:
    generator = torch.Generator().manual_seed(videos + captions)
    video = torch.randn(videos, SIZE, generator=generator)
    present = torch.ones(videos)
    present[1] = 0
    video[1] = torch.nan
    text = torch.randn(videos, captions, 1, SIZE, generator=generator)
    return {"experts": {EXPERT: video}, "ind": {EXPERT: present}, "text": text}


@pytest.mark.parametrize("captions", [1, 3])
@pytest.mark.parametrize("mode", ["indep", "avg"])
def test_similarity_is_the_inner_product(captions: int, mode: str) -> None:
    net = make_net(test_caption_mode=mode).eval()
    batch = make_batch(captions=captions)
    output = net(**batch)
    expected = torch.zeros(4, captions, 4)
    for i in range(4):
        for c in range(captions):
            for j in (0, 2, 3):  # nothing is known of video 1
                expected[i, c, j] = batch["text"][i, c, 0] @ batch["experts"][EXPERT][j]
    expected = expected.mean(dim=1) if mode == "avg" else expected.flatten(0, 1)
    torch.testing.assert_close(output["cross_view_conf_matrix"], expected)
    assert output["modalities"] == [EXPERT]
    assert torch.equal(output["text_embds"][EXPERT], batch["text"].squeeze(2))
    assert torch.equal(output["vid_embds"][EXPERT], batch["experts"][EXPERT].nan_to_num(0.0))


def test_the_one_parameter_has_no_influence() -> None:
    net = make_net()
    assert sum(p.numel() for p in net.parameters()) == len(net.state_dict()) == 1
    batch = make_batch()
    before = net.eval()(**batch)["cross_view_conf_matrix"]
    output = net.train()(**batch)["cross_view_conf_matrix"]
    output.square().mean().backward()
    assert net.dummy_param.grad.item() == 0
    assert torch.equal(output, before)
    with torch.no_grad():
        net.dummy_param.fill_(torch.nan)  # published code leaves it as memory happened to be
    assert torch.equal(net.eval()(**batch)["cross_view_conf_matrix"], before)


def test_video_embeddings_alone() -> None:
    batch = make_batch()
    output = make_net(task="compute_video_embeddings")(batch["experts"], batch["ind"])
    assert torch.equal(output["embeddings"][EXPERT], batch["experts"][EXPERT].nan_to_num(0.0))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"expert_dims": {"a": (5, 5), "b": (5, 5)}}, "not 2"),
        ({"text_dim": 4}, r"size 5.*4"),
        ({"task": "classification"}, 'task "classification"'),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_net(**change)


def test_captions_of_words_are_refused() -> None:
    with pytest.raises(ValueError, match="text_agg"):
        make_net().encode_text(torch.zeros(2, 1, 3, SIZE))


def mnnet_config(folder: Path) -> dict:
    """A config whose arguments for CENet are inherited and do nothing, as published ones have."""
    config = tiny_config(make_tiny_set(folder / "tiny"), folder / "saved")
    config["arch"]["type"] = "MNNet"
    config["experts"] |= {"modalities": ["look"], "text_agg": "avg"}
    config["optimizer"]["args"]["lr"] = 1e-8
    config["trainer"] |= {"epochs": 1, "save_only_best": True}
    return config


def test_it_trains_one_epoch_and_is_tested(tmp_path: Path) -> None:
    path = write_json(tmp_path / "train-full-mnnet.json", mnnet_config(tmp_path))
    assert run_main(train_program.main, ["--config", str(path)]) == 0
    [metrics_path] = (tmp_path / "saved" / "log").rglob("metrics.json")
    metrics = json.loads(metrics_path.read_text())
    assert metrics["parameters"] == 1
    retrieval = build_loader(Config.from_file(path).eval_config(), seed=0).retrieval
    [texts], [videos] = retrieval.text_blocks(99), retrieval.video_blocks(99)
    [matrix] = (tmp_path / "saved" / "models").rglob("test-similarities-*.npy")
    expected = texts.text.flatten(0, 2) @ videos.experts["look"].T
    np.testing.assert_allclose(np.load(matrix), expected, atol=1e-5)
    [checkpoint] = (tmp_path / "saved" / "models").rglob("trained_model.pth")
    arguments = ["--config", str(path), "--resume", str(checkpoint), "--eval_from_training_config"]
    assert run_main(test_program.main, arguments) == 0
    assert json.loads(metrics_path.read_text())["test"] == metrics["test"]


def test_captions_of_words_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = mnnet_config(tmp_path)
    config["experts"]["text_agg"] = "vlad"
    path = write_json(tmp_path / "train-full-mnnet.json", config)
    assert run_main(train_program.main, ["--config", str(path)]) == 2
    output = "".join(capsys.readouterr())
    assert "text_agg" in output and "Traceback" not in output


def test_several_experts_are_one_sentence(tmp_path: Path) -> None:
    config = mnnet_config(tmp_path)
    config["experts"]["modalities"] = ["look", "sound"]
    path = write_json(tmp_path / "a.json", config)
    with pytest.raises(UserError, match="not 2"):
        train_program.main(["--config", str(path)])
