"""What a training may do beyond the published one: every part of it is off unless a config asks.

Each key of the config's `trainer` section here changes one place of a step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from data_loader.batches import Batch
from model.dropout import Dropout
from model.similarity import RetrievalModel
from trainer.recipe.averaging import MovingAverage


@dataclass
class Recipe:
    """The parts of a step that a config may add.

    Attributes:
        clip_norm: the longest that all gradients together may be; None: as long as they are.
        accumulate: the parts in which a batch goes through the model (`accumulation`).
        dropout: what is dropped of experts and captions.
        average: the moving average of the weights, which is evaluated and saved in their place.
        average_best: the best epochs whose weights are averaged at the end; 1: no others.
        measures_gradients: take down the length of the next steps' gradients; clipping does always.
        gradient_norm: the length that was taken down last, before clipping, on the device.
    """

    clip_norm: float | None = None
    accumulate: int = 1
    dropout: Dropout = field(default_factory=Dropout)
    average: MovingAverage | None = None
    average_best: int = 1
    measures_gradients: bool = False
    gradient_norm: Tensor | None = None

    @classmethod
    def of(cls, section: Mapping[str, Any], net: RetrievalModel, seed: int) -> "Recipe":
        """Read the config's `trainer` section.

        Args:
            section: the section.
            net: the model, with the weights that its training begins with.
            seed: of the run.
        """
        decay = section.get("ema")
        return cls(
            clip_norm=section.get("clip_norm"),
            accumulate=section.get("accumulate", 1),
            dropout=Dropout(**section.get("dropout", {}), seed=seed),
            average=MovingAverage(net, decay) if decay else None,
            average_best=section.get("average_best", 1),
        )

    @contextmanager
    def dropping(self, net: RetrievalModel, batch: Batch, epoch: int | Tensor) -> Iterator[Batch]:
        """Within this context the model drops what the items of a batch lose; gives the batch.

        Whole experts are taken from the batch itself.
        """
        if not self.dropout:
            yield batch
            return
        items = batch.video_indices.to(batch.text.device, non_blocking=True)
        net.dropout = self.dropout.pooled(items, epoch)
        try:
            yield replace(batch, ind=self.dropout.availability(batch.ind, items, epoch))
        finally:
            net.dropout = None

    def update(
        self,
        net: nn.Module,
        optimiser: Optimizer,
        total_norm: Callable[[Sequence[Tensor]], Tensor],
    ) -> None:
        """Move the weights by their gradients, whose length `total_norm` gives."""
        if self.clip_norm or self.measures_gradients:
            learned = [p for group in optimiser.param_groups for p in group["params"]]
            gradients = [p.grad for p in learned if p.grad is not None]
            self.gradient_norm = total_norm(gradients).detach()
            if self.clip_norm:
                nn.utils.clip_grads_with_norm_(learned, self.clip_norm, self.gradient_norm)
        optimiser.step()
        if self.average:
            self.average.update(net)

    def evaluated(self, net: RetrievalModel) -> RetrievalModel:
        """Return the model that is evaluated and saved: the averaged one, if there is one."""
        return self.average.net if self.average else net
