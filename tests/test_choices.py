"""What a config may name stands in one table each: a row there is all that a new one needs."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import test as test_program
import train as train_program
from misc.prepare_text_embeddings import main as encode
from misc.text_embeddings.known_encoders import KNOWN
from model.collaborative_gating import GATINGS
from model.loss import LOSSES
from model.metric import METRICS
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from utils.command_line import run_main

TOY_GATING = """
import torch
from model.collaborative_gating import GATINGS, CollaborativeGating

class LoudestGating(CollaborativeGating):
    def build_first_layers(self):
        self.loud = torch.nn.Linear(self.shared_size, self.shared_size)

    def reason_about(self, i, x_BD, partners, availability_BM):
        return self.loud(torch.stack(partners).amax(dim=0))

GATINGS["loudest"] = LoudestGating
"""

TOY_LOSS = """
import torch
from model.loss import LOSSES

class SoftmaxLoss(torch.nn.Module):
    def __init__(self, temperature: float = 0.1):
        super().__init__()
        self.temperature = temperature

    def forward(self, sims):
        true = torch.arange(len(sims), device=sims.device)
        return torch.nn.functional.cross_entropy(sims / self.temperature, true)

LOSSES["SoftmaxLoss"] = SoftmaxLoss
"""

TOY_METRIC = """
from model.metric import METRICS

METRICS["t2v_worst"] = lambda ranks: {"rank": ranks.t2v.max().item()}
"""

TOY_ENCODER = """
import torch
from misc.text_embeddings.known_encoders import KNOWN, KnownEncoder
from misc.text_embeddings.tokens import Job, Tokens
from model.text_encoders import WordTable

def letters(settings, captions):
    tokens = Tokens()
    for text in captions.texts:
        tokens.add([ord(letter) % 32 for letter in text])
    return Job(tokens, WordTable(torch.eye(32)), 32, "mean", False, {"kind": "letters"})

KNOWN["letters"] = KnownEncoder(32, make=letters)
"""


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    """Give the tables back as they were."""
    before = [(table, dict(table)) for table in (GATINGS, LOSSES, METRICS, KNOWN)]
    yield
    for table, rows in before:
        table.clear()
        table.update(rows)


def load(folder: Path, name: str, text: str) -> None:
    """Write a file of a few lines beside the program, and import it."""
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def refusal(folder: Path, config: dict, capsys: pytest.CaptureFixture) -> str:
    """What a training says of a config that it refuses before it looks at data."""
    config["data_loader"]["args"]["dataset_name"] = str(folder / "nowhere")
    path = write_json(folder / "config.json", config)
    assert run_main(train_program.main, ["--config", str(path)]) == 2
    assert not (folder / "saved").exists()
    return capsys.readouterr().err


def test_new_choices_need_one_file_of_a_few_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = make_tiny_set(tmp_path / "data")
    for name, text in (
        ("toy_gating", TOY_GATING),
        ("toy_loss", TOY_LOSS),
        ("toy_metric", TOY_METRIC),
        ("toy_encoder", TOY_ENCODER),
    ):
        load(tmp_path, name, text)
    encode(["--encoder", "letters", "--dataset", str(data), "--output", str(data / "letters.npz")])
    description = json.loads((data / "dataset.json").read_text())
    description["text_features"]["letters"] = {"file": "letters.npz", "size": 32}
    write_json(data / "dataset.json", description)

    config = tiny_config(data, tmp_path / "saved")
    config["arch"]["args"] = {"use_ce": "loudest", "vlad_clusters": {"sound": 2}}
    config["loss"] = {"type": "SoftmaxLoss", "args": {"temperature": 0.5}}
    config["metrics"].append("t2v_worst")
    config["experts"] |= {"text_feat": "letters", "text_agg": "avg"}
    config["trainer"] |= {"epochs": 1, "monitor": "min val_t2v_worst_rank"}
    path = write_json(tmp_path / "config.json", config)
    assert run_main(train_program.main, ["--config", str(path)]) == 0
    [metrics] = (tmp_path / "saved").rglob("metrics.json")
    worst = json.loads(metrics.read_text())["test"]["t2v_worst"]["rank"]
    assert 1 <= worst <= 12

    capsys.readouterr()
    run = str(next((tmp_path / "saved").rglob("trained_model.pth")))
    assert run_main(test_program.main, ["--resume", run]) == 0

    # Help and messages know the new ones as well.
    with pytest.raises(SystemExit):
        encode(["--help"])
    assert "letters" in capsys.readouterr().out
    config["loss"] = {"type": "SoftMaxLos"}
    assert '"SoftmaxLoss"' in refusal(tmp_path / "data", config, capsys)
    config["loss"] = {"type": "SoftmaxLoss", "args": {"temprature": 1}}
    assert '"temperature"' in refusal(tmp_path / "data", config, capsys)


WRONG = [
    ("arch.type", "CENETT", "CENet"),
    ("arch.args.use_ce", "pair-wise", "pairwise"),
    ("data_loader.type", "ExpertLoader", "ExpertDataLoader"),
    ("precision", "bf61", "bf16"),
    ("loss.type", "MaxMarginRankingLos", "MaxMarginRankingLoss"),
    ("optimizer.type", "Rangr", "Ranger"),
    ("lr_scheduler.type", "StepRL", "StepLR"),
    ("visualizer.type", "Visualiser", "Visualizer"),
    ("metrics", ["t2v_metric"], "t2v_metrics"),
    ("distil_params", {"aggregate": "meen", "teachers": ["a"]}, "mean"),
]


@pytest.mark.parametrize("above", ["", "eval_settings."])
@pytest.mark.parametrize(("key", "wrong", "nearest"), WRONG, ids=[key for key, _, _ in WRONG])
def test_a_name_in_no_table_is_refused_at_once_with_the_nearest(
    key: str,
    wrong: object,
    nearest: str,
    above: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    config = tiny_config(tmp_path, tmp_path / "saved")
    place = config
    *parts, last = (above + key).split(".")
    for part in parts:
        place = place.setdefault(part, {})
    place[last] = wrong
    said = refusal(tmp_path, config, capsys)
    assert f'"{above}{key}' in said and f'did you mean "{nearest}"' in said


def test_a_wrong_name_is_found_before_the_demo_set_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path(train_program.__file__).parent
    arguments = ["--config", str(root / "configs/demo/train-full-ce.json")]
    arguments += ["--custom_args", "arch.args.use_ce@pairwize"]
    assert run_main(train_program.main, arguments) == 2
    assert 'did you mean "pairwise"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("metric", ["retrieval_as_classification", "mean_average_precision"])
def test_metrics_that_need_labels_are_refused_with_the_reason(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tiny_config(tmp_path, tmp_path / "saved") | {"metrics": [metric]}
    said = refusal(tmp_path, config, capsys)
    assert metric in said and "labels" in said
