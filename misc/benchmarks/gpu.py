"""Time a training of MSRVTT's CE model (9 experts, 183M parameters) on a GPU.

python3 -m misc.benchmarks.gpu --device 0
python3 -m misc.benchmarks.gpu --device 0 --epochs 20 --modes float32 bf16 bf16+compile

The features are random, of the real sizes: 6,513 training videos in batches of 64, and 497 videos
validated after each epoch. Prints a row of a Markdown table for each mode, and what bounds it: a
step cannot take less time than the GPU's memory needs to pass on the weights, gradients and
optimiser state.
"""

import json
import sys
import time
from pathlib import Path

import torch

from logger.log_file import open_log
from misc.benchmarks import synthetic
from misc.benchmarks.__main__ import table
from misc.tools import tool_parser
from trainer.build import build_net, count_parameters, inputs_of
from trainer.runs.folder import RunFolder
from trainer.session import Options, Training
from trainer.step import PRECISIONS, check_precision
from utils.command_line import run_main, select_device
from utils.config import Config
from utils.errors import UserError

TRAIN, VALIDATION = 6513, 497
# Forward and backward read the weights, backward writes the gradients; the update reads weights,
# gradients and two moments, and writes weights and moments.
PASSES = 10
MODES = [f"{precision}{more}" for precision in PRECISIONS for more in ("", "+compile")]
HEADS = "mode", "epochs", "seconds", "steps/s", "memory floor", "memory", "in all"


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("benchmarks.gpu")
    parser.add_argument("--device", metavar="0", default="0", help='GPU, or "cpu" (default: 0)')
    parser.add_argument("--epochs", type=int, default=100, help="default: 100")
    usual = ["float32", "tf32+compile", "bf16+compile"]
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=usual, help=f"default: {' '.join(usual)}"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="part of the sizes, for a try")
    options = parser.parse_args(arguments)
    if options.epochs < 1 or not 0 < options.scale <= 1:
        raise UserError("--epochs takes a number from 1, --scale one above 0 and up to 1.")
    device = torch.device(select_device(options.device))
    for mode in options.modes:
        check_precision(mode.partition("+")[0], device)
    train, validation = (max(4, round(n * options.scale)) for n in (TRAIN, VALIDATION))
    folder = synthetic.temporary_files(train, validation)
    with open_log(None):
        rows = [
            row(mode, make_config(folder, options.epochs, mode, options.scale), device)
            for mode in options.modes
        ]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}\n\n{table(HEADS, rows)}")


def make_config(folder: Path, epochs: int, mode: str, scale: float = 1.0) -> Config:
    """Return the published config on the data set of a folder, whose results stay there."""
    size = max(8, round(768 * scale))
    precision, _, more = mode.partition("+")
    return synthetic.config_of(folder, captions=1, size=size).merged(
        {
            "precision": precision,
            "compile": bool(more),
            "visualizer": {"args": {"vis_vid_freq": epochs + 1}},
            "trainer": {"epochs": epochs, "tensorboard": False},
        }
    )


def row(mode: str, config: Config, device: torch.device) -> tuple[str, ...]:
    """Train, and return the cells of the mode's row."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    training = Training.prepare(config, 0, Options(device=str(device)))
    with RunFolder.new(Path(config["trainer.save_dir"]), mode) as folder:
        training.run(folder)
    whole = time.perf_counter() - started
    del training
    epochs = json.loads((folder.log / "metrics.json").read_text())["epochs"]
    # The first epoch compiles kernels and fills caches: the rate is that of the others.
    steady = [epoch["steps_per_second"] for epoch in epochs[1:] or epochs]
    rate = sum(steady) / len(steady)
    floor = floor_of_a_step(config, device) if on_gpu else None
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if on_gpu else None
    return (
        mode,
        f"{len(epochs)}",
        f"{sum(epoch['seconds'] for epoch in epochs):.1f}",
        f"{rate:.1f}",
        f"{100 * floor * rate:.0f} % of {1000 * floor:.2f} ms" if floor else "-",
        f"{peak:.1f} GB" if peak else "-",
        f"{whole:.1f} s",
    )


def floor_of_a_step(config: Config, device: torch.device) -> float:
    """Seconds that the memory needs for `PASSES` over the parameters, at its measured speed."""
    net = build_net(config, inputs_of(config))
    source = torch.empty(2**28, device=device)  # 1 GiB
    target = torch.empty_like(source)
    target.copy_(source)
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(10):
        target.copy_(source)
    torch.cuda.synchronize(device)
    bytes_per_second = 10 * 2 * source.nbytes / (time.perf_counter() - started)
    return PASSES * 4 * count_parameters(net) / bytes_per_second


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
