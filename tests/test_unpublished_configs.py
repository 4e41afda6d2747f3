"""Configs of the demo and templates for a data set of one's own: each builds and takes a step."""

from pathlib import Path

import pytest
import torch

from data_loader.sets.declared import ModelInputs
from misc.demo_set.assemble import describe
from misc.demo_set.settings import Settings
from tests.conftest import ROOT
from tests.tiny_set import write_json
from trainer.build import build_loss, build_net, build_optimiser_of, inputs_of
from utils.config import Config

PATHS = [
    path
    for folder in ("demo", "own")
    for path in sorted((ROOT / "configs" / folder).glob("*.json"))
]
VIDEOS = 3


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders that hold the description of a data set, and nothing else."""
    own = describe(Settings()) | {"name": "own"}
    own["text_features"] = {"words": {"word_vectors": "words.bin", "size": 20}}
    own["splits"] = dict.fromkeys(("val", "test"), own["splits"]["full-val"])
    folders = {}
    for name, description in {"demo": describe(Settings()), "own": own}.items():
        folders[name] = tmp_path_factory.mktemp(name)
        write_json(folders[name] / "dataset.json", description)
    return folders


def random_batch(data: ModelInputs) -> dict:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    experts = {
        e.name: normal(VIDEOS, *([e.max_tokens] if e.variable_length else []), e.size)
        for e in data.experts
    }
    return {
        "experts": experts,
        "ind": {name: torch.tensor([1.0, 0.0, 1.0]) for name in experts},
        "text": normal(VIDEOS, 1, data.max_text_tokens, data.text_size),
        "text_token_mask": torch.full((VIDEOS, 1), 2.0),
    }


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_builds_and_takes_a_step(path: Path, described: dict[str, Path]) -> None:
    folder = str(described[path.parent.name])
    config = Config.from_file(path).merged({"data_loader": {"args": {"dataset_name": folder}}})
    data = inputs_of(config)
    net = build_net(config, data)
    optimiser = build_optimiser_of(config, net)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    output = net(**random_batch(data))
    loss = build_loss(config)(output["cross_view_conf_matrix"])
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss) and output["cross_view_conf_matrix"].shape == (VIDEOS, VIDEOS)
    after = dict(net.named_parameters())
    assert all(torch.isfinite(p).all() for p in after.values())
    assert any(not torch.equal(before[name], p) for name, p in after.items())
