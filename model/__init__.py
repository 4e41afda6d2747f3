"""Modules, similarity, loss and metrics. Knows tensors only."""

from model.ce_net import CENet

__all__ = ["CENet"]
