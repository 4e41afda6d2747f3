"""Check a data set before anyone trains on it: every file that it names, and all ids.

python3 -m misc.check_data_set data/clips
python3 -m misc.check_data_set --config configs/msvd/train-full-ce.json --all

Lists everything that would stop or spoil a training, all at once, and what is in each split. What
the config does not use (--config, or a `config.json` in the folder) is worth a note only; without a
config all experts and the text features "words" count.
The exit code is 0 if nothing is wrong, 1 if there are problems, 2 if there is nothing to check.
"""

import logging
import sys

from data_loader.sets.description import DataDescription, find_description
from logger.log_file import open_log
from misc.check_data_set.problems import check_data_set
from misc.check_data_set.report import Report, line_of, summary
from misc.check_data_set.use import Use, lacks_usual_test, parts_of, use_by
from misc.tools import tool_parser
from utils.command_line import run_main
from utils.config import Config
from utils.errors import UserError, printable

EXIT_PROBLEMS = 1
_SHOWN = 5


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("check_data_set")
    parser.add_argument(
        "folder",
        nargs="?",
        help="folder that holds a dataset.json, or a published name (default: that of --config)",
    )
    parser.add_argument(
        "--config",
        metavar="PATH",
        help="check what this config uses, and open the data as its training and test would "
        "(default: config.json in the folder, if it has one)",
    )
    parser.add_argument("--split", metavar="NAME,...", help="look at these splits only")
    parser.add_argument("--all", action="store_true", help="show all ids, not the first few")
    options = parser.parse_args(arguments)
    if options.folder is None and options.config is None:
        parser.error("a folder that holds a dataset.json is missing, or --config")
    config = Config.from_file(options.config) if options.config else None
    description = find_description(*_data_set(options.folder, config))
    splits = [name.strip() for name in options.split.split(",")] if options.split else None
    with open_log(None, logging.WARNING):
        report = _report(description, config, splits)
    print(printable(f"Data set {description.name} ({description.source})"))
    print()
    print("\n".join(summary(report.rows)))
    shown = None if options.all else _SHOWN
    for title, findings in (("Notes", report.notes), ("Problems", report.problems)):
        if findings:
            print(f"\n{title}:")
            print("\n".join(f"- {line_of(finding, shown)}" for finding in findings))
    if report.problems:
        print(f"\n{len(report.problems)} kinds of problems would stop or spoil a training.")
        raise SystemExit(EXIT_PROBLEMS)
    print("\nNothing stands in the way of a training.")


def _data_set(folder: str | None, config: Config | None) -> tuple[str, str | None]:
    """Return the arguments of `find_description`."""
    if folder is not None:
        return folder, None
    return config["data_loader.args.dataset_name"], config.get("data_loader.args.data_dir")


def _report(
    description: DataDescription, config: Config | None, splits: list[str] | None
) -> Report:
    if config is None:
        use, why_not = _own_use(description)
        report = check_data_set(description, splits, use)
        if why_not:
            report.note("config.json", why_not)
        if use is None and lacks_usual_test(description):
            report.note("splits", 'there is no "test", on which the configs in configs/own test')
        return report
    report = check_data_set(description, splits, use_by(config, description))
    if not report.problems:
        _open(description, config, report)
    return report


def _own_use(description: DataDescription) -> tuple[Use | None, str]:
    """Return what the config in the data set's own folder uses, or why that is not known."""
    path = description.source.with_name("config.json")
    if description.published or not path.is_file():
        return None, ""
    try:
        return use_by(Config.from_file(path), description), ""
    except UserError as error:
        return None, f"it is left aside: {error}"


def _open(description: DataDescription, config: Config, report: Report) -> None:
    """Open the data as a training with this config and its final test do."""
    from trainer.build import build_loader  # loads torch, which nothing else here needs

    name = str(description.source.parent) if not description.published else description.name
    for part in parts_of(config):
        part = part.merged({"data_loader": {"args": {"dataset_name": name}}})
        try:
            build_loader(part, seed=0)
        except UserError as error:
            report.problem(f'split "{part["data_loader.args.split_name"]}"', str(error))


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
