"""What starting takes: the command line until it answers, and all that a training imports."""

import subprocess
import sys
from functools import partial
from pathlib import Path

from misc.benchmarks.measure import Job, Workload

ROOT = Path(__file__).resolve().parents[2]
COMMAND_LINE = ("train",)
TRAINING = ("train", "trainer.runs.folder", "trainer.session")
TORCH = ("torch",)
# All libraries of requirements/pip-requirements.txt, as a program has them that imports whatever it
# may need at its top.
LIBRARIES = ("av", "h5py", "jinja2", "msgpack", "PIL.Image", "requests", "scipy.io")
LIBRARIES += ("scipy.ndimage", "scipy.stats", "tensorboard", "torch.utils.tensorboard", "tqdm")

_SHOW_PEAK = "print(next(x for x in open('/proc/self/status') if x.startswith('VmHWM')))"


def start(scale: float, modules: tuple[str, ...]) -> Job:
    program = "\n".join([f"import {', '.join(modules)}", _SHOW_PEAK])
    peaks = []

    def run() -> None:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split()[1]) * 1024)

    return Job(run, memory=lambda: max(peaks))


_everything = partial(start, modules=(*LIBRARIES, *TRAINING))
_training = partial(start, modules=TRAINING)
_command_line = partial(start, modules=COMMAND_LINE)
WORKLOADS = (
    Workload("import", "import train", _command_line, _everything),
    Workload("import-all", "import all that a training uses", _training, _everything),
    Workload("import-torch", "import torch alone, for comparison", partial(start, modules=TORCH)),
)
