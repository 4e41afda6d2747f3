"""Reads thousands of damaged files, in a process with little memory; run by test_formats_fuzz.py.

python3 -m tests.fuzz_formats FOLDER COUNT FILE...: writes each FILE (a key of
`every_format.WRITERS`), damages it COUNT times, prints how many were accepted and refused, and
fails on anything else.
"""

import faulthandler
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_loader import apart, formats, mat_file
from data_loader.errors import UserError
from tests.every_format import WRITERS, ragged

SECONDS = 20
MEMORY = 300 << 20
HDF5 = ("e.hickle", "four.hickle", "e.h5", "grouped.h5", "seven.mat")


def main(folder: Path, count: int, names: list[str]) -> None:
    np.seterr(all="ignore")
    faulthandler.dump_traceback_later(SECONDS * 6, exit=True)
    formats.read_apart = mat_file.read_apart = lambda reader, path: apart.readers()[reader](path)
    used = apart.memory_in_use()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in names:
        outcomes = read_damaged(folder, name, count)
        sys.stdout.write(f"{name} {dict(outcomes)}\n")
        assert set(outcomes) <= {"accepted", "refused", "crashed"}
        assert outcomes["refused"] > count // 3
        # The HDF5 library crashes once in thousands of files, which `apart` is there for.
        assert outcomes["crashed"] <= (count // 100 if name in HDF5 else 0)


def read_damaged(folder: Path, name: str, count: int) -> Counter[str]:
    table = ragged(np.random.default_rng(0), [f"v{number}" for number in range(7)], 3, most=4)
    WRITERS[name](folder / name, table)
    damaged = folder / name
    if damaged.is_dir():
        damaged = sorted(damaged.glob("*.npy"))[0]
    whole = damaged.read_bytes()
    # A process of its own for each file would take minutes; forks of this one do the same.
    read = in_a_fork if name in HDF5 else outcome_of
    rng = np.random.default_rng(5)
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        damaged.write_bytes(damage(whole, rng))
        outcomes[read(folder / name)] += 1
    return outcomes


def damage(whole: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(whole)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(max(1, len(data))))
        kinds: list[Callable[[], object]] = [
            lambda at=at: data.__setitem__(slice(at, at + 1), rng.bytes(1)),
            lambda at=at: data.__delitem__(slice(at, at + int(rng.integers(1, 9)))),
            lambda at=at: data.__setitem__(slice(at, at), rng.bytes(int(rng.integers(1, 9)))),
            lambda at=at: data.__setitem__(slice(at, at + 4), b"\xff\xff\xff\x7f"),
            lambda at=at: data.__setitem__(slice(at, at + 8), b"\xff" * 8),
            lambda at=at: data.__setitem__(slice(at, at + 4), rng.bytes(4)),
            lambda at=at: data.__delitem__(slice(at, None)),
        ]
        kinds[int(rng.integers(len(kinds)))]()
    return bytes(data)


def outcome_of(path: Path) -> str:
    try:
        table = formats.read_feature_file(path)
    except UserError as error:
        if isinstance(error.__cause__, MemoryError):
            return "asked for too much memory"
        return "refused" if str(path) in str(error) else "does not name the file"
    arrays = [value for value in table.values() if value is not None]
    plain = all(isinstance(value, np.ndarray) and value.dtype.kind in "fiub" for value in arrays)
    return "accepted" if plain else "gave something else than arrays"


def in_a_fork(path: Path) -> str:
    answers = ["accepted", "refused", "asked for too much memory"]
    child = os.fork()
    if not child:
        # The default action ends even a loop inside the library.
        signal.alarm(SECONDS)
        answer = outcome_of(path)
        os._exit(answers.index(answer) if answer in answers else 9)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "took too long" if os.WTERMSIG(status) == signal.SIGALRM else "crashed"
    code = os.WEXITSTATUS(status)
    # The library's own hunger meets the limit that `apart` sets, and is refused there.
    return "failed" if code > 2 else "refused" if code == 2 else answers[code]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
