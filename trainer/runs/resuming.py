"""Which run a training goes on with, and whether it is still the very same training."""

import hashlib
import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_loader.loader import ExpertDataLoader
from trainer.checkpoints.checkpoint import LARGE_KEYS, load_checkpoint
from trainer.optimisation.schedules import SCHEDULE_LENGTH_GIVEN, SCHEDULE_LENGTHS
from trainer.runs.finding import Wanted, newest_checkpoint
from trainer.runs.folder import RunFolder
from trainer.runs.marks import read_mark
from utils.config import NAME_KEY, Config, differing_paths
from utils.config_kinds import KeyPath
from utils.config_schema import changes_learning
from utils.errors import UserError, listed, short

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Continued:
    """An earlier run, held by this process.

    Attributes:
        folder: of the run.
        checkpoint: its newest state, or the one that was named; None: it has saved none yet.
        is_done: nothing is left to do, as it ended with its test.
    """

    folder: RunFolder
    checkpoint: Path | None
    is_done: bool = False


def run_to_continue(
    checkpoint: Path, seeds: Sequence[int] | None, group_id: str | None
) -> RunFolder:
    """Return the run of the checkpoint that a training is to go on from.

    Raises:
        UserError: it lies in no run that carries our mark, or the command line asks for other
            seeds, or another group, than the run's.
    """
    run = RunFolder.of_checkpoint(checkpoint)
    if run is None:
        load_checkpoint(checkpoint, LARGE_KEYS, needs_config=False)  # says what is wrong with it
        mark = read_mark(checkpoint.parent)
        where = "in no run of this version, so its training cannot be continued: "
        if mark is not None:
            where = f"not in the place of its run (.../models/{mark['place']}): move it back, or "
        raise UserError(f"{checkpoint} lies {where}{_start_anew(checkpoint)}.")
    facts = run.facts
    if seeds is not None and list(seeds) != [facts.get("seed")]:
        raise UserError(
            f"--resume {checkpoint} continues one run, of the seed {facts.get('seed')}: leave "
            "--seeds and --group_seed out, or give --resume auto, which goes on with each seed's "
            "own run."
        )
    if group_id is not None and group_id != facts.get("group_id", ""):
        raise UserError(
            f'--resume {checkpoint} continues a run of the group "{facts.get("group_id", "")}", '
            f'not "{group_id}": leave --group_id out.'
        )
    return run


@contextmanager
def earlier_run(wanted: Wanted, resume: Path | str | None) -> Iterator[Continued | None]:
    """Hold the run with which a training goes on; None: it starts a new one.

    Args:
        wanted: what is to be trained.
        resume: a checkpoint of the run; or "auto": the newest run of the same command line that has
            not ended and that no living process holds, else, where it is one of many, one that has
            ended; or None.

    Raises:
        UserError: the checkpoint's run carries no mark of ours, or a living process holds it.
    """
    if isinstance(resume, Path):
        folder = run_to_continue(resume, None, None)
        with folder.held():
            yield Continued(folder, resume)
        return
    runs = wanted.runs() if resume else []
    with ExitStack() as stack:
        for run in runs:
            if run.is_finished:
                if not run.is_held():  # a kill may have struck before this
                    run.last_checkpoint.unlink(missing_ok=True)
                continue
            try:
                stack.enter_context(run.held())
            except UserError as error:
                _log.info("%s", error)
                continue
            yield Continued(run, newest_checkpoint(run))
            return
        finished = [run for run in runs if run.is_finished] if wanted.is_one_of_many else []
        yield Continued(finished[0], None, is_done=True) if finished else None


def check_same_training(
    checkpoint: Mapping[str, Any], path: Path, config: Config, quick_try: bool
) -> None:
    """Refuse to continue a training as another one.

    Raises:
        UserError: the config changes what is learned; says which keys.
    """
    stored = Config.from_dict(checkpoint["config"]).values
    now = as_begun(config, checkpoint["config"]).values
    changes = [
        f"{'.'.join(key)}: {_value_at(key, stored)} -> {_value_at(key, now)}"
        for key in what_changes_learning(stored, now)
    ]
    if changes:
        raise UserError(
            f"--resume continues the very training of {path}, but this config changes what is "
            f"learned ({listed(changes, separator='; ')}): leave that as it was, or "
            f"{_start_anew(path)}."
        )
    if (checkpoint.get("quick_try") is True) != quick_try:
        is_try = "no quick try" if quick_try else "a quick try"
        raise UserError(
            f"The training of {path} is {is_try}: give --mini_train and --train_single_epoch as it "
            "was begun."
        )


def as_begun(config: Config, stored: Mapping[str, Any]) -> Config:
    """Return a config with what only counts for the beginning of a training: name and weights."""
    values = {key: value for key, value in config.values.items() if key != "init_from"}
    values |= {key: stored[key] for key in ("init_from",) if key in stored}
    return Config.from_dict(values, stored.get(NAME_KEY, config.name))


def what_changes_learning(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[KeyPath]:
    """List the keys that make training with `new` another training than that with `old`.

    Keys that only concern length, speed, logging, drawing, testing or places of files are none,
    nor is `trainer.epochs`, unless the learning-rate schedule of either config ends with them.
    """
    has_end = _ends_with_training(old) or _ends_with_training(new)
    return [
        path
        for path in differing_paths(old, new)
        if changes_learning(path) or (has_end and path == ("trainer", "epochs"))
    ]


def _ends_with_training(values: Mapping[str, Any]) -> bool:
    """Tell whether the schedule of a config is made to end with its last epoch."""
    schedule, epochs = values.get("lr_scheduler", {}), values.get("trainer", {}).get("epochs")
    args, kind = schedule.get("args", {}), schedule.get("type")
    if kind in SCHEDULE_LENGTH_GIVEN:
        return args.get(SCHEDULE_LENGTH_GIVEN[kind]) is None
    names = SCHEDULE_LENGTHS.get(kind, ())
    return epochs is not None and epochs in [args.get(name) for name in names]


def _value_at(path: KeyPath, values: Any) -> str:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return "not set"
        values = values[part]
    return short(json.dumps(values, ensure_ascii=False, default=str))


def _start_anew(checkpoint: Path) -> str:
    return f"start a new run from its weights with --init_from {shlex.quote(str(checkpoint))}"


def fingerprint(loader: ExpertDataLoader) -> dict[str, Any]:
    """Tell the data of a training from others: experts, text features, videos of its two lists."""
    return {
        "experts": [[e.name, e.size, e.variable_length, e.max_tokens] for e in loader.experts],
        "text": [loader.text_size, loader.max_text_tokens],
        "training videos": [len(loader.train.video_ids), _digest(loader.train.video_ids)],
        "retrieval set": [len(loader.retrieval), _digest(loader.retrieval.video_ids)],
    }


def check_same_data(checkpoint: Mapping[str, Any], path: Path, loader: ExpertDataLoader) -> None:
    """Refuse to continue a training with other data.

    Raises:
        UserError: says what of the data differs.
    """
    before, now = checkpoint.get("data"), fingerprint(loader)
    before = before if isinstance(before, dict) else {}
    others = [key for key, value in now.items() if before.get(key) != value]
    if others:
        raise UserError(
            f"The data are not those that the training of {path} began with (other "
            f"{' and '.join(others)}): give it the data it had, or {_start_anew(path)}."
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
