"""A process that makes chunks: ``python3 -m misc.demo_set.worker '{"folder": ..., "seed": ...}'``.

It reads chunk numbers from its input, one a line, and answers each with a line of JSON. It ends
when its input ends, so also when its parent is killed.
"""

import json
import os
import sys
from pathlib import Path

from misc.demo_set.clips import make_chunk
from misc.demo_set.settings import Places, Settings
from utils.errors import UserError


def main(given: str) -> None:
    """Make the chunks that are asked for."""
    record = json.loads(given)
    places = Places(Path(record.pop("folder")))
    settings = Settings(**record)
    for line in sys.stdin:
        try:
            make_chunk(settings, places, int(line))
            message: dict[str, int | str] = {"done": int(line)}
        except UserError as error:
            message = {"refused": str(error)}
        try:
            os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")
        except BrokenPipeError:  # the parent was killed: nobody is told, and the input has ended
            return


if __name__ == "__main__":
    main(sys.argv[1])
