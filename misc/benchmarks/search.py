"""Measure how long a search of an index takes, and what memory it needs, on random embeddings.

python3 -m misc.benchmarks.search
python3 -m misc.benchmarks.search --videos 1000000 --sizes 256 256 256

The bandwidth of memory is the limit: each search reads all float16 embeddings once. Index files go
to a temporary folder; 100,000 videos of 7 x 768 take 3.3 GB.
"""

import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from misc.tools import tool_parser
from utils.command_line import run_main
from utils.errors import UserError

if TYPE_CHECKING:
    from misc.search.index.folder import Index
    from model.similarity import VideoEmbeddings

HEADS = (
    *("videos", "patterns", "float16, GB", "search, ms", "GB/s", "reading alone, ms"),
    *("compared in float32", "recall@10", "first, ms", "own memory, MB"),
)
LEGEND = """
One thread, processor time. Search: median of {queries} random queries (k = 10), the files in the
system's cache.
Reading alone: the sum of as many float16 numbers from memory. Recall: against comparing all videos
in float32. First: opening the index and its first search. Own memory: most that was resident and
not of mapped files, above that of an interpreter with torch."""


def main(arguments: list[str] | None = None) -> None:
    """Measure indexes of several sizes and print a table."""
    parser = tool_parser("benchmarks.search")
    parser.add_argument("--videos", metavar="N", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--sizes", metavar="D", type=int, nargs="+", default=[768] * 7)
    parser.add_argument(
        "--missing", type=float, default=0.0, help="share of videos that lack an expert (0)"
    )
    parser.add_argument("--queries", type=int, default=20)
    options = parser.parse_args(arguments)
    if min(options.videos) < 10 or min(options.sizes) < 1 or options.queries < 1:
        raise UserError("--videos takes numbers from 10, --sizes and --queries from 1.")
    if not 0 <= options.missing < 1:
        raise UserError(f"--missing is {options.missing}: a share from 0 and below 1 was expected.")
    from misc.benchmarks.__main__ import table

    rows = [measured(count, options) for count in options.videos]
    print(table(HEADS, rows))
    print(LEGEND.format(queries=options.queries))


def measured(count: int, options: Namespace) -> list[str]:
    """Build an index of random embeddings in a temporary folder and search it; returns a row."""
    import torch

    from misc.benchmarks.synthetic import temporary_folder
    from misc.search.index.folder import Index
    from misc.search.ranking import Question, best
    from model.similarity import TextEmbeddings, similarity_to

    torch.set_num_threads(1)
    sizes: list[int] = options.sizes
    folder = temporary_folder() / "index"
    write_random(folder, count, sizes, options.missing)
    rng = torch.Generator().manual_seed(1)

    def question() -> Question:
        parts = [torch.nn.functional.normalize(torch.randn(1, n, generator=rng)) for n in sizes]
        weights = torch.randn(1, len(sizes), generator=rng).softmax(dim=1)
        return Question(TextEmbeddings(tuple(parts), weights), torch.ones(1))

    held = _own_memory()
    started = time.perf_counter()
    index = Index(folder)
    best(index, question(), 10)
    first = time.perf_counter() - started
    times, compared, most, answers = [], [], 0, []
    for _ in range(options.queries):
        asked = question()
        started = time.process_time()
        found = best(index, asked, 10)
        times.append(time.process_time() - started)
        compared.append(found.compared)
        answers.append((asked, {*found.rows.tolist()}))
        most = max(most, _own_memory())
    right = total = 0
    for asked, rows in answers[:5]:
        exact = torch.cat([similarity_to(video)(asked.text)[0] for video in _all_videos(index)])
        right += len({*exact.topk(10).indices.tolist()} & rows)
        total += 10
    size = sum(group.half.nbytes for group in index.groups)
    seconds = statistics.median(times)
    reading = min(_seconds_of_reading(index) for _ in range(3))
    figures = [
        f"{size / 1e9:.2f}",
        f"{1e3 * seconds:.0f}",
        f"{size / seconds / 1e9:.1f}",
        f"{1e3 * reading:.0f}",
        f"{statistics.median(compared):.0f}",
        f"{right / total:.3f}",
        f"{1e3 * first:.0f}",
        f"{(most - held) / 1e6:.0f}",
    ]
    return [f"{count:,}", str(len(list(index.groups))), *figures]


def _all_videos(index: "Index") -> "Iterator[VideoEmbeddings]":
    for group in index.groups:
        for at in range(0, len(group), 1024):
            yield group.embeddings(slice(at, at + 1024), index.manifest.shape)


def write_random(folder: Path, count: int, sizes: list[int], missing: float) -> None:
    """Write an index of random embeddings of length 1."""
    import numpy as np
    import torch

    from misc.search.index.changing import changing
    from misc.search.index.manifest import Manifest
    from misc.search.index.parts import Shape, VideoFacts
    from misc.search.index.writing import write_part
    from model.similarity import VideoEmbeddings

    names = tuple(f"expert{number}" for number in range(len(sizes)))
    shape = Shape(names, tuple(sizes), weighted=True)
    rng = torch.Generator().manual_seed(0)
    there = (torch.rand(count, len(sizes), generator=rng) >= missing).float()

    def embed(places: np.ndarray) -> VideoEmbeddings:
        parts = (torch.randn(len(places), size, generator=rng) for size in sizes)
        normal = tuple(torch.nn.functional.normalize(part) for part in parts)
        return VideoEmbeddings(normal, there[torch.from_numpy(places)])

    ids, facts = [f"video{number}" for number in range(count)], [VideoFacts()] * count
    with changing(folder) as change:
        model, part = change.new("model"), change.new("part")
        write_part(part, shape, ids, facts, there.numpy(), embed, None)
        change.commit(Manifest("random", model.name, "", shape, (part.name,), "random"))


def _own_memory() -> int:
    """Bytes of this process that are resident and belong to no file."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def _seconds_of_reading(index: "Index") -> float:
    import torch

    started = time.process_time()
    for group in index.groups:
        flat = group.half.flatten()
        whole = flat[: len(flat) // 4 * 4].view(torch.int64)
        for some in whole.split(2**20):
            some.sum()
    return time.process_time() - started


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
