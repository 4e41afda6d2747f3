"""While a training runs, freed memory is used again instead of mapped anew."""

import platform
import resource
from pathlib import Path

import pytest
import torch

from trainer.memory import keeping_freed_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

BLOCK = 16 * 2**20  # numbers of 4 bytes


def faults_of_large_blocks() -> int:
    """Pages that the system had to provide for five blocks, each freed before the next."""
    torch.ones(BLOCK)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(BLOCK)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_blocks_are_used_again() -> None:
    outside = faults_of_large_blocks()
    with keeping_freed_memory():
        assert faults_of_large_blocks() < outside / 4
    assert faults_of_large_blocks() > outside / 2


def test_it_can_be_left_off() -> None:
    outside = faults_of_large_blocks()
    with keeping_freed_memory(enabled=False):
        assert faults_of_large_blocks() > outside / 2


def test_memory_goes_back_at_the_end() -> None:
    def resident_bytes() -> int:
        with Path("/proc/self/statm").open() as handle:
            return int(handle.read().split()[1]) * resource.getpagesize()

    before = resident_bytes()
    with keeping_freed_memory():
        torch.ones(100 * 2**20)
        assert resident_bytes() - before > 300 * 2**20
    assert resident_bytes() - before < 100 * 2**20
