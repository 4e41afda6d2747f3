"""One training step: forward, loss, backward, update; nothing in it waits for the device."""

import gc
import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from data_loader.batches import Batch
from model.fast import products_by, rounding_to_tf32
from model.similarity import RetrievalModel, TextEmbeddings, VideoEmbeddings
from trainer.distillation import Distillation
from trainer.graphs import GraphedPass
from trainer.processes.batches import SharedBatches
from trainer.recipe.accumulation import accumulate_gradients, split_batch
from trainer.recipe.recipe import Recipe
from utils.errors import UserError

_log = logging.getLogger(__name__)

PRECISIONS = ("float32", "tf32", "bf16")

# The first GPUs with products of bfloat16 and tf32 (Ampere).
_CAPABLE = (8, 0)
# Processors on which torch's matrix products of bfloat16 have no instructions to use.
_WITHOUT_BFLOAT16 = ("DEFAULT", "AVX2")


@dataclass(frozen=True)
class TrainingStep:
    """What a step is made of.

    Attributes:
        net: the model, in training mode.
        loss: of a square similarity matrix.
        optimiser: updates the model's parameters.
        precision: one of `PRECISIONS`, see `computing_in` and `matrix_products_in`.
        distillation: the teachers, for a student of TeachText.
        recipe: what is done beyond the published step.
        shared: how several processes learn from one batch.
    """

    net: RetrievalModel
    loss: nn.Module
    optimiser: Optimizer
    precision: str = "float32"
    distillation: Distillation | None = None
    recipe: Recipe = field(default_factory=Recipe)
    shared: SharedBatches | None = None

    def __call__(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Learn from a batch on the model's device.

        Returns:
            The loss, and the part of it that is the distance from the teachers; both without graph,
            on the device.
        """
        self.optimiser.zero_grad(set_to_none=True)
        products = products_by(self.net.products)
        with matrix_products_in(self.precision), products, self._sharing(batch):
            if self.recipe.accumulate > 1:
                loss, distance = self._in_parts(batch, epoch)
            else:
                sims = self._compare(batch, epoch)
                loss, distance = self._objective(sims, batch, epoch)
                loss.backward()
        if self.shared:
            self.shared.add_up_gradients()
        total_norm = self.shared.total_norm if self.shared else nn.utils.get_total_norm
        self.recipe.update(self.net, self.optimiser, total_norm)
        return loss.detach(), None if distance is None else distance.detach()

    def divided(self, videos: int, captions: int = 1) -> AbstractContextManager[None]:
        """Context of steps, in batches of so many videos with so many captions each.

        Several processes share out layers in it; after it each has the whole model, and all that
        the optimiser knows.
        """
        if self.shared is None:
            return nullcontext()
        copies = [self.recipe.average.net] if self.recipe.average else []
        return self.shared.divided(self.optimiser, videos, captions, copies)

    def _sharing(self, batch: Batch) -> AbstractContextManager[None]:
        return self.shared.sharing(batch) if self.shared else nullcontext()

    def _compare(self, batch: Batch, epoch: int) -> Tensor:
        if batch.text.device.type != "cuda":
            return self._pass(batch, epoch)
        return self._graphed(batch, epoch, needs_items=bool(self.recipe.dropout))

    def free(self) -> None:
        """Free what graphs and parts of layers keep of a device's memory, after the last step."""
        if self.shared:
            self.shared.forget_columns()
        if self.__dict__.pop("_graphed", None):
            gc.collect()  # they lie in circles, and a group of processes ends only without them

    def _pass(self, batch: Batch, epoch: int | Tensor) -> Tensor:
        with self.recipe.dropping(self.net, batch, epoch) as left:
            return self.similarities(left)

    @cached_property
    def _graphed(self) -> GraphedPass:
        learned = self.shared.learned_apart if self.shared else tuple
        return GraphedPass(self.net, self._pass, learned)

    def _objective(self, sims: Tensor, batch: Batch, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Loss of the similarities (B C, B) of C captions a video: the mean over one of each."""
        num_captions = batch.text.shape[1]
        losses, distances = [], []
        for place in range(num_captions):
            block = sims if num_captions == 1 else sims[place::num_captions]
            losses.append(self.loss(block))
            if self.distillation:
                of_one = batch.with_caption(place)
                distances.append(self.distillation.loss(block, of_one, epoch))
        loss, distance = _mean(losses), _mean(distances) if distances else None
        return (loss if distance is None else loss + distance), distance

    def _in_parts(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor | None]:
        """Add to the gradients what a batch gives that goes through the model in parts."""
        made: list[tuple[Tensor, Tensor | None]] = []

        def backward(sims: Tensor) -> None:
            made.append(self._objective(sims, batch, epoch))
            made[0][0].backward()

        def encode(part: Batch) -> tuple[TextEmbeddings, VideoEmbeddings]:
            with self._sharing(part), self.recipe.dropping(self.net, part, epoch) as left:
                return self._embed(left)

        parts = split_batch(batch, self.recipe.accumulate)
        accumulate_gradients(self.net, parts, encode, backward, self.net.compare)
        return made[0]

    def _embed(self, batch: Batch) -> tuple[TextEmbeddings, VideoEmbeddings]:
        with computing_in(self.precision, batch.text.device):
            text = self.net.encode_text(batch.text, batch.text_token_mask)
            return text, self.net.encode_video(batch.experts, batch.ind)

    def similarities(self, batch: Batch) -> Tensor:
        """Compare the captions of a batch with its videos, (B C, B)."""
        if batch.text.shape[1] > 1:  # the model itself would give their mean
            return self.net.compare(*self._embed(batch))
        with computing_in(self.precision, batch.text.device):
            output = self.net(
                experts=batch.experts,
                ind=batch.ind,
                text=batch.text,
                text_token_mask=batch.text_token_mask,
            )
        return output["cross_view_conf_matrix"]


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean()


def sum_of(values: list[Tensor]) -> float:
    """Add up at least one scalar: here the host waits for the device."""
    return torch.stack(values).double().sum().item()


def computing_in(precision: str, device: torch.device) -> AbstractContextManager:
    """Context in which a training step runs the model forward: "float32", "tf32" or "bf16".

    Weights, statistics, similarities and losses are float32 in each case; with "bf16" the matrix
    products of the model are bfloat16. Evaluation always is float32: a checkpoint's metrics do not
    depend on how it was trained.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def matrix_products_in(precision: str) -> AbstractContextManager:
    """Context of a whole step: with "tf32", float32 products keep 10 bits of the mantissa on a GPU.

    Those of similarities, and of teachers, are float32 all the same. On the CPU "tf32" is float32.
    """
    return rounding_to_tf32(precision == "tf32")


def has_bfloat16() -> bool:
    """Whether this processor has instructions for matrix products of bfloat16."""
    return torch.backends.cpu.get_cpu_capability() not in _WITHOUT_BFLOAT16


def warn_if_slow(precision: str, device: torch.device) -> None:
    """Say so where a precision makes a training slower instead of faster."""
    if precision == "bf16" and device.type == "cpu" and not has_bfloat16():
        _log.warning(
            "precision bf16: this processor has no instructions for bfloat16, a step will take "
            "many times as long as with float32."
        )


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that a GPU cannot compute in.

    Raises:
        UserError: says what the GPU is, and what it can do.
    """
    if precision == "float32" or device.type != "cuda":
        return
    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABLE:
        raise UserError(
            f'precision "{precision}" needs a GPU of compute capability 8.0 (Ampere) or later, but '
            f"{torch.cuda.get_device_name(device)} has {'.'.join(map(str, capability))}: set "
            'precision to "float32".'
        )
