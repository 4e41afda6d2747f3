"""Checks a data set before anyone trains on it.

python3 -m misc.check_data_set FOLDER [--split NAME,...] [--all]

Lists everything that would stop or spoil a training, all at once, and what is in each split.
The exit code is 0 if nothing is wrong, 1 if there are problems, 2 if there is nothing to check.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: the rooms lie in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import misc  # noqa: F401 (see there: Ctrl-C while the rest loads)

from data_loader.description import find_description
from misc.checking.problems import check_data_set
from misc.checking.report import line_of, summary
from utils.command_line import Parser, run_main

EXIT_PROBLEMS = 1
_SHOWN = 5


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(
        prog="python3 -m misc.check_data_set",
        description="Check a data set: every file that its description names, and all ids.",
    )
    parser.add_argument("folder", help="folder that holds a dataset.json (or a published name)")
    parser.add_argument("--split", metavar="NAME,...", help="look at these splits only")
    parser.add_argument("--all", action="store_true", help="show all ids, not the first few")
    options = parser.parse_args(arguments)
    description = find_description(options.folder)
    splits = [name.strip() for name in options.split.split(",")] if options.split else None
    report = check_data_set(description, splits)
    print(f"Data set {description.name} ({description.source})")
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


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
