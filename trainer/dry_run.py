"""What a training takes: some steps are made and measured, and forgotten."""

import resource
import statistics
import time
from collections.abc import Iterator

import torch

from model.fast import compile_model
from trainer.memory import keeping_freed_memory, memory_of, told_if_full
from trainer.processes.alone import ALONE
from trainer.session import Training
from trainer.step import warn_if_slow

STEPS = 5


def measured(training: Training) -> Iterator[str]:
    """Make a few steps, and say line by line what they took; nothing is written.

    The time of a step is the median of those after the first, which also prepares what all use.

    Raises:
        UserError: the device has too little memory.
    """
    parts = training.parts
    batches, size = len(parts.train), parts.train.batch_size
    if training.config.get("compile", False):
        compile_model(parts.net, in_one_piece=parts.processes is ALONE)
    warn_if_slow(parts.precision, parts.device)
    first, *others = _seconds_of_steps(training)
    step = statistics.median(others or [first])
    epochs = training.config["trainer.epochs"]
    searched = len(parts.retrieval), len(training.test_loader.retrieval)
    yield f"epoch       {batches} batches of {size} videos"
    yield "searched    {} videos in validation, {} in the test".format(*searched)
    each = "" if parts.processes is ALONE else f", each of {parts.processes.count} processes"
    peak = _peak(parts.device) / 2**30
    yield f"memory      {peak:.2f} of {_memory(parts.device)} at the peak{each}"
    yield f"step        {step:.4f} s (the first {first:.2f} s)"
    yield f"training    {epochs} epochs: about {batches * epochs * step:,.0f} s and the validations"


def _seconds_of_steps(training: Training) -> list[float]:
    parts = training.parts
    step, train = parts.training_step(), parts.train
    parts.net.train()
    seconds = []
    fits = told_if_full(f"a training in batches of {train.batch_size} videos")
    divided = step.divided(train.batch_size, train.captions_per_video)
    with fits, keeping_freed_memory(parts.device.type == "cpu"), divided:
        started = time.perf_counter()
        for batch in train.batches(1, limit=1 + STEPS):
            loss, _ = step(batch.to(parts.device), 1)
            loss.item()  # here the host waits for the device
            now = time.perf_counter()
            seconds.append(now - started)
            started = now
    step.free()
    return seconds


def _peak(device: torch.device) -> int:
    """Bytes of the GPU, or of this process with all that it has loaded and mapped."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _memory(device: torch.device) -> str:
    where = "the GPU's" if device.type == "cuda" else "the host's"
    return f"{where} {memory_of(device) / 2**30:.1f} GiB"
