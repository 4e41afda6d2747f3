"""Write the ground truth of a phase: the video that each query belongs to, for each data set.

python3 -m misc.cvpr2020_challenge.ground_truth --phase public_server_val --output truth.json

The file has a form that other sources of ground truth can be brought into:
`{"phase": "public_server_val", "sets": {"MSVD": {"videos": 100, "video_of_query": [0, 0, 1]}}}`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.sets.description import Counts, find_description
from logger.log_file import open_log
from misc.cvpr2020_challenge.sets import (
    BASELINES,
    CONFIGS,
    SETS,
    add_data_flags,
    add_phase_flag,
    phase_config,
    read_sets,
)
from misc.tools import tool_parser
from utils.command_line import run_main
from utils.errors import UserError
from utils.files import make_folder, read_json, write_json


@dataclass(frozen=True)
class SetTruth:
    """The right answers for one data set.

    Attributes:
        videos: that are searched.
        video_of_query: (queries,) int64, place of each query's own video.
    """

    videos: int
    video_of_query: np.ndarray

    @property
    def counts(self) -> Counts:
        return Counts(self.videos, len(self.video_of_query))


@dataclass(frozen=True)
class GroundTruth:
    """The right answers for a phase, by data set."""

    phase: str
    sets: Mapping[str, SetTruth]

    @property
    def counts(self) -> dict[str, Counts]:
        return {name: truth.counts for name, truth in self.sets.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("cvpr2020_challenge.ground_truth")
    add_phase_flag(parser)
    parser.add_argument(
        "--output", metavar="PATH", type=Path, required=True, help="the JSON file to write"
    )
    add_data_flags(parser)
    args = parser.parse_args(arguments)
    with open_log(None):
        truth = truth_of_data(args.phase, read_sets(args.datasets), args.configs, args.custom_args)
    write_truth(args.output, truth)
    for name, counts in truth.counts.items():
        print(f"{name}: {counts}")
    print(f"The ground truth is {args.output}.")


def truth_of_data(
    phase: str,
    datasets: Sequence[str] = tuple(SETS),
    configs: Path = CONFIGS,
    custom_args: str | None = None,
) -> GroundTruth:
    """Make the ground truth from the lists and captions on the disk, as predictions number them.

    Raises:
        UserError: a config or a file of a data set cannot be used.
    """
    chosen = {name: phase_config(configs, name, phase, custom_args) for name in datasets}
    # Only now what takes its time to load: a slip on the command line is answered at once.
    from trainer.build import build_loader
    from trainer.evaluation.evaluate import counts_of, warn_of_other_counts

    sets = {}
    for name, config in chosen.items():
        retrieval = build_loader(config, seed=0).retrieval
        expected = find_description(name).split(phase).expected
        warn_of_other_counts(counts_of(retrieval), expected, f"{name} {phase}")
        own, _ = np.nonzero(retrieval.query_masks)
        sets[name] = SetTruth(len(retrieval), own)
    return GroundTruth(phase, sets)


def write_truth(path: Path, truth: GroundTruth) -> None:
    """Write ground truth as JSON."""
    make_folder(path.parent)
    sets = {
        name: {"videos": entry.videos, "video_of_query": entry.video_of_query.tolist()}
        for name, entry in truth.sets.items()
    }
    write_json(path, {"phase": truth.phase, "sets": sets})


def read_truth(path: Path) -> GroundTruth:
    """Read ground truth.

    Raises:
        UserError: the file cannot be read, or does not have the form that `write_truth` gives it.
    """
    content = read_json(path, "ground truth")
    sets = content.get("sets") if isinstance(content, dict) else None
    if not isinstance(sets, dict) or not sets or content.get("phase") not in BASELINES:
        raise UserError(
            f'The ground truth {path} must hold "phase" (one of {", ".join(BASELINES)}) and '
            '"sets", with an entry for each data set.'
        )
    for name in sets:
        if name not in SETS:
            raise UserError(
                f'The ground truth {path} has a set "{name}"; the challenge has {", ".join(SETS)}.'
            )
    in_order = [name for name in SETS if name in sets]
    return GroundTruth(
        content["phase"], {name: _set_truth(sets[name], f"{name} in {path}") for name in in_order}
    )


def _set_truth(entry: Any, where: str) -> SetTruth:
    videos = entry.get("videos") if isinstance(entry, dict) else None
    own = entry.get("video_of_query") if isinstance(entry, dict) else None
    if type(videos) is not int or not isinstance(own, list) or not own:
        raise UserError(
            f'The ground truth of {where} must hold "videos", a number, and "video_of_query", a '
            "list of places."
        )
    for at, place in enumerate(own):
        if type(place) is not int or not 0 <= place < videos:
            raise UserError(
                f"The ground truth of {where} gives the query {at} the video {place!r}; a number "
                f"from 0 to {videos - 1} was expected."
            )
    return SetTruth(videos, np.array(own, dtype=np.int64))


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], "nothing was written"))
