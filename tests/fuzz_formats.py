"""Damages files of every format that is read, thousands of times, and counts what comes of it.

python3 -m tests.fuzz_formats --count 20000 --seed 0

A damaged file is accepted (what it holds then is plain data) or refused in one sentence that names
it. A traceback, a hang, and more memory than 256 MB and four times the file make the exit code 1;
each is printed with the command that does it again. Files whose checksum would hide the damage from
what lies behind it are damaged within, and sealed anew.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import pickle
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from data_loader.formats import apart
from data_loader.formats import read as formats
from data_loader.store.packed import Part, read_packed, write_packed
from data_loader.store.word_vectors import read_word_vectors
from data_loader.teachers.teacher import open_teacher
from misc.fetching.unpack import ArchiveError, Limits, unpack
from tests import hostile_archives
from tests.every_format import WRITERS, ragged
from tests.own_data import write_word_vectors
from tests.teacher_data import RandomTeacher
from trainer.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.files import read_json

FREE_MEMORY, MEMORY_PER_BYTE = 256 << 20, 4
BATCH = 200  # files for each process
OUTCOMES = ("accepted", "refused", "crashed", "TRACEBACK", "HANG", "MEMORY")
BAD = OUTCOMES[3:]
# Long enough for any honest file of a few kilobytes.
_WALLED_SECONDS = 3.0


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: of the file.
        write: makes it, whole.
        read: reads it; raises UserError.
        inner: gives of a whole file what is damaged.
        seal: puts what was damaged into the whole file again.
        walled: whether it is read in a limited process of its own where it counts: one that
            crashes, hangs or fills its memory is one more way to refuse the file.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    inner: Callable[[bytes], bytes] = bytes
    seal: Callable[[bytes, bytes], bytes] = lambda whole, inner: inner
    walled: bool = False


def all_formats() -> list[Format]:
    """Return every format that is read."""
    table = ragged(np.random.default_rng(0), [f"v{number}" for number in range(7)], 3, most=4)
    words = ["a", "dog", "runs"]
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    text = "3 4\n" + "".join(
        f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, vectors, strict=True)
    )

    def word_archive(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("words.txt", text)

    teacher = RandomTeacher([2, 3], {"audio": 3, "rgb": 2})
    tar = [hostile_archives.folder("data/MSVD"), hostile_archives.file("data/MSVD/a.pickle")]
    captions = {"v1": ["a dog", "ein Hünd"], "v2": [["a", "dog"]], "v3": []}
    config = {"a": [1, 2.5, -1e-3, None, True], "b": {"c": "ü😀", "d": "\\"}}
    json_file = partial(_write_json, captions)
    return [
        *(
            Format(name, partial(_write_table, table, write), _read_features, walled=True)
            for name, write in WRITERS.items()
        ),
        Format("inner.npz", partial(_write_table, table, WRITERS["e.npz"]), _read_features,
               *_zip_member("feats.npy"), walled=True),
        Format("zip.pth", partial(_write_checkpoint, zipped=True), load_checkpoint,
               walled=True),
        Format("inner.pth", partial(_write_checkpoint, zipped=True), load_checkpoint,
               *_zip_member("data.pkl"), walled=True),
        Format("legacy.pth", partial(_write_checkpoint, zipped=False), load_checkpoint,
               walled=True),
        Format("saved.pth", _save_checkpoint, load_checkpoint, walled=True),
        Format("arrays.packed", _write_packed, _read_packed),
        Format("header.packed", _write_packed, _read_packed, _packed_header, _with_header),
        Format("ours.teacher", teacher.write, _read_teacher),
        Format("header.teacher", teacher.write, _read_teacher, _packed_header, _with_header),
        Format("published.pkl", lambda path: path.write_bytes(pickle.dumps(teacher.published())),
               _read_teacher, walled=True),
        Format("captions.json", json_file, partial(formats.read_plain_mapping, what="captions")),
        Format("config.json", partial(_write_json, config), read_json),
        Format("ids.txt", lambda path: path.write_text("v1\nv2\nv3\n"), formats.read_id_list),
        Format("ids.json", partial(_write_json, {"val": ["v1", 2]}),
               partial(formats.read_id_list, key="val")),
        Format("words.bin", lambda path: write_word_vectors(path, words, vectors),
               read_word_vectors),
        Format("words.txt", lambda path: path.write_text(text), read_word_vectors),
        Format("words.vec.gz", lambda path: path.write_bytes(gzip.compress(text.encode())),
               read_word_vectors),
        Format("words.zip", word_archive, read_word_vectors),
        Format("a.tar.gz", lambda path: hostile_archives.write(path, tar), _unpack),
        Format("inner.tar.gz", lambda path: hostile_archives.write(path, tar), _unpack,
               gzip.decompress, lambda whole, inner: gzip.compress(inner, 1)),
    ]  # fmt: skip


def _write_table(table: Any, write: Callable[[Path, Any], None], path: Path) -> None:
    write(path, table)


def _write_json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _checkpoint() -> dict[str, Any]:
    weights = {"w": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(2, dtype=torch.float16)}
    state = {"state": {0: {"step": 3, "mean": torch.zeros(3)}}, "groups": [{"lr": 0.1, "at": [0]}]}
    config = {"name": "ü", "arch": {"args": {"dims": (1, 2)}}, "path": Path("a/b")}
    return {
        "arch": "CENet", "epoch": 3, "state_dict": weights, "optimizer": state, "config": config,
    }  # fmt: skip


def _write_checkpoint(path: Path, zipped: bool) -> None:
    torch.save(_checkpoint(), path, _use_new_zipfile_serialization=zipped)


def _save_checkpoint(path: Path) -> None:
    save_checkpoint(path, _checkpoint())


def _write_packed(path: Path) -> None:
    parts = {
        "values": Part.of(np.arange(60, dtype=np.float32).reshape(20, 3)),
        "offsets": Part.of(np.array([0, 5, 20])),
    }
    write_packed(path, parts, {"ids": ["v1", "v2"], "name": "ü"})


def _read_packed(path: Path) -> object:
    # Damaged copies are made again; here their refusal is what is looked at.
    try:
        return [values.sum() for values in read_packed(path).arrays.values()]
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _read_teacher(path: Path) -> object:
    return open_teacher(path, [path.parent / "cache"])


def _read_features(path: Path) -> object:
    table = formats.read_feature_file(path)
    arrays = [value for value in table.values() if value is not None]
    assert all(isinstance(value, np.ndarray) and value.dtype.kind in "fiub" for value in arrays)
    return table


def _unpack(path: Path) -> object:
    target = path.with_name("unpacked")
    try:
        return unpack(path, target, {"MSVD"}, {}, Limits())
    except ArchiveError as error:  # whoever calls it names the archive
        raise UserError(f"{path}: {error}") from error
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _zip_member(
    ending: str,
) -> tuple[Callable[[bytes], bytes], Callable[[bytes, bytes], bytes]]:
    def inner(whole: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            return archive.read(next(n for n in archive.namelist() if n.endswith(ending)))

    def seal(whole: bytes, inner: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(stream, "w") as new:
            for name in old.namelist():
                new.writestr(name, inner if name.endswith(ending) else old.read(name))
        return stream.getvalue()

    return inner, seal


def _packed_header(whole: bytes) -> bytes:
    return whole[48 : 48 + int.from_bytes(whole[8:16], "little")].rstrip()


def _with_header(whole: bytes, header: bytes) -> bytes:
    begin = 48 + int.from_bytes(whole[8:16], "little")
    header += b" " * (-(48 + len(header)) % 64)
    size = len(header).to_bytes(8, "little")
    return whole[:8] + size + hashlib.sha256(header).digest() + header + whole[begin:]


def damage(whole: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes with some of them changed, inserted or removed."""
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
            lambda at=at: data.__setitem__(slice(at, at + 1), data[at : at + 40] * 3),
            lambda at=at: data.__delitem__(slice(at, None)),
        ]
        kinds[int(rng.integers(len(kinds)))]()
    return bytes(data)


def memory_in_use() -> int:
    """Return the bytes of address space in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def outcome_of(kind: Format, path: Path) -> tuple[str, str]:
    """Read a damaged file; returns the outcome, and what is to be said of it."""
    try:
        kind.read(path)
    except UserError as error:
        if isinstance(error.__cause__, MemoryError):
            # The limit of the process in which files of strangers are read.
            return ("refused" if kind.walled else "MEMORY"), str(error)
        lines = str(error).splitlines()
        if len(lines) == 1 and str(path) in lines[0]:
            return "refused", ""
        return "TRACEBACK", f"no sentence that names the file: {error}"
    except MemoryError:
        return "MEMORY", traceback.format_exc()
    except BaseException:  # noqa: BLE001 (whatever it is, it is what this looks for)
        return "TRACEBACK", traceback.format_exc()
    return "accepted", ""


def read_damaged(
    kind: Format, folder: Path, numbers: range, seed: int, seconds: float
) -> Iterator[tuple[int, str, str]]:
    """Damage a file in as many ways as there are numbers; yields (number, outcome, text)."""
    place = folder / kind.name
    kind.write(place)
    files = sorted(place.glob("*.npy")) if place.is_dir() else [place]
    whole = files[0].read_bytes()
    inner = kind.inner(whole)

    def work(answers: int) -> None:
        used = memory_in_use()
        for number in range(at, min(at + BATCH, numbers.stop)):
            rng = np.random.default_rng([seed, zlib.crc32(kind.name.encode()), number])
            data = kind.seal(whole, damage(inner, rng))
            files[0].write_bytes(data)
            limit = used + FREE_MEMORY + MEMORY_PER_BYTE * len(data)
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            answer = json.dumps([number, *outcome_of(kind, place)])
            os.write(answers, answer.encode() + b"\n")

    at = numbers.start
    while at < numbers.stop:
        for number, outcome, text in _in_a_fork(work, at, seconds):
            yield number, outcome, text
            at = number + 1


def _in_a_fork(
    work: Callable[[int], None], at: int, seconds: float
) -> Iterator[tuple[int, str, str]]:
    """Yield what a child answers; where it hangs or dies, that of the file it was at."""
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(receiver)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            work(sender)
            code = 0
        finally:
            os._exit(code)
    os.close(sender)
    with os.fdopen(receiver, "rb", buffering=0) as answers:
        while True:
            ready, _, _ = select.select([answers], [], [], seconds)
            if not ready:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                yield at, "HANG", f"nothing came for {seconds} seconds"
                return
            line = answers.readline()
            if not line:
                break
            number, outcome, text = json.loads(line)
            yield number, outcome, text
            at = number + 1
    status = os.waitpid(child, 0)[1]
    if status:
        died = "crashed" if os.WIFSIGNALED(status) else "TRACEBACK"
        yield at, died, f"the process ended with the status {status}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.fuzz_formats", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="damaged files, of all formats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first of each format")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="formats")
    parser.add_argument("--seconds", type=float, default=20, help="what takes longer hangs")
    options = parser.parse_args(arguments)
    np.seterr(all="ignore")
    apart._is_child = True  # each batch is read in a limited process of its own
    import h5py  # noqa: F401 (once, not in every child)
    import scipy.io  # noqa: F401

    chosen = [kind for kind in all_formats() if not options.only or kind.name in options.only]
    each = -(-options.count // len(chosen))
    total: Counter[str] = Counter()
    sys.stdout.write(f"{'':16}" + "".join(f"{name:>11}" for name in OUTCOMES) + "\n")
    for kind in chosen:
        counts: Counter[str] = Counter()
        numbers = range(options.first, options.first + each)
        with tempfile.TemporaryDirectory() as folder:
            seconds = min(options.seconds, _WALLED_SECONDS if kind.walled else options.seconds)
            found = read_damaged(kind, Path(folder), numbers, options.seed, seconds)
            for number, outcome, text in found:
                if outcome == "crashed" and not kind.walled:
                    outcome = "TRACEBACK"
                if outcome == "HANG" and kind.walled:
                    outcome = "crashed"
                counts[outcome] += 1
                if outcome in BAD:
                    sys.stdout.write(
                        f"{outcome}: python3 -m tests.fuzz_formats --only {kind.name} --seed "
                        f"{options.seed} --first {number} --count 1\n{text}\n"
                    )
        _print(kind.name, counts)
        total += counts
    _print("all", total)
    return 1 if any(total[name] for name in BAD) else 0


def _print(name: str, counts: Counter[str]) -> None:
    sys.stdout.write(f"{name:16}" + "".join(f"{counts[o]:11,}" for o in OUTCOMES) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
