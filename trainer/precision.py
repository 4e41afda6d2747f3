"""In which precision a training step computes."""

from contextlib import AbstractContextManager

import torch


def computing_in(precision: str, device: torch.device) -> AbstractContextManager:
    """Context in which a training step runs the model forward: "float32" or "bf16".

    Weights, statistics, similarities and losses are float32 in either case; with "bf16" the matrix
    products of the model are bfloat16. Evaluation always is float32: a checkpoint's metrics do not
    depend on how it was trained.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
