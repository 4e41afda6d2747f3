"""Plot how evaluation grows with the number of videos, and a training step with experts.

python3 -m misc.benchmarks.growth --most_videos 1000000 --most_experts 16

Prints the figures as tables and draws them (needs requirements/benchmark-requirements.txt). Each
is measured in a process of its own with one thread; times are seconds of processor time.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from logger.progress import progress
from misc.benchmarks.__main__ import table
from misc.benchmarks.measure import Figures, Job, WorkError, measure
from misc.tools import tool_parser
from utils.command_line import run_main
from utils.errors import UserError
from utils.files import make_folder, replacing

FOLDER = Path(__file__).resolve().parent / "plots"
FEWEST_VIDEOS, FEWEST_EXPERTS = 1000, 2
# Small embeddings, so that those of a million videos fit in memory: 9 experts of 32 numbers.
EXPERTS, EMBEDDING_SIZE = 9, 32
# More pairs than this are not all compared: a part of the blocks is, and the time extrapolated.
MOST_PAIRS = 2**30
SHARED_SIZE, BATCH_SIZE, WORDS, TEXT_CLUSTERS = 768, 64, 37, 28
_OURS, _OTHER, _GUIDE = "#1f5a96", "#b3541e", "#888888"


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("benchmarks.growth")
    parser.add_argument("--most_videos", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--most_experts", type=int, default=16, metavar="M")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the plots go")
    options = parser.parse_args(arguments)
    if options.most_videos < FEWEST_VIDEOS or options.most_experts < FEWEST_EXPERTS:
        raise UserError(f"At least {FEWEST_VIDEOS} videos and {FEWEST_EXPERTS} experts are needed.")
    try:
        import matplotlib  # noqa: F401 (found to be missing before anything is measured)
    except ImportError as error:
        raise UserError(
            "The plots need matplotlib: pip install -r requirements/benchmark-requirements.txt"
        ) from error
    make_folder(options.folder)
    videos = video_counts(options.most_videos)
    found = [_figures("growth.evaluation", num_videos=n) for n in progress(videos)]
    draw_evaluation(videos, found, options.folder / "growth-evaluation.png")
    heads = ("videos", "cpu-s", "ns a pair", "embeddings, GB", "memory besides, GB")
    rows = [
        (
            f"{n:,}",
            f"{'' if f.part == 1 else '≈ '}{f.cpu_seconds:,.3g}",
            f"{1e9 * f.cpu_seconds / n**2:.1f}",
            f"{_embeddings(n):.3f}",
            f"{_besides(f):.3f}",
        )
        for n, f in zip(videos, found, strict=True)
    ]
    print(table(heads, rows))
    experts = range(FEWEST_EXPERTS, options.most_experts + 1, 2)
    found = [_figures("growth.step", num_experts=n) for n in progress(experts)]
    draw_step(experts, found, options.folder / "growth-experts.png")
    rows = [
        (
            f"{n}",
            f"{f.facts['parameters'] / 1e6:.1f}M",
            f"{f.cpu_seconds:.3g}",
            f"{f.peak_bytes / 1e9:.2f}",
        )
        for n, f in zip(experts, found, strict=True)
    ]
    print()
    print(table(("experts", "parameters", "cpu-s", "memory, GB"), rows))


def video_counts(most: int) -> list[int]:
    """Return 1,000, then twice as many each time, and the most."""
    counts = [FEWEST_VIDEOS]
    while 2 * counts[-1] < most:
        counts.append(2 * counts[-1])
    return sorted({*counts, most})


def _figures(function: str, **settings: int) -> Figures:
    [found] = measure(function, settings)
    if isinstance(found, WorkError):
        raise UserError(f"{function} with {settings} cannot be measured: {found}")
    return found


class _EnoughError(Exception):
    """Ends a pass over the blocks before its end."""


def evaluation(num_videos: int) -> Job:
    """Walk twice over the blocks of a matrix that is never there as a whole, and rank."""
    import torch

    from model.ranks import rank_captions, rank_videos
    from model.similarity import TextEmbeddings, VideoEmbeddings, similarity_to
    from trainer.evaluation.evaluate import QUERIES_PER_BLOCK, similarity_blocks

    generator = torch.Generator().manual_seed(0)
    shape = (num_videos, EMBEDDING_SIZE)
    video = VideoEmbeddings(
        tuple(torch.randn(shape, generator=generator) for _ in range(EXPERTS)),
        (torch.rand(num_videos, EXPERTS, generator=generator) < 0.8).float(),
    )
    masks = torch.ones(num_videos, 1)
    blocks_of_all = -(-num_videos // QUERIES_PER_BLOCK)
    compared = min(blocks_of_all, -(-MOST_PAIRS // (num_videos * QUERIES_PER_BLOCK)))
    part = min(1.0, compared * QUERIES_PER_BLOCK / num_videos)

    def captions() -> Iterator[Any]:
        """Make random embeddings block by block, the same in each pass."""
        for number in range(blocks_of_all):
            if number == compared:
                raise _EnoughError
            start = number * QUERIES_PER_BLOCK
            generator = torch.Generator().manual_seed(1 + start)
            shape = (min(QUERIES_PER_BLOCK, num_videos - start), EMBEDDING_SIZE)
            embeddings = tuple(torch.randn(shape, generator=generator) for _ in range(EXPERTS))
            weights = torch.rand(shape[0], EXPERTS, generator=generator).softmax(dim=1)
            yield torch.ones(shape[0], dtype=torch.bool), TextEmbeddings(embeddings, weights)

    def rank() -> None:
        with torch.inference_mode():
            compare = similarity_to(video)

            def blocks() -> Iterator[Any]:
                return similarity_blocks(captions(), compare, num_videos)

            best_own = torch.zeros(num_videos)  # of a pass that does not come to its end
            with suppress(_EnoughError):
                _, best_own = rank_videos(blocks, masks)
            with suppress(_EnoughError):
                rank_captions(blocks, masks, best_own)

    return Job(rank, repeats=1, warmups=0, part=part)


def step(num_experts: int) -> Job:
    """A training step of CE, batch 64: experts of one vector, captions of words."""
    import torch

    from model.ce_net import CENet
    from model.loss import MaxMarginRankingLoss
    from trainer.memory import keeping_freed_memory
    from trainer.optimisation.optimisers import build_optimiser

    torch.manual_seed(0)
    names = [f"expert{number:02}" for number in range(num_experts)]
    net = CENet(
        expert_dims=dict.fromkeys(names, (SHARED_SIZE, SHARED_SIZE)),
        text_dim=SHARED_SIZE,
        vlad_clusters={"text": TEXT_CLUSTERS},
        ghost_clusters={"text": 1},
        use_ce="pairwise",
    )
    loss = MaxMarginRankingLoss(margin=0.2)
    optimiser = build_optimiser("Ranger", {"lr": 1e-4, "weight_decay": 1e-5}, net)
    experts = {name: torch.randn(BATCH_SIZE, SHARED_SIZE) for name in names}
    ind = dict.fromkeys(names, torch.ones(BATCH_SIZE))
    text = torch.randn(BATCH_SIZE, 1, WORDS, SHARED_SIZE)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(net(experts=experts, ind=ind, text=text)["cross_view_conf_matrix"]).backward()
        optimiser.step()

    parameters = sum(p.numel() for p in net.parameters())
    return Job(run, during=keeping_freed_memory(), facts={"parameters": parameters})


def _embeddings(videos: int) -> float:
    return videos * EXPERTS * EMBEDDING_SIZE * 4 / 1e9


def _besides(figures: Figures) -> float:
    return (figures.peak_bytes - figures.held_bytes) / 1e9


def draw_evaluation(videos: Sequence[int], found: Sequence[Figures], path: Path) -> None:
    """Draw time and memory over the number of videos."""
    with _two_plots("Evaluation", path, xlabel="videos (1 caption each)", xscale="log") as (
        time,
        memory,
    ):
        measured = [(n, f) for n, f in zip(videos, found, strict=True) if f.part == 1]
        rest = [(n, f) for n, f in zip(videos, found, strict=True) if f.part < 1]
        for points, fill, label in (
            (measured, _OURS, "measured (all pairs)"),
            (rest, "white", "extrapolated (from a part of the captions)"),
        ):
            x, y = [n for n, _ in points], [f.cpu_seconds for _, f in points]
            time.plot(x, y, "o", color=_OURS, markerfacecolor=fill, label=label, zorder=3)
        last, figures = (measured or rest)[-1]
        guide = [figures.cpu_seconds * (n / last) ** 2 for n in videos]
        time.plot(videos, guide, "--", color=_GUIDE, label="linear in pairs")
        time.set(yscale="log")
        sizes, added = [_embeddings(n) for n in videos], [_besides(f) for f in found]
        memory.plot(videos, sizes, "s--", color=_OTHER, label="the videos' embeddings")
        memory.plot(videos, added, "o-", color=_OURS, label="all other memory while ranking")
        matrix = [4 * n**2 / 1e9 for n in videos]
        memory.plot(videos, matrix, ":", color=_GUIDE, label="the similarity matrix, never held")
        memory.set(ylim=(0, 1.25 * max(sizes + added)))


def draw_step(experts: Sequence[int], found: Sequence[Figures], path: Path) -> None:
    """Draw time and memory of a training step over the number of experts."""
    with _two_plots("Training step of CE, batch 64", path, xlabel="experts") as (time, memory):
        time.plot(experts, [f.cpu_seconds for f in found], "o-", color=_OURS, label="measured")
        memory.plot(
            experts, [f.peak_bytes / 1e9 for f in found], "o-", color=_OURS, label="process"
        )
        # Five numbers a parameter: itself, its gradient, two moments, Lookahead's slow weight.
        state = [20 * f.facts["parameters"] / 1e9 for f in found]
        label = "weights, gradients and the optimiser's state"
        memory.plot(experts, state, "--", color=_GUIDE, label=label)
        for axes in (time, memory):
            axes.set(ylim=(0, None))


@contextmanager
def _two_plots(title: str, path: Path, **axes: str) -> Iterator[Any]:
    """Give axes for time and for memory, and write the picture when they are filled."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(9.0, 3.8), dpi=110, layout="constrained")
        both = figure.subplots(1, 2)
        for one, what, unit in zip(both, ("time", "memory"), ("cpu-seconds", "GB"), strict=True):
            one.set(title=f"{title}: {what}", ylabel=unit, **axes)
        yield both
        for one in both:
            one.legend()
        with replacing(path) as handle:
            figure.savefig(handle, format="png", metadata={"Software": None})


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
