"""Fetch the published features of a data set, or a published checkpoint with its config.

python3 -m misc.sync_experts --dataset MSVD
python3 -m misc.sync_experts --model msvd-train-full-ce

What is complete is not fetched again; what was interrupted continues.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: the rooms lie in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import misc  # noqa: F401 (see there: Ctrl-C while the rest loads)

from misc.fetching.command_line import INTERRUPTED, main
from utils.command_line import run_main

if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], INTERRUPTED))
