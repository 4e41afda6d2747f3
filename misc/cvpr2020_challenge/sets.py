"""The data sets of the challenge, its phases, and the baselines that belong to them."""

from collections.abc import Collection
from pathlib import Path

from data_loader.sets.description import Counts, find_description
from utils.command_line import Parser
from utils.config import Config
from utils.errors import UserError, did_you_mean

# Data set -> folder of its configs, in the order of tables.
SETS = {
    "MSRVTT": "msrvtt",
    "MSVD": "msvd",
    "DiDeMo": "didemo",
    "ActivityNet": "activity-net",
    "YouCook2": "youcook2",
}
# LSMDC has baselines, but is none of the five: no submission holds it.
BASELINE_SETS = {**SETS, "LSMDC": "lsmdc"}

VAL, TEST = "public_server_val", "public_server_test"
BASELINES = {VAL: "baseline-public-trainval.json", TEST: "baseline-public-test.json"}

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "cvpr2020-challenge"
OUTPUT = Path("data", "challenge")


def published_counts(phase: str) -> dict[str, Counts]:
    """Return how large the retrieval set of each of the five is in a phase."""
    return {name: find_description(name).split(phase).expected for name in SETS}


def predictions_file(dataset: str) -> str:
    """Name the predictions for a data set, in a folder of them or in a submission."""
    return f"{dataset}.csv"


def config_path(configs: Path, dataset: str, phase: str) -> Path:
    """Return the config of a data set's baseline for a phase."""
    return configs / BASELINE_SETS[dataset] / BASELINES[phase]


def phase_config(configs: Path, dataset: str, phase: str, custom_args: str | None) -> Config:
    """Read the config by which a data set is predicted, or measured, in a phase.

    Raises:
        UserError: the config cannot be used, is of another split, or asks for metrics.
    """
    path = config_path(configs, dataset, phase)
    config = Config.from_file(path, custom_args).eval_config()
    split = config.get("data_loader.args.split_name")
    if split != phase:
        raise UserError(
            f"The config {path} is tested on {split}: its eval_settings must name the split "
            f"{phase}."
        )
    if not config.get("challenge_mode", False):
        raise UserError(f"The config {path} does not predict: set challenge_mode to true in it.")
    return config


def read_sets(text: str | None, known: Collection[str] = SETS) -> list[str]:
    """Read the value of --datasets: names with commas between them; without one, the five.

    Args:
        text: the value.
        known: names that may stand there.

    Raises:
        UserError: a name is unknown, or stands there twice.
    """
    if text is None:
        return list(SETS)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(
                f'--datasets: there is no "{name}" here{did_you_mean(name, known)}; there are '
                f"{', '.join(known)}."
            )
    if len(set(names)) < len(names):
        raise UserError(f'--datasets "{text}" names a data set twice.')
    return names


def add_data_flags(parser: Parser, known: Collection[str] = SETS) -> None:
    """Add the flags that say of which data."""
    parser.add_argument(
        "--datasets",
        metavar="A,B,...",
        help=f"of {', '.join(known)} only these (default: the five of the challenge)",
    )
    parser.add_argument(
        "--configs",
        metavar="FOLDER",
        type=Path,
        default=CONFIGS,
        help="folder with the configs of all data sets (default: the baselines)",
    )
    parser.add_argument(
        "--custom_args", metavar="KEY@VALUE+...", help="values to replace in each config"
    )


def add_phase_flag(parser: Parser, default: str | None = None, otherwise: str = "") -> None:
    """Add the flag that names the phase; `otherwise` says where it comes from without the flag."""
    without = default or otherwise
    parser.add_argument(
        "--phase",
        choices=tuple(BASELINES),
        default=default,
        required=not without,
        help=f"of the challenge (default: {without})" if without else "of the challenge",
    )
