"""Several machines: a SLURM job array of shards, and the job that merges them."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from misc.results.sbatch import Limits, from_here, write_job_array


def write_scripts(
    folder: Path, arguments: Sequence[str], shards: int, limits: Limits, options: Sequence[str]
) -> Iterator[str]:
    """Write both scripts, and say how to submit them.

    Args:
        folder: of the scripts and what the tasks say.
        arguments: the command line that asked for this; the tasks have the rest of it.
        shards: their number.
        limits, options: of the tasks, as `write_job_array` takes them.
    """
    command = ["-m", "misc.extract_experts", *_without_sbatch(arguments)]
    parts = [[*command, "--shard", f"{number}/{shards}"] for number in range(1, shards + 1)]
    folder = from_here(folder)
    array = write_job_array(folder, "shards", parts, limits, options)
    merge = write_job_array(folder, "merge", [command], limits, options)
    yield f"{shards} shards. Submit them, and the job that merges them, from this folder:"
    first = shlex.join(["sbatch", "--parsable", str(array)])
    yield f"  sbatch --dependency=afterok:$({first}) {shlex.quote(str(merge))}"


def _without_sbatch(arguments: Sequence[str]) -> list[str]:
    """Return the command line without the flags that write scripts; each takes one value."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if skip:
            skip = False
        elif flag == "--shards" or flag.startswith("--sbatch"):
            skip = not equals
        else:
            kept.append(argument)
    return kept
