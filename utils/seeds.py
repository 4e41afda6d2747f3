"""The global random state of Python, numpy and torch."""

import random

import numpy as np


def seed_everything(seed: int) -> None:
    """Seed the global random states, for a model's initial weights and for code of others.

    Our own draws do not use them: they come from generators of their own (`data_loader.draws`).

    Args:
        seed: from 0 to 2^32 - 1.
    """
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # GPUs included
