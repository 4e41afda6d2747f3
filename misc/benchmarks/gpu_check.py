"""Check on a GPU that it computes what the host computes, and that nothing waits for it.

python3 -m misc.benchmarks.gpu_check --device 0
python3 -m misc.benchmarks.gpu_check --device 0 --precision float32 bf16 --no_compile

A few minutes; one line for each check, and the exit code 2 where one fails. Twins of each kind of
model take the same steps on the host and on the GPU, in each precision, compiled, and continued
from a saved state. How fast a training of MSRVTT's size is, `misc.benchmarks.gpu` says.
"""

import copy
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist

from data_loader.batches import Batch, Whole, shares_of
from data_loader.sets.declared import ModelInputs
from misc.benchmarks.synthetic import CONFIG
from misc.tools import tool_parser
from model.collaborative_gating import GATINGS
from model.fast import compile_model
from model.ranks import blocks_of, compute_ranks
from trainer.build import build_loss, build_net, build_optimiser_of, inputs_of
from trainer.processes.batches import SharedBatches
from trainer.processes.group import Group
from trainer.step import PRECISIONS, TrainingStep, check_precision
from utils.command_line import run_main, select_device
from utils.config import Config
from utils.errors import UserError

SIZE, CLUSTERS = 64, {"text": 4, "audio": 2, "speech": 2, "ocr": 2}
BATCH, LAST_BATCH, STEPS = 16, 5, 8
# How far losses may be apart where products round their inputs, and where they do not.
NEAR = {"float32": 1e-4, "tf32": 1e-2, "bf16": 0.1}


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("benchmarks.gpu_check")
    parser.add_argument("--device", metavar="0", default="0", help='GPU, or "cpu" (default: 0)')
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=list(PRECISIONS))
    parser.add_argument("--no_compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args(arguments)
    device = torch.device(select_device(options.device))
    for precision in options.precision:
        check_precision(precision, device)
    checks = {f"{kind or 'MoEE'}": partial(twins, device, use_ce=kind) for kind in ("", *GATINGS)}
    for kind in ("RAdam", "Ranger", "Adam", "SGD"):
        checks[kind] = partial(twins, device, optimiser=kind)
    for precision in options.precision:
        checks[precision] = partial(twins, device, precision=precision)
        checks[f"{precision}, one of one process"] = partial(joined, device, precision)
        if not options.no_compile:
            checks[f"{precision}, compiled"] = partial(compiled, device, precision)
            checks[f"{precision}, compiled, one of one process"] = partial(
                joined, device, precision, is_compiled=True
            )
    checks |= {"continued": partial(continued, device), "ranks": partial(ranks, device)}
    failed = [name for name, check in checks.items() if not _passes(name, check)]
    if failed:
        raise UserError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}.")
    print(f"All {len(checks)} checks passed.")


def _passes(name: str, check: Callable[[], str]) -> bool:
    started = time.perf_counter()
    try:
        said, passes = check(), True
    except (AssertionError, RuntimeError) as error:
        said, passes = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", False
    mark = "ok    " if passes else "FAULT "
    print(f"{mark}{name}: {said} ({time.perf_counter() - started:.1f} s)", flush=True)
    return passes


@contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    """Context in which it is an error that the host waits for the GPU."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def make_parts(
    device: torch.device, use_ce: str, optimiser: str = "RAdam", precision: str = "float32"
) -> tuple[TrainingStep, Callable[[int], Batch]]:
    """Return a step of a small model with MSRVTT's experts, and what makes batches of a size."""
    config = Config.from_file(CONFIG).merged(
        {
            "arch": {"args": {"use_ce": use_ce, "vlad_clusters": CLUSTERS}},
            "experts": {"ce_shared_dim": SIZE},
            "optimizer": {"type": optimiser, "args": {"lr": 1e-3}},
        }
    )
    inputs = inputs_of(config)
    torch.manual_seed(0)
    net = build_net(config, inputs).train().to(device)
    step = TrainingStep(net, build_loss(config), build_optimiser_of(config, net), precision)
    return step, partial(make_batch, inputs)


def make_batch(inputs: ModelInputs, size: int) -> Batch:
    """Return random features of which every fifth is missing."""
    experts = {}
    for expert in inputs.experts:
        shape = (expert.max_tokens, expert.size) if expert.variable_length else (expert.size,)
        experts[expert.name] = torch.randn(size, *shape)
    words = inputs.max_text_tokens
    return Batch(
        experts=experts,
        ind={name: (torch.rand(size) < 0.8).float() for name in experts},
        text=torch.randn(size, 1, words, inputs.text_size),
        text_token_mask=torch.full((size, 1), float(words)),
        video_indices=torch.arange(size),
        caption_indices=torch.zeros(size, dtype=torch.int64),
    )


def twins(
    device: torch.device,
    use_ce: str = "pairwise",
    optimiser: str = "RAdam",
    precision: str = "float32",
) -> str:
    """Train on the host and on the device from the same weights with the same batches."""
    host, batch_of = make_parts(torch.device("cpu"), use_ce, optimiser)
    there, _ = make_parts(device, use_ce, optimiser, precision)
    apart = []
    for _ in range(STEPS):
        batch = batch_of(BATCH)
        moved = batch.to(device)
        expected, _ = host(batch, 1)
        with no_waits(device):
            found, _ = there(moved, 1)
        apart.append((expected - found.cpu()).abs().item())
    assert max(apart) < NEAR[precision], f"losses are {max(apart):.1e} apart"
    return f"losses {max(apart):.1e} apart, no waits"


def compiled(device: torch.device, precision: str) -> str:
    """Train compiled, with a smaller batch now and then as at the end of an epoch."""
    plain, batch_of = make_parts(device, "pairwise", precision=precision)
    fast, _ = make_parts(device, "pairwise", precision=precision)
    compile_model(fast.net)
    apart = []
    for number in range(STEPS):
        batch = batch_of(LAST_BATCH if number % 4 == 3 else BATCH).to(device)
        apart.append((plain(batch, 1)[0] - fast(batch, 1)[0]).abs().item())
    names = list(plain.net.state_dict()) == list(fast.net.state_dict())
    torch.compiler.reset()
    assert names, "compiled, the weights have other names"
    near = max(2e-3, NEAR[precision])
    assert max(apart) < near, f"losses are {max(apart):.1e} apart"
    return f"losses {max(apart):.1e} apart"


def joined(device: torch.device, precision: str, is_compiled: bool = False) -> str:
    """Train as the one process of a group (NCCL on a GPU), with all that several exchange."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        return _beside_one_alone(device, precision, is_compiled)
    finally:
        dist.destroy_process_group()


def _beside_one_alone(device: torch.device, precision: str, is_compiled: bool) -> str:
    plain, batch_of = make_parts(device, "pairwise", precision=precision)
    other, _ = make_parts(device, "pairwise", precision=precision)
    other = replace(other, shared=SharedBatches(other.net, other.loss, Group()))
    if is_compiled:
        compile_model(other.net, in_one_piece=False)
    apart = []
    with other.divided(BATCH):
        for number in range(STEPS):
            size = LAST_BATCH if number % 4 == 3 else BATCH
            batch = batch_of(size).to(device)
            whole = Whole(*batch.compared, shares_of(size, 1), 0)
            expected, _ = plain(batch, 1)
            # The first step meets the other processes, and compiles; the second makes a graph.
            with nullcontext() if number < 2 or is_compiled else no_waits(device):
                found, _ = other(replace(batch, whole=whole), 1)
            apart.append((expected - found).abs().item())
    graphs = len(other._graphed._graphs) if device.type == "cuda" else 0
    other.free()
    weights = zip(plain.net.parameters(), other.net.parameters(), strict=True)
    furthest = max((one - two).abs().max().item() for one, two in weights)
    if is_compiled:
        torch.compiler.reset()
    near = max(2e-3, NEAR[precision]) if is_compiled else NEAR[precision]
    assert max(apart) < near, f"losses are {max(apart):.1e} apart"
    said = f"losses {max(apart):.1e}, weights {furthest:.1e} apart, {graphs} graphs"
    return said if is_compiled else f"{said}, no waits"


def continued(device: torch.device) -> str:
    """Take a state up again: bit for bit the same step, which waits for nothing."""
    one, batch_of = make_parts(device, "pairwise", "Ranger")
    other, _ = make_parts(device, "pairwise", "Ranger")
    first, second = (batch_of(BATCH).to(device) for _ in range(2))
    one(first, 1)
    other.net.load_state_dict(one.net.state_dict())
    other.optimiser.load_state_dict(copy.deepcopy(one.optimiser.state_dict()))
    with no_waits(device):
        losses = [step(second, 1)[0] for step in (one, other)]
    assert torch.equal(*losses), "the continued step gives another loss"
    return "the same loss, no waits"


def ranks(device: torch.device) -> str:
    """Rank a matrix with many ties."""
    sims = torch.randn(3000, 1000).mul(50).round()
    masks = (torch.rand(1000, 3) < 0.8).float()
    masks[:, 0] = 1
    expected, found = (compute_ranks(blocks_of(s), masks) for s in (sims, sims.to(device)))
    same = torch.equal(expected.t2v, found.t2v) and torch.equal(expected.v2t, found.v2t)
    assert same, "the ranks are others"
    return "equal"


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
