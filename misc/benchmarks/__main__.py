"""Measure what this software does against plain formulations of the same, in one table.

python3 -m misc.benchmarks
python3 -m misc.benchmarks --only metrics validation --threads 2

Everything is measured in the same run, each workload in a process of its own, so that ratios and
shares hold on any machine. The table goes to standard output.
"""

import sys

from logger.progress import progress
from misc.benchmarks.measure import Meter, Workload
from misc.benchmarks.table import Row, markdown
from misc.benchmarks.workloads import WORKLOADS
from misc.tools import tool_parser
from utils.command_line import run_main
from utils.errors import UserError, did_you_mean


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("benchmarks")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="measure these workloads alone")
    parser.add_argument("--threads", type=int, default=1, help="threads of each (default: 1)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="part of the real sizes, for a quick try"
    )
    parser.add_argument("--list", action="store_true", help="name the workloads and stop")
    options = parser.parse_args(arguments)
    chosen = choose(options.only)
    if options.list:
        width = max(len(workload.name) for workload in WORKLOADS)
        print("\n".join(f"{w.name:{width}}  {w.title}" for w in chosen))
        return
    if options.threads < 1 or not 0 < options.scale <= 1:
        raise UserError("--threads takes a number from 1, --scale one above 0 and up to 1.")
    meter = Meter(options.threads, options.scale)
    rows = []
    for workload in progress(chosen, description="measuring"):
        reference = meter.figures(workload.reference) if workload.reference else None
        rows.append(Row(workload.title, reference, meter.figures(workload.ours)))
    print(markdown(rows, options.threads, options.scale))


def choose(names: list[str] | None) -> list[Workload]:
    """Return the workloads of these names, all of them where there are none.

    Raises:
        UserError: a name is not known.
    """
    known = {workload.name: workload for workload in WORKLOADS}
    for name in names or ():
        if name not in known:
            raise UserError(
                f'There is no workload "{name}"{did_you_mean(name, known)}; known: '
                f"{', '.join(known)}."
            )
    return [known[name] for name in names or known]


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
