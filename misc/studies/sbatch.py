"""Job arrays for SLURM: one script whose tasks are the trainings of a study."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from data_loader.errors import UserError
from data_loader.files import make_folder, replacing

_OPTION = re.compile(r"--[a-z][a-z0-9-]*(=[^\x00-\x1f\x7f]+)?|-[A-Za-z] ?[^\x00-\x1f\x7f]+")
# What sbatch would take for an end of its option, or for a pattern in the name of the output.
_UNFIT = re.compile(r'[\x00-\x1f\x7f"\\]')


def write_job_array(
    folder: Path,
    name: str,
    commands: Sequence[Sequence[str]],
    options: Sequence[str] = (),
) -> Path:
    """Write `<folder>/<name>.sbatch`, whose task N runs command N in the working directory.

    Args:
        folder: made if it does not exist; the tasks' output goes there too.
        name: of the job; letters, digits, ".", "_" and "-" alone.
        commands: program and arguments of each task.
        options: further options of sbatch, such as "--partition=gpu".

    Raises:
        UserError: an option or a path cannot stand in a script, or the folder cannot be written.
    """
    for option in options:
        if not _OPTION.fullmatch(option):
            raise UserError(
                f'--sbatch_option {option!r} is no option of sbatch such as "--partition=gpu".'
            )
    folder = folder.absolute()
    if _UNFIT.search(str(folder)):
        raise UserError(f"A job script cannot name the folder {str(folder)!r}: choose another.")
    output = str(folder).replace("%", "%%") + f"/{name}-%a.out"
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={name}",
        f"#SBATCH --array=0-{len(commands) - 1}",
        f'#SBATCH --output="{output}"',
        *(f"#SBATCH {option}" for option in options),
        "",
        "set -euo pipefail",
        f"cd -- {shlex.quote(str(Path.cwd()))}",
        'case "${SLURM_ARRAY_TASK_ID:?is set by SLURM: hand this file to sbatch}" in',
        *(f"{number}) exec {shlex.join(command)} ;;" for number, command in enumerate(commands)),
        '*) echo "There is no task ${SLURM_ARRAY_TASK_ID}." >&2; exit 2 ;;',
        "esac",
    ]
    path = make_folder(folder) / f"{name}.sbatch"
    with replacing(path, "w", encoding="utf-8") as handle:
        handle.write("\n".join(lines) + "\n")
    return path
