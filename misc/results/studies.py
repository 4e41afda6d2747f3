"""Studies: lists of configs that are trained and compared, for each data set that has them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError, did_you_mean
from utils.files import read_json

FOLDER = Path(__file__).with_name("studies")


@dataclass(frozen=True)
class Study:
    """A list of experiments that answer one question.

    Attributes:
        name: as --study gives it.
        title: the question.
        row: what its rows are ("Model", "Experts").
        configs: label of each row -> path of its config.
    """

    name: str
    title: str
    row: str
    configs: dict[str, str]


def study_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_study(name: str, dataset: str) -> Study:
    """Read the study `name` for the data set whose configs lie in `configs/<dataset>`.

    The file has a title, what its rows are, and for each data set the stems of the configs by
    label, or the name of another data set that has the same ones.

    Raises:
        UserError: there is no such study, or it has no configs for the data set.
    """
    names = study_names()
    if name not in names:
        raise UserError(
            f'There is no study "{name}"{did_you_mean(name, names)}: there are {", ".join(names)}.'
        )
    content: dict[str, Any] = read_json(FOLDER / f"{name}.json", "study")
    datasets = content["datasets"]
    if dataset not in datasets:
        raise UserError(
            f'The study "{name}" has no configs for the data set "{dataset}"'
            f"{did_you_mean(dataset, datasets)}: it has some for {', '.join(datasets)}. Give those "
            "of your own with --configs."
        )
    rows = datasets[dataset]
    stems = datasets[rows] if isinstance(rows, str) else rows
    paths = {label: str(Path("configs", dataset, f"{stem}.json")) for label, stem in stems.items()}
    return Study(name, content["title"], content["row"], paths)
