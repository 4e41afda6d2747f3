"""The rows of a table of results: which runs count for an experiment, and what they come to."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from misc.results.runs import (
    Metrics,
    Run,
    experiment_name,
    newest_by_seed,
    runs_of,
    runs_under,
)
from utils.config import Config, differences
from utils.errors import UserError
from utils.files import is_there


@dataclass(frozen=True)
class Row:
    """One experiment on one split.

    Attributes:
        label: what the table calls it.
        experiment: its name.
        split: of the test.
        runs: one for each seed.
        notes: what was left out and why, a sentence each.
    """

    label: str
    experiment: str
    split: str
    runs: Sequence[Run] = ()
    notes: Sequence[str] = field(default_factory=list)

    @property
    def metrics(self) -> list[Metrics]:
        """The test of each run."""
        return [run.test_on(self.split) for run in self.runs]

    @property
    def is_final(self) -> bool:
        """Whether this is the test that the trainings ended with."""
        return bool(self.runs) and all(run.final_split == self.split for run in self.runs)


def rows_of_folder(folder: Path, split: str | None = None) -> list[Row]:
    """Make a row for each experiment and split whose logs lie under a folder.

    Args:
        folder: of logs: of one experiment, of one group or run of it, or of all of them.
        split: only tests on this one; None: the test that each training ended with.

    Raises:
        UserError: no run lies there, or its files cannot be read.
    """
    runs = runs_under(folder) if is_there(folder, Path.is_dir) else []
    if not runs:
        raise UserError(
            f"There is no run in {folder}: give the log folder of an experiment "
            "(<save_dir>/log/<experiment>) that train.py has made, or its config."
        )
    return rows_of_runs(runs, folder.resolve().name, split)


def rows_of_runs(runs: Sequence[Run], default: str, split: str | None = None) -> list[Row]:
    """Make a row for each experiment and split of some runs (oldest first).

    Args:
        runs: of any experiments.
        default: what an experiment without a name is called.
        split: see `rows_of_folder`.

    Raises:
        UserError: what a run measured cannot be read.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    unfinished: dict[str, list[Run]] = {}
    for run in runs:
        name = experiment_name(run, default=default)
        wanted = run.final_split if split is None else split
        if run.is_finished and run.test_on(wanted) is not None:
            groups.setdefault((name, wanted), []).append(run)
        else:
            unfinished.setdefault(name, []).append(run)
    names = [name for name, _ in groups]
    rows = [
        _row(name, name, split or "", left)
        for name, left in unfinished.items()
        if name not in names
    ]
    for (name, wanted), members in groups.items():
        label = name if names.count(name) == 1 else f"{name} ({wanted})"
        rows.append(_row(label, name, wanted, [*unfinished.get(name, []), *members]))
    return sorted(rows, key=lambda row: row.label)


def row_of_config(
    path: str,
    label: str = "",
    split: str | None = None,
    custom_args: str | None = None,
    seeds: Collection[int] | None = None,
) -> Row:
    """Make the row of a config from the runs with exactly its values; it may have none.

    Args:
        path: of the config.
        label: what the table calls it; without one, the experiment's name.
        split: of the tests; None: the one that a training with this config ends with.
        custom_args: overrides, as on the command line.
        seeds: only runs with these; None: all.

    Raises:
        UserError: the config, or a file of its runs, cannot be read.
    """
    config = Config.from_file(path, custom_args)
    wanted = final_split(config) if split is None else split
    runs = [run for run in runs_of(config) if seeds is None or run.seed in (None, *seeds)]
    return _row(label or config.name, config.name, wanted, runs, config)


def final_split(config: Config) -> str:
    """Return the split of the test that a training with this config ends with."""
    return config.eval_config().get("data_loader.args.split_name", "")


def _row(
    label: str, name: str, split: str, runs: Sequence[Run], config: Config | None = None
) -> Row:
    """Choose the runs that count: whole, tested on the split, made with the same values."""
    notes: list[str] = []

    def keep(runs: Iterable[Run], condition: Callable[[Run], bool], why: str) -> list[Run]:
        kept = []
        for run in runs:
            if condition(run):
                kept.append(run)
            else:
                notes.append(f"{name}: the run {run.log} {why}.")
        return kept

    runs = keep(runs, lambda run: not run.is_quick_try, "is a quick try, not a whole training")
    runs = keep(runs, lambda run: run.is_finished, "has not come to its test yet")
    challenge = "has predictions for a challenge, no metrics"
    runs = keep(runs, lambda run: "test" in run.metrics or "tests" in run.metrics, challenge)
    has = f'has no test on "{split}"'
    runs = keep(runs, lambda run: run.test_on(split) is not None, has)
    if any(run.seed is not None for run in runs):
        why = "is a test alone, of which training is not known"
        runs = keep(runs, lambda run: run.seed is not None, why)
    values = config.values if config else next((r.config for r in runs[::-1] if r.config), None)
    if values is not None:
        whose = "the config" if config else "the newest run"
        other = f"was made with other values than {whose} has"
        runs = keep(runs, lambda run: _has_values(run, values, config is not None), other)
    if not runs:
        notes.append(f"{name}: no run counts.")
    return Row(label, name, split, newest_by_seed(runs), notes)


def _has_values(run: Run, values: Mapping, must_be_known: bool) -> bool:
    if run.config is None:
        return not must_be_known
    return not differences(run.config, values)
