"""Modules, similarity, loss and metrics. Knows tensors only."""

from model.ce_net import CENet
from model.mnnet import MNNet

__all__ = ["CENet", "MNNet"]
