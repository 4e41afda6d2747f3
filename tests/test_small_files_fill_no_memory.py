"""A small pickle that repeats, copies or nests what it holds is refused before it fills the memory.

Neither the process nor the limited one that reads for it takes a gigabyte.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoint_files import CONTAINERS
from tests.conftest import ROOT

LENGTH = 400_000
TIMES = 3000

READ = """
import sys, traceback
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from utils.errors import UserError
from data_loader.formats.read import read_feature_file
from trainer.checkpoints.checkpoint import load_checkpoint

def read(path):
    try:
        (load_checkpoint if path.suffix == ".pth" else read_feature_file)(path)
    except UserError as error:
        return str(path) in str(error)
    except BaseException:
        traceback.print_exc()
    return False

for path in map(Path, sys.argv[1:]):
    if not read(path):
        print(path.name, flush=True)
# Its own maximum as getrusage tells it would be that of the process that started it.
[own] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(max(getrusage(RUSAGE_CHILDREN).ru_maxrss, int(own)) >> 20)
"""


def name(full: str) -> bytes:
    module, _, last = full.rpartition(".")
    return b"c" + f"{module}\n{last}\n".encode()


def called(full: str) -> bytes:
    """The call of a function with what is remembered under 0."""
    return name(full) + b"h\x00\x85R"


NONES = b"(" + b"N" * LENGTH + b"tq\x00"
LISTED = b"(" + b"N" * LENGTH + b"lq\x00"
BYTES = b"B" + LENGTH.to_bytes(4, "little") + b"x" * LENGTH + b"q\x00"
TEXT = b"X" + LENGTH.to_bytes(4, "little") + b"x" * LENGTH + b"q\x00"
SHORTS = [b"M" + number.to_bytes(2, "little") for number in range(1 << 16)]
PAIRS = b"(" + b"N\x86".join(SHORTS) + b"N\x86lq\x00"
NUMBERS = b"(" + b"".join(b"J" + n.to_bytes(4, "little") for n in range(1 << 17)) + b"tq\x00"
TABLE = b"}(" + b"K\x00".join(SHORTS) + b"K\x00uq\x00"
DTYPE = name("numpy.dtype") + b"U\x02O8K\x00K\x01\x87R(K\x03U\x01|NNNK\x00K\x00K?tb"
ARRAY = name("numpy.core.multiarray._reconstruct") + name("numpy.ndarray") + b"K\x00\x85U\x01b\x87R"
OBJECTS = ARRAY + b"(K\x01J" + LENGTH.to_bytes(4, "little") + b"\x85h\x01\x89h\x00tb"
FEATURES = {
    "list": (NONES, called("builtins.list")),
    "set": (NUMBERS, called("builtins.set")),
    "OrderedDict of pairs": (PAIRS, called("collections.OrderedDict")),
    "encode": (TEXT, called("_codecs.encode")),
    "byte string as a key": (BYTES, b"}h\x00Ns"),
    "byte string as a text": (BYTES, b"h\x00" * 1000),
    "arrays of one list": (LISTED + b"0" + DTYPE + b"q\x01", OBJECTS),
    "stores of one table": (
        TABLE,
        name("copyreg._reconstructor")
        + name("datastructures.ExpertStore")
        + name("builtins.object")
        + b"N\x87R}(U\x06keymaph\x00U\x05storeNub",
    ),
    "members added": (b"Nq\x00", b"\x8f(" + b"".join(SHORTS[:300]) + b"\x90"),
    "empty lists": (b"Nq\x00", b"]" * 1000),
    "empty dictionaries": (b"Nq\x00", b"}" * 1000),
    "tuples": (b"Nq\x00", b"N\x85" * 1000),
    "numbers": (b"Nq\x00", b"J\x01\x02\x03\x04" * 1000),
    "nothing": (b"Nq\x00", b"N" * 4000),
    "bytes without length": (b"Nq\x00", b"C\x00" * 1000),
    "gaps in the memo": (b"Nr\xff\xff\xff\x03", b"N"),
    "memo": (b"Nq\x00", b"\x94" * 4000),
}
CHECKPOINTS = {
    "OrderedDict": (PAIRS, called("collections.OrderedDict")),
    "list": FEATURES["list"],
    "set": FEATURES["set"],
    "encode": FEATURES["encode"],
    "copies of attributes": (
        TABLE,
        name("copyreg._reconstructor")
        + name("argparse.Namespace")
        + name("builtins.object")
        + b"N\x87Rh\x00b",
    ),
    "paths": (TEXT, called("pathlib.PosixPath")),
    "arrays of one list": FEATURES["arrays of one list"],
    "empty lists": FEATURES["empty lists"],
}


def pickle_of(start: bytes, again: bytes) -> bytes:
    """A list of what `start` makes and of `TIMES` things that `again` makes."""
    return b"\x80\x02(" + start + again * TIMES + b"l."


def badly_read(paths: list[Path]) -> str:
    """Name the files that were accepted, or took too much."""
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    *names, gigabytes = done.stdout.splitlines()
    assert int(gigabytes) < 1
    return "\n".join(names) + done.stderr


@pytest.mark.slow
def test_features(tmp_path: Path) -> None:
    paths = [tmp_path / f"{kind}.pkl" for kind in FEATURES]
    for path in paths:
        path.write_bytes(pickle_of(*FEATURES[path.stem]))
    assert badly_read(paths) == ""


@pytest.mark.parametrize("container", CONTAINERS)
def test_checkpoints(tmp_path: Path, container: str) -> None:
    write: Callable[..., None] = CONTAINERS[container]
    kinds = list(CHECKPOINTS)[: None if container == "zip" else 4]
    paths = [tmp_path / f"{kind}.pth" for kind in kinds]
    for path in paths:
        write(path, pickle_of(*CHECKPOINTS[path.stem]))
    assert badly_read(paths) == ""
