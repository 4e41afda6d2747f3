"""Job arrays for SLURM: one script whose tasks are the trainings of a study."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import make_folder, replacing

_OPTION = re.compile(r"--[a-z][a-z0-9-]*(=[^\x00-\x1f\x7f]+)?|-[A-Za-z] ?[^\x00-\x1f\x7f]+")
# What sbatch would take for an end of its option, or for a pattern in the name of the output.
_UNFIT = re.compile(r'[\x00-\x1f\x7f"\\]')
_TIME = re.compile(r"[0-9]+(:[0-9]{1,2}){0,2}|[0-9]+-[0-9]{1,2}(:[0-9]{1,2}){0,2}")
_MEMORY = re.compile(r"[0-9]+[KMGT]?")
_LONGEST_NOTICE = 65535

# The shell gets the signal that comes before the limit, not the program: it passes it on. A wait
# ends when a signal arrives, whatever becomes of the program; the last one asks for its code.
_BODY = """\
set -euo pipefail
case "${SLURM_ARRAY_TASK_ID:?is set by SLURM: hand this file to sbatch}" in
%s
*) echo "There is no task ${SLURM_ARRAY_TASK_ID}." >&2; exit 2 ;;
esac

training=
stopping=
stop() {
    stopping=1
    if [ -n "$training" ]; then kill -TERM "$training" 2>/dev/null || true; fi
}
trap stop TERM
%s &
training=$!
if [ -n "$stopping" ]; then stop; fi
while kill -0 "$training" 2>/dev/null; do wait "$training" || true; done
code=0
wait "$training" || code=$?

# Asked to end, it has saved all and goes on when this task runs again; one that was cancelled, or
# failed, stays as it is.
task="${SLURM_ARRAY_JOB_ID:-}_$SLURM_ARRAY_TASK_ID"
if [ "$code" = 143 ] && [[ "$(scontrol show job "$task")" == *JobState=RUNNING* ]]; then
    scontrol requeue "$task" || true
fi
exit "$code"
"""


_ALONE = '"${PYTHON:-python3}" "$@"'
# A process for each GPU of each node; they are told of one another as torchrun tells them. What
# sbatch was told of processors (--cpus-per-task), srun has to be told again.
_TOGETHER = r"""
export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MASTER_PORT="$((20000 + SLURM_JOB_ID % 10000))"
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
srun --kill-on-bad-exit=0 bash -c '
    export RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID"
    export WORLD_SIZE="$SLURM_NTASKS" LOCAL_WORLD_SIZE="$((SLURM_NTASKS / SLURM_JOB_NUM_NODES))"
    exec "${PYTHON:-python3}" "$@"' bash "$@"
""".strip()


@dataclass(frozen=True)
class Limits:
    """What a task may take, as sbatch reads it.

    Attributes:
        time: "12:00:00", "90" (minutes), "2-12" (days and hours).
        memory: "32G".
        notice: seconds before the end at which a training is told to save.
        gpus: of each node, a process for each; 0: one process, which takes what --device says.
        nodes: that share a training.
    """

    time: str = "12:00:00"
    memory: str = "32G"
    notice: int = 180
    gpus: int = 0
    nodes: int = 1

    def check(self) -> None:
        """Insist that sbatch can read them.

        Raises:
            UserError: it cannot; says which flag is wrong.
        """
        if not _TIME.fullmatch(self.time):
            raise UserError(
                f'--sbatch_time takes a time such as "12:00:00", "90" (minutes) or "2-12" (days '
                f"and hours), not {self.time!r}."
            )
        if not _MEMORY.fullmatch(self.memory):
            raise UserError(f'--sbatch_memory takes a size such as "32G", not {self.memory!r}.')
        if not 1 <= self.notice <= _LONGEST_NOTICE:
            raise UserError(
                f"--sbatch_notice takes seconds from 1 to {_LONGEST_NOTICE}, not {self.notice}."
            )
        if self.nodes < 1 or self.gpus < 0 or (self.nodes > 1 and not self.gpus):
            raise UserError(
                "--sbatch_nodes takes a number from 1, and --sbatch_gpus the GPUs of each node: "
                "several nodes need both."
            )

    @property
    def options(self) -> list[str]:
        """Options of sbatch for GPUs and nodes."""
        if not self.gpus:
            return []
        each = [f"--ntasks-per-node={self.gpus}", f"--gpus-per-node={self.gpus}"]
        return [f"--nodes={self.nodes}", *each]


def write_job_array(
    folder: Path,
    name: str,
    commands: Sequence[Sequence[str]],
    limits: Limits,
    options: Sequence[str] = (),
) -> Path:
    """Write `<folder>/<name>.sbatch`, whose task N runs command N.

    It is to be submitted from the working directory of now: relative paths count from there, and
    what lies below it is named by such paths, so that the script serves wherever the folder is.

    Args:
        folder: made if it does not exist; the tasks' output goes there too.
        name: of the job; letters, digits, ".", "_" and "-" alone.
        commands: of each task, a Python program and its arguments; it is run by $PYTHON, or by the
            python3 that is found.
        limits: of each task.
        options: further options of sbatch, such as "--partition=gpu"; they come last, and count.

    Raises:
        UserError: a limit, an option or a path cannot stand in a script, or the folder cannot be
            written.
    """
    limits.check()
    for option in options:
        if not _OPTION.fullmatch(option):
            raise UserError(
                f'--sbatch_option {option!r} is no option of sbatch such as "--partition=gpu".'
            )
    folder = from_here(folder)
    if _UNFIT.search(str(folder)):
        raise UserError(f"A job script cannot name the folder {str(folder)!r}: choose another.")
    output = str(folder).replace("%", "%%") + f"/{name}-%a.out"
    cases = (
        f"{number}) set -- {shlex.join(command)} ;;" for number, command in enumerate(commands)
    )
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={name}",
        f"#SBATCH --array=0-{len(commands) - 1}",
        f'#SBATCH --output="{output}"',
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        f"#SBATCH --signal=B:TERM@{limits.notice}",
        f"#SBATCH --time={limits.time}",
        f"#SBATCH --mem={limits.memory}",
        *(f"#SBATCH {option}" for option in [*limits.options, *options]),
        "",
        _BODY % ("\n".join(cases), _TOGETHER if limits.gpus else _ALONE),
    ]
    path = make_folder(folder) / f"{name}.sbatch"
    # Names of files stand there byte for byte.
    with replacing(path, "w", encoding="utf-8", errors="surrogateescape") as handle:
        handle.write("\n".join(lines))
    return path


def from_here(path: Path) -> Path:
    """Name a path as seen from the working directory, if it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
