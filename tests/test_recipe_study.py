"""The study of recipes: its configs are made for a data set, and the validation split decides."""

from pathlib import Path

import pytest

import misc.results.recipe as recipe
import misc.results_table as table_program
import misc.run_study as study_program
from misc.results.recipe import PUBLISHED, RECIPES, recipe_study
from tests.test_run_study import Study, study, trained  # noqa: F401  (fixtures)
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from trainer.build import check_training
from utils.command_line import run_main
from utils.config import Config
from utils.errors import UserError


@pytest.fixture
def own_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of one's own, seen from a working directory."""
    monkeypatch.chdir(tmp_path)
    return make_tiny_set(tmp_path / "clips")


@pytest.mark.parametrize("dataset", ["demo", "clips", "clips with config"])
def test_every_recipe_is_a_training_and_differs_from_the_published_one(
    dataset: str, own_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the working folder: a config that is not there is the project's."""
    if dataset == "clips with config":
        write_json(own_set / "config.json", tiny_config(own_set, Path("saved")))
        dataset = "clips"
    paths = recipe_study(dataset).configs
    configs = {label: Config.from_file(path) for label, path in paths.items()}
    assert len({config.name for config in configs.values()}) == len(RECIPES)
    for label, config in configs.items():
        check_training(config)
        assert label == "published" or config.values != configs["published"].values
    published = configs["published"]
    for part in ("loss", "lr_scheduler"):
        assert published[part] == PUBLISHED[part]
    assert not published["trainer.ema"] and not published["trainer.dropout.features"]
    together = configs["together"]
    assert together["lr_scheduler.type"] == "WarmupCosineLR" and together["trainer.ema"]
    assert "margin" not in together["loss"].get("args", {})


def test_the_validation_split_decides(
    study: Study,  # noqa: F811
    trained: list[list[str]],  # noqa: F811
    own_set: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_json(own_set / "config.json", tiny_config(own_set, Path("saved")))
    some = {label: RECIPES[label] for label in ("published", "together")}
    monkeypatch.setattr(recipe, "RECIPES", some)
    arguments = ["--study", "recipe", "--dataset", "clips", "--seeds", "0"]
    code, output = study(*arguments, "--custom_args", "trainer.epochs@2")
    assert code == 0, output
    assert len(trained) == 2
    shown = output.partition("On the validation split (val_t2v_metrics_geometric_mean")[2]
    numbers = [float(line.split()[0]) for line in shown.splitlines()[1:3]]
    assert numbers == sorted(numbers, reverse=True)
    best = shown.splitlines()[1].split()[1]
    assert f"Best there: {best}" in shown
    # The table can be had again, without training.
    capsys.readouterr()
    of_table = ["--study", "recipe", "--dataset", "clips", "--custom_args", "trainer.epochs@2"]
    assert run_main(table_program.main, of_table) == 0
    table = capsys.readouterr().out.strip()
    assert table.count("hubs corrected") == 2 and table in output


def test_a_data_set_that_is_not_there_is_refused(own_set: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*dataset\.json"):
        recipe_study("nowhere")
    assert study_program.study_parser().parse_args(["--study", "recipe"]).study == "recipe"
