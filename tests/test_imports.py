"""What starting loads: nothing that a run does not use, so that it answers at once."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

HEAVY = {"PIL", "av", "h5py", "jinja2", "requests", "scipy", "tensorboard", "transformers"}


def loaded_by(*modules: str) -> set[str]:
    program = f"import sys, {', '.join(modules)}; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("program", ["train", "test"])
def test_the_command_line_is_read_before_anything_heavy_is_loaded(program: str) -> None:
    assert not loaded_by(program) & (HEAVY | {"torch"})


def test_a_training_loads_no_library_that_it_does_not_use() -> None:
    loaded = loaded_by("train", "trainer.runs.folder", "trainer.session")
    assert "torch" in loaded
    assert not loaded & HEAVY
