"""Flags of train.py and test.py, devices and seeds, and what the user sees when a run stops."""

import argparse
import errno
import logging
import os
import re
import sys
import tomllib
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version as installed_version
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from utils.errors import UserError, did_you_mean
from utils.files import reason
from utils.stopping import answering_signals, stop_behind

LARGEST_SEED = 2**32 - 1  # of numpy's global state

_PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"

OVERRIDES = "--custom_args"

EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130  # a shell's 128 + SIGINT
EXIT_BROKEN_PIPE = 141

_FULL = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger(__name__)


@cache
def version() -> str:
    """Return the version of this software, as `pyproject.toml` gives it: `2.1.0`."""
    with _PROJECT.open("rb") as handle:
        return tomllib.load(handle)["project"]["version"]


class _Version(argparse.Action):
    """Prints the versions of this software and of torch, which need not be loaded for that."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        sys.stdout.write(f"{parser.prog} {version()}, torch {installed_version('torch')}\n")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """A parser that answers a wrong command line with one sentence, and exits with 2."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_WRONG_INPUT, f"error: {message}; {self.prog} --help lists the flags.\n")

    def parse_args(  # type: ignore[override]  # the library's takes any object as a namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next
            with suppress(ImportError):
                import argcomplete

                argcomplete.autocomplete(self)
        self._refuse_empty(sys.argv[1:] if args is None else args)
        found, rest = self.parse_known_args(args, namespace or argparse.Namespace())
        if rest:
            flag = rest[0].partition("=")[0]
            hint = did_you_mean(flag, self._option_string_actions) if flag[:1] == "-" else ""
            if re.match("[^-=@][^=@]*[=@]", rest[0]) and OVERRIDES in self._option_string_actions:
                hint = f" ({OVERRIDES} replaces values of the config)"
            self.error(f'there is no flag "{flag}"{hint}')
        return found

    def _refuse_empty(self, given: Sequence[str]) -> None:
        """Refuse a flag with an empty value, as a script's unset variable gives it.

        An empty path would be the working folder. Empty overrides are as good as none.
        """
        for word, following in pairwise([*given, "-"]):
            flag, equals, text = word.partition("=")
            action = self._option_string_actions.get(flag)
            may_be = action is None or action.nargs == 0 or action.default == ""
            is_empty = not (text if equals else following).strip()
            if is_empty and not may_be and flag != OVERRIDES:
                self.error(f"{flag} is empty: give it a value, or leave it out")


def train_parser() -> Parser:
    """Flags of train.py."""
    parser = Parser(
        prog="train.py",
        description="Train a text-video retrieval model, then test it.",
    )
    _add_common(
        parser,
        resume="checkpoint, run folder or experiment folder: continue this very training; auto: "
        "go on with the unfinished run of this command line (and leave out finished seeds), or "
        "start a new one",
    )
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument(
        "--seeds",
        metavar="0,1,2",
        help="train once for each of these seeds, one after another, and report the mean and "
        "standard deviation over them",
    )
    seeds.add_argument(
        "--group_seed",
        metavar="SEED",
        help="train for this one seed of a group, as the jobs of a cluster do",
    )
    parser.add_argument(
        "--group_id",
        metavar="ID",
        type=folder_name,
        help="name of the group: results lie in <experiment>/<ID>/seed-<seed>",
    )
    parser.add_argument(
        "--mini_train",
        action="store_true",
        help="a handful of batches for each epoch, no TensorBoard: a quick try",
    )
    parser.add_argument(
        "--init_from",
        metavar="PATH",
        help="start a new training from the weights of a checkpoint (a run, a published one, a "
        "bare state dict, .safetensors): what fits is loaded",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="show model and data, and the memory and time that a step takes, without a training",
    )
    parser.add_argument("--train_single_epoch", action="store_true", help="stop after one epoch")
    parser.add_argument(
        "--disable_workers", action="store_true", help="load data in the main process alone"
    )
    parser.add_argument(
        "--purge_exp_dir",
        action="store_true",
        help="first remove all earlier runs of this experiment",
    )
    parser.add_argument(
        "--leaderboard", metavar="PATH", help="append the test results to this file"
    )
    return parser


def test_parser() -> Parser:
    """Flags of test.py."""
    parser = Parser(prog="test.py", description="Test a trained text-video retrieval model.")
    _add_common(parser, resume="checkpoint, run folder or experiment folder to test")
    parser.add_argument(
        "--eval_from_training_config",
        action="store_true",
        help="merge the config's eval_settings over it: test on the test split, as the end of a "
        "training does, not on the validation split",
    )
    return parser


# Its name is that of a program, not of a test: pytest must not collect it where it is imported.
test_parser.__test__ = False  # type: ignore[attr-defined]  # functions take any attribute


def _add_common(parser: Parser, resume: str) -> None:
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show the version, and torch's",
    )
    parser.add_argument(
        "--config", metavar="PATH", help="config file; without it, that beside --resume"
    )
    parser.add_argument("--resume", metavar="PATH", help=resume)
    parser.add_argument(
        "--device",
        metavar="0,1",
        help='ids of the GPUs to use, a process for each; also "cuda" (the first), "cuda:1", '
        '"auto" (a GPU where there is one), "cpu" (the default) and "cpu,cpu" (two processes)',
    )
    parser.add_argument(
        OVERRIDES,
        metavar="KEY@VALUE+...",
        help='values to replace in the config: "trainer.epochs@3+optimizer.args.lr@0.01", with "@" '
        'or "="; a dot inside a key is written "_."; each adds a suffix to the experiment\'s name',
    )


def folder_name(text: str) -> str:
    """Read a flag whose value is the name of one folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise argparse.ArgumentTypeError(
            f'"{text}" must be the name of a folder: letters, digits, ".", "_" and "-" only'
        )
    return text


def chosen_seeds(arguments: argparse.Namespace, default: int = 0) -> list[int]:
    """Return the seeds that --seeds or --group_seed asks for, `default` alone where neither does.

    Raises:
        UserError: what stands there is no seed.
    """
    if arguments.seeds is not None:
        return parse_seeds(arguments.seeds)
    if arguments.group_seed is None:
        return [default]
    seeds = parse_seeds(arguments.group_seed, "--group_seed")
    if len(seeds) > 1:
        raise UserError(
            f'--group_seed takes one seed, not "{arguments.group_seed}"; --seeds takes several.'
        )
    return seeds


def parse_seeds(text: str, flag: str = "--seeds") -> list[int]:
    """Read seeds such as "0,1,2".

    Raises:
        UserError: one of them is no whole number from 0 to 2^32 - 1, or stands there twice.
    """
    seeds = []
    for part in text.split(","):
        if not re.fullmatch(r"[0-9]{1,10}", part.strip()) or int(part) > LARGEST_SEED:
            raise UserError(
                f'{flag} takes whole numbers from 0 to {LARGEST_SEED} such as "0,1,2", '
                f'not "{text}".'
            )
        if int(part) in seeds:
            raise UserError(f'{flag} "{text}" names the seed {int(part)} twice.')
        seeds.append(int(part))
    return seeds


def select_device(text: str | None) -> str:
    """Turn the text of --device into the one torch device that a process uses: "1" -> "cuda:1".

    Without a text, or for "cpu", it is the CPU; for "auto" the first GPU, and the CPU where torch
    can use none.

    Raises:
        UserError: the text names no devices, or a GPU that torch does not see.
    """
    asked = "cpu" if text is None else text.strip().lower()
    if asked == "auto":
        asked = "0" if _usable_gpus() else "cpu"
    if asked == "cpu":
        return "cpu"
    parts = (
        ["0"] if asked == "cuda" else [p.strip().removeprefix("cuda:") for p in asked.split(",")]
    )
    if not all(re.fullmatch(r"[0-9]{1,4}", part) for part in parts) or len({*parts}) < len(parts):
        raise UserError(
            '--device takes ids of GPUs such as "0", "cuda:0" or "0,1", "cuda" for the first, '
            f'"auto", or "cpu", not "{text}".'
        )
    import torch

    count = torch.cuda.device_count()
    if missing := [part for part in parts if int(part) >= count]:
        raise UserError(
            f"--device {text}: there is no GPU {missing[0]}; {_seen_by_torch(count)}. Without "
            "--device the CPU is used."
        )
    device = f"cuda:{int(parts[0])}"
    if len(parts) > 1:
        _log.warning("One process uses one GPU: %s of those given.", device)
    _start_gpu(device, text)
    return device


def log_place(extra: Mapping[str, object] | None = None) -> None:
    """Log where a program reads and writes files, unless that is its own folder.

    Args:
        extra: of the log's record.
    """
    home, here = _PROJECT.parent, Path.cwd()
    if here != home:
        said = "Data and results: below %s; configs that are not found there: from %s"
        _log.info(said, here, home, extra=extra)


def log_device(device: str, asked: str | None, processes: int = 1) -> None:
    """Log on which device a program computes.

    Args:
        device: as `select_device` returns it.
        asked: the text of --device, None without: then a GPU that stands idle is mentioned.
        processes: that compute together, each on a device of its own.
    """
    import torch

    if device != "cpu":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        name = torch.cuda.get_device_name(device)
        others = f"; {processes} processes, each with its GPU" if processes > 1 else ""
        _log.info("Device: %s, %s (%.0f GiB)%s", device, name, memory, others)
    elif asked is None and (gpus := _usable_gpus()):
        idle = "a GPU stands" if gpus == 1 else f"{gpus} GPUs stand"
        _log.info("Device: the CPU, while %s idle (--device cuda uses it)", idle)
    else:
        threads = torch.get_num_threads()
        each = f"{threads} thread{'' if threads == 1 else 's'}"
        shared = f"{processes} processes of {each} each" if processes > 1 else each
        _log.info("Device: the CPU, %s", shared)


def _usable_gpus() -> int:
    import torch

    with warnings.catch_warnings():  # of a driver that is too old
        warnings.simplefilter("ignore")
        return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _start_gpu(device: str, text: str | None) -> None:
    import torch

    if not torch.version.cuda:
        return
    try:
        torch.cuda.init()
        torch.cuda.set_device(device)  # else some of torch's own work goes to the first GPU
    except RuntimeError as error:
        raise UserError(
            f"--device {text}: torch cannot use the GPU ({_first_sentence(error)}). Without "
            "--device the CPU is used."
        ) from error


def _first_sentence(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")


def _seen_by_torch(count: int) -> str:
    import torch

    if count:
        names = (f"{index} ({torch.cuda.get_device_name(index)})" for index in range(count))
        return f"torch sees {', '.join(names)}"
    if not torch.version.cuda:
        return "this torch was built without CUDA (pytorch.org tells how to install one with it)"
    try:
        torch.cuda.init()
    except RuntimeError as error:  # says that there is no driver, or one too old
        return f"torch sees none here ({_first_sentence(error)})"
    return "torch sees none here"


def run_main(
    main: Callable[[list[str]], None],
    arguments: Sequence[str],
    interrupted: str = "",
) -> int:
    """Run an entry point and return the exit code of the process.

    A mistake of the user's is one sentence on stderr and the code 2; an end that was asked for
    (Ctrl-C, SIGTERM, SIGHUP) one line, how to go on (`interrupted`, where the program has not saved
    anything more to the point), and 130, 143 or 129; a fault of the program keeps its traceback.
    Nothing is said where the reader of the output has had enough of it (`| head`), and what it
    cannot show is escaped.
    """
    _prepare_streams()
    try:
        with answering_signals():
            main(list(arguments))
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up_output()
        return EXIT_BROKEN_PIPE
    except (KeyboardInterrupt, Exception) as error:
        stop = stop_behind(error)
        if stop is None and isinstance(error, UserError):
            _say(f"error: {error}")
            return EXIT_WRONG_INPUT
        if stop is None and isinstance(error, OSError) and error.errno in _FULL:
            _give_up_output()
            _say(f"error: Cannot write {error.filename or 'the output'}: {reason(error)}.")
            return EXIT_WRONG_INPUT
        if stop is None:
            raise
        said = str(stop) or "interrupted"
        saved = getattr(stop, "saved", "")
        _say(f"{said}; {interrupted}" if interrupted and not saved else said)
        return getattr(stop, "exit_code", EXIT_INTERRUPTED)
    return 0


def _prepare_streams() -> None:
    """See to it that there are an output and an error output, which take any letter."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller (`>&-`)
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif stream.errors == "strict" or "utf" not in (stream.encoding or "").lower():
            stream.reconfigure(errors="backslashreplace")


def _give_up_output() -> None:
    """Let nothing that is still buffered be tried once more when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
