"""One training step: forward, loss, backward, update; nothing in it waits for the device."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from data_loader.batches import Batch
from trainer.distillation import Distillation
from trainer.precision import computing_in, matrix_products_in


@dataclass(frozen=True)
class TrainingStep:
    """What a step is made of.

    Attributes:
        net: the model, in training mode.
        loss: of a square similarity matrix.
        optimiser: updates the model's parameters.
        precision: see `trainer.precision`.
        distillation: the teachers, for a student of TeachText.
    """

    net: nn.Module
    loss: nn.Module
    optimiser: Optimizer
    precision: str = "float32"
    distillation: Distillation | None = None

    def __call__(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Learn from a batch on the model's device.

        Returns:
            The loss, and the part of it that is the distance from the teachers; both without graph,
            on the device.
        """
        self.optimiser.zero_grad(set_to_none=True)
        with matrix_products_in(self.precision):
            sims = self.similarities(batch)
            loss, distance = self.loss(sims), None
            if self.distillation:
                distance = self.distillation.loss(sims, batch, epoch)
                loss = loss + distance
            loss.backward()
        self.optimiser.step()
        return loss.detach(), None if distance is None else distance.detach()

    def similarities(self, batch: Batch) -> Tensor:
        """Compare the captions of a batch with its videos, (B, B)."""
        with computing_in(self.precision, batch.text.device):
            output = self.net(
                experts=batch.experts,
                ind=batch.ind,
                text=batch.text,
                text_token_mask=batch.text_token_mask,
            )
        return output["cross_view_conf_matrix"]


def sum_of(values: list[Tensor]) -> float:
    """Add up at least one scalar: here the host waits for the device."""
    return torch.stack(values).double().sum().item()
