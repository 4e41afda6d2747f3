"""Turn raw captions into a file of text features that the data loader reads.

python3 -m misc.prepare_text_embeddings --encoder FOLDER --captions captions.json --output text.npz

The same command goes on where a run was interrupted.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: the rooms lie in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import misc  # noqa: F401 (see there: Ctrl-C while the rest loads)

from misc.text_embeddings.command import INTERRUPTED, main
from utils.command_line import run_main

if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], INTERRUPTED))
