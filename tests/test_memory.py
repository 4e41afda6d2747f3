"""While a training runs, the C library keeps freed memory; afterwards it gives it back."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainer.memory import keeping_freed_memory, told_if_full
from utils.errors import UserError

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # of malloc.h


class Library:
    """Notes what is asked of the C library."""

    def __init__(self) -> None:
        self.options = {MMAP_MAX: 65536, TRIM_THRESHOLD: 128 * 1024}  # as it starts
        self.trims = 0

    def mallopt(self, option: int, value: int) -> int:
        self.options[option] = value
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.trims += 1
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return library


def test_large_blocks_are_of_the_heap_and_stay_there(library: Library) -> None:
    before = dict(library.options)
    with keeping_freed_memory():
        assert library.options[MMAP_MAX] == 0 and library.options[TRIM_THRESHOLD] == -1
        assert library.trims == 0
    assert library.options == before and library.trims == 1


def test_an_error_ends_it_too(library: Library) -> None:
    before = dict(library.options)
    with pytest.raises(RuntimeError), keeping_freed_memory():
        raise RuntimeError
    assert library.options == before and library.trims == 1


def test_it_can_be_left_off(library: Library) -> None:
    before = dict(library.options)
    with keeping_freed_memory(enabled=False):
        assert library.options == before
    assert library.trims == 0


PROGRAM = """
import resource
from pathlib import Path
import torch
import torch

from trainer.memory import keeping_freed_memory, told_if_full
from utils.errors import UserError

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()

before = resident()
with keeping_freed_memory():
    torch.ones(100 * 2**20)
    print(resident() - before)
print(resident() - before)
"""


def test_the_real_library_keeps_a_block_and_gives_it_back() -> None:
    root, command = Path(__file__).parents[1], [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    inside, after = map(int, done.stdout.split())
    assert inside > 300 * 2**20 > 100 * 2**20 > after


def test_a_gpu_that_is_full_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (2**29, 2**33))
    told = r"batches of 64 videos: 0\.5 of its 8\.0 GiB.*batch_size"
    what = "a training in batches of 64 videos"
    with pytest.raises(UserError, match=told), told_if_full(what):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
    with pytest.raises(RuntimeError, match="another"), told_if_full("a training"):
        raise RuntimeError("another error")
