"""While a training runs, freed memory is used again instead of mapped anew."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

# In a process of its own: what a heap does depends on all that it has done before.
PROGRAM = """
import json, resource
from pathlib import Path
import torch
from trainer.memory import keeping_freed_memory

BLOCK = 10 * 2**20  # numbers of 4 bytes: more than the C library ever keeps by itself

def faults():
    # Pages that the system has to provide for eight blocks that were there and freed before.
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [torch.ones(BLOCK) for _ in range(8)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()

found = {"outside": faults()}
with keeping_freed_memory(enabled=False):
    found["left off"] = faults()
at_first = resident()
with keeping_freed_memory():
    found["inside"] = faults()
    found["held"] = resident() - at_first
found["held after"] = resident() - at_first
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, int]:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_freed_blocks_are_used_again(found: dict[str, int]) -> None:
    # The heap cannot use each of its gaps again; outside it is all pages, each time.
    assert found["inside"] < 0.7 * found["outside"]


def test_it_can_be_left_off(found: dict[str, int]) -> None:
    assert found["left off"] > found["outside"] / 2


def test_memory_goes_back_at_the_end(found: dict[str, int]) -> None:
    assert found["held"] > 200 * 2**20
    assert found["held after"] < 20 * 2**20
