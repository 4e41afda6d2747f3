"""Passes of a model on a GPU, replayed as CUDA graphs.

A step of CE launches 1,700 kernels of microseconds each, and the host takes four times as long to
launch them as the GPU to run them. A graph launches all of a pass at once. Its kernels are those
of the pass without graphs, in their order: numbers stay what they are.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from data_loader.batches import Batch

_log = logging.getLogger(__name__)

# Whole batches, and the smaller one at the end of an epoch. Each keeps gradients of its own.
_MOST_GRAPHS = 2

# Similarities of the captions and videos of a batch, in an epoch.
Compare = Callable[[Batch, int | Tensor], Tensor]


class GraphedPass:
    """Computes `compare` and its gradients by graphs, for sizes of batches that come again.

    Args:
        net: the model that `compare` embeds a batch with.
        compare: the pass; whatever changes from batch to batch comes to it as tensors.
        learned: gives what the pass learns besides the model's own parameters, as it is now.
        capture: makes graphs of a module's forward and backward pass.
    """

    def __init__(
        self,
        net: nn.Module,
        compare: Compare,
        learned: Callable[[], Sequence[nn.Parameter]] = tuple,
        capture: Callable[..., Any] = torch.cuda.make_graphed_callables,
    ) -> None:
        self._net = net
        self._compare = compare
        self._learned = learned
        self._capture = capture
        self._met: set[Any] = set()
        self._graphs: dict[Any, Callable[..., Tensor]] = {}
        self._is_possible = True

    def __call__(self, batch: Batch, epoch: int, needs_items: bool) -> Tensor:
        """Compare the captions of a batch on a GPU with its videos, (B C, B).

        Processes that share batches make graphs of the same batches: what they exchange is a part
        of them.

        Args:
            batch: the batch.
            epoch: of the training.
            needs_items: whether the pass looks at the epoch and at which videos these are.
        """
        items: tuple[Tensor, ...] = ()
        if needs_items:
            device = batch.text.device
            items = (
                batch.video_indices.to(device, non_blocking=True),
                torch.full((), epoch, device=device),
            )
        inputs = (batch.experts, batch.ind, batch.text, batch.text_token_mask, items)
        sizes = batch.whole.sizes if batch.whole else [len(batch.text)]
        size = (*sizes, batch.text.shape, *(x.shape for x in batch.experts.values()))
        size += tuple(map(id, self._learned()))
        if size in self._graphs:
            return self._graphs[size](*inputs)
        is_possible = self._is_possible and min(sizes) > 0
        if is_possible and size in self._met and len(self._graphs) < _MOST_GRAPHS:
            self._graph(size, batch, inputs)
            return self(batch, epoch, needs_items)
        self._met.add(size)  # its first pass also lets libraries choose their kernels
        return self._compare(batch, epoch)

    def _graph(self, size: Any, batch: Batch, inputs: tuple[Any, ...]) -> None:
        """Capture the pass of a size; the state of the model stays as it is."""
        before = [(buffer, buffer.clone()) for buffer in self._net.buffers()]
        own = torch.utils._pytree.tree_map(torch.clone, inputs)
        # A graph is captured on another stream than it is replayed on, as it has to be.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        try:
            self._graphs[size] = self._capture(
                _Pass(self._net, self._compare, batch, self._learned()),
                own,
                num_warmup_iters=1,
                allow_unused_input=True,
            )
        except RuntimeError as error:
            self._is_possible = False
            _log.warning("No graph could be made of a step, which takes longer so: %s", error)
        for buffer, value in before:
            buffer.copy_(value)


class _Pass(nn.Module):
    """The pass as a module of all parameters that it learns, which takes nothing but tensors."""

    def __init__(
        self, net: nn.Module, compare: Compare, batch: Batch, learned: Sequence[nn.Parameter]
    ) -> None:
        super().__init__()
        self.net, self.learned = net, nn.ParameterList(learned)
        self._compare = compare
        self._batch = batch

    def forward(
        self,
        experts: dict[str, Tensor],
        ind: dict[str, Tensor],
        text: Tensor,
        text_token_mask: Tensor,
        items: tuple[Tensor, ...],
    ) -> Tensor:
        batch = replace(
            self._batch, experts=experts, ind=ind, text=text, text_token_mask=text_token_mask
        )
        if not items:
            return self._compare(batch, 0)
        videos, epoch = items
        return self._compare(replace(batch, video_indices=videos), epoch)
