"""Time a training step that several processes share, beside that of one process.

python3 -m misc.benchmarks.processes --device cpu,cpu
python3 -m misc.benchmarks.processes --device 0,1,2,3 --precision bf16
torchrun --nproc_per_node 8 -m misc.benchmarks.processes

The step is that of MSRVTT's CE model (9 experts, 183M parameters) on random features. The first
process takes whole batches alone, while the others wait; then all take their parts, with and
without the exchange of gradients. On the CPU each process has one thread.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from misc.benchmarks.__main__ import table
from misc.benchmarks.synthetic import CONFIG
from misc.benchmarks.workloads import step_parts
from misc.tools import tool_parser
from trainer.processes.alone import ALONE, Processes
from trainer.processes.starting import processes_of
from utils.command_line import run_main, select_device
from utils.errors import UserError

HEADS = (
    "processes",
    "videos",
    "steps/s",
    "of one",
    "without exchange",
    "of one",
)
HEADS += "exchange, s", "exchanged, MB", "gathered, MB", "collectives"
PRECISIONS = ("float32", "tf32", "bf16")


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("benchmarks.processes")
    parser.add_argument(
        "--device", metavar="0,1", help='GPUs, or "cpu,cpu"; under torchrun as train.py has it'
    )
    parser.add_argument("--batch", type=int, default=64, help="videos of a whole batch")
    parser.add_argument("--steps", type=int, default=7, help="that are timed (default: 7)")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the sizes, for a try")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    if options.batch < 4 or options.steps < 1 or not 0 < options.scale <= 1:
        raise UserError("--batch takes a number from 4, --steps from 1, --scale one up to 1.")
    with processes_of(options.device, ["-m", "misc.benchmarks.processes"], given) as processes:
        if processes is ALONE:
            raise UserError("Say which processes: --device cpu,cpu or 0,1, or start with torchrun.")
        row = measured(processes, options)
        if processes.is_first:
            print(table(HEADS, [row]))


def measured(processes: Processes, options: Any) -> tuple[str, ...]:
    """Time the steps; all processes together."""
    import torch

    from data_loader.batches import Whole, shares_of
    from trainer.memory import keeping_freed_memory
    from trainer.processes.batches import SharedBatches

    device = torch.device(select_device(processes.own_device(options.device)))
    if device.type == "cpu":
        torch.set_num_threads(1)
    step, batch, _ = step_parts(options.scale, str(CONFIG), options.precision, plain=False)
    step.net.to(device)
    rows = torch.arange(options.batch) % len(batch.text)
    whole = batch.rows(rows)  # type: ignore[arg-type]  # indices do as well
    shares = shares_of(options.batch, processes.count)
    of = Whole(whole.video_indices, whole.caption_indices, shares, processes.rank)
    part = dataclasses.replace(whole.rows(slice(*_edges(of))), whole=of).to(device)
    counting = _counting(processes)
    shared = SharedBatches(step.net, step.loss, counting)
    alone_step = dataclasses.replace(step, shared=None)
    shared_step = dataclasses.replace(step, shared=shared)

    def timed(run: Callable[[], Any], together: bool) -> float:
        for _ in range(2):
            run()
        seconds = []
        for _ in range(options.steps):
            _finish(device)
            if together:
                processes.wait()
            started = time.perf_counter()
            run()
            _finish(device)
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    with keeping_freed_memory(device.type == "cpu"):
        alone = 0.0
        if processes.is_first:
            _use(step.net, None)
            on_device = whole.to(device)
            alone = timed(lambda: alone_step(on_device, 1), together=False)
            _use(step.net, counting)
        processes.wait()
        with shared_step.divided(options.batch):
            shared_step(part, 1)  # without a graph, which would hide what is exchanged
            gathered, added, collectives = counting.gathered, counting.added, counting.collectives
            with_exchange = timed(lambda: shared_step(part, 1), together=True)
            exchange = timed(shared.add_up_gradients, together=True)
            shared.add_up_gradients = lambda: None  # type: ignore[method-assign]
            without = timed(lambda: shared_step(part, 1), together=True)
        shared_step.free()
    return (
        *(f"{processes.count}", f"{options.batch}", f"{1 / with_exchange:.2f}"),
        *(f"{alone / with_exchange:.2f}", f"{1 / without:.2f}", f"{alone / without:.2f}"),
        *(f"{exchange:.3f}", f"{added / 1e6:.0f}", f"{gathered / 1e6:.2f}", f"{collectives}"),
    )


def _edges(of: Any) -> tuple[int, int]:
    rows = of.own_rows
    return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)


def _counting(processes: Processes) -> Any:
    """Return the same processes; they count what they gather of a step."""

    class Counting(type(processes)):  # type: ignore[misc]  # a group
        gathered = added = collectives = 0

        def gather(self, x: Any) -> Any:
            self.gathered += x.nbytes * self.count
            self.collectives += 1
            return super().gather(x)

        def exchange(self, x: Any, given: Any, taken: Any, most: Any) -> Any:
            self.gathered += x.itemsize * sum(taken)
            self.collectives += 1
            return super().exchange(x, given, taken, most)

        def sum(self, x: Any) -> Any:
            self.gathered += x.nbytes * self.count
            self.collectives += 1
            return super().sum(x)

        def sum_in_place(self, large: Any, small: Any) -> None:
            self.added += sum(x.nbytes for x in (*large, *small))
            super().sum_in_place(large, small)

    return Counting()


def _use(net: Any, exchange: Any) -> None:
    """Let batch normalisation take statistics from the processes, or (None) from its own rows."""
    from model.batch_norm import BatchNorm1d

    for module in net.modules():
        if isinstance(module, BatchNorm1d):
            module.exchange = exchange


def _finish(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
