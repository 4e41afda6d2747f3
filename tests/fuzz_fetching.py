"""Fetches from a server that misbehaves, again and again, and looks at what is left each time.

python3 -m tests.fuzz_fetching --count 300 --seed 0

A round draws what the server does instead of answering (breaks off, lies about lengths, ranges and
versions, redirects in circles, drips, stalls, changes the file), what the archive is (whole,
damaged, hostile, a bomb), and whether the client is killed on the way. It ends with exit code 0 and
all files whole, or with 2 and one sentence; in between a file is whole or not there. Then the same
command meets a good server, and must complete everything and leave nothing else.
"""

import argparse
import os
import signal
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from misc import sync_experts
from misc.fetching import fetch, unpack
from misc.fetching.disk import Part
from misc.fetching.download import Patience
from misc.sync_experts import INTERRUPTED
from tests import fetch_server as act
from tests.fetch_server import FileServer, Handler, serving
from tests.fuzz_formats import damage
from tests.hostile_archives import file, folder, link, packed
from utils.command_line import run_main

RELEASE = "challenge-release-1"
PATH = f"/{RELEASE}/{RELEASE}-MSVD-experts.tar.gz"
SECONDS = 60
OUTCOMES = ("whole", "refused", "killed", "BAD")
# Where a client kills itself: these functions, before one of their first calls.
DEATHS = [
    (os, "fsync"),
    (os, "open"),
    (Path, "replace"),
    (Path, "unlink"),
    (Path, "rmdir"),
    (Path, "mkdir"),
    (Part, "save"),
    (Part, "sum"),
    (fetch, "place"),
    (fetch, "write_json"),
    (unpack, "check_space"),
]


def features(version: int) -> dict[str, bytes]:
    """The files of an archive, below the data folder."""
    rng = np.random.default_rng(version)
    return {
        f"MSVD/{RELEASE}/text/w2v.pkl": rng.bytes(50_000),
        f"MSVD/{RELEASE}/train_list.txt": f"train {version}".encode(),
        "MSVD/raw-captions.pkl": b"captions" * 1000 + bytes([version]),
    }


def archive(version: int) -> bytes:
    return packed(file(f"data/{name}", content) for name, content in features(version).items())


def hostile(rng: np.random.Generator) -> bytes:
    """An archive that is well made, and must be refused."""
    good = [file(f"data/{name}", content) for name, content in features(0).items()]
    bad = [
        link("data/MSVD/x", "/etc/passwd"),
        link("data/MSVD/x", "MSVD/raw-captions.pkl", tarfile.LNKTYPE),
        file("data/MSVD/../../x"),
        file("/data/MSVD/x"),
        file("data/elsewhere/x"),
        file("data/MSVD/raw-captions.pkl"),
        file("data/MSVD/RAW-captions.pkl"),
        folder("data/MSVD/raw-captions.pkl"),
        file("data/MSVD/x", b"", type=tarfile.FIFOTYPE),
        file("data/MSVD/zeros", b"\0" * (1 << 25)),
    ]
    members = [*good, bad[int(rng.integers(len(bad)))]]
    rng.shuffle(members)
    return packed(members)


def fault(rng: np.random.Generator, size: int) -> act.Fault | None:
    """Draw what the server does once; None is a good answer."""
    number = int(rng.integers(size))
    wrong = int(rng.integers(2 * size))
    choices: list[act.Fault | None] = [
        None,
        act.piece(number),
        act.piece(number),
        act.reset(number),
        act.stall(number),
        act.whole,
        act.without_length,
        act.broken_headers,
        drip,
        act.status(int(rng.choice([404, 403, 416, 429, 500, 503, 301, 204, 206, 600]))),
        act.redirect(str(rng.choice([PATH, "/elsewhere", "ftp://a/b", "http://[", "//:x/"]))),
        act.headers(Content_Length=str(wrong)),
        act.headers(Content_Length=str(rng.choice(["-5", "nonsense", "9" * 30]))),
        act.headers(Content_Range=f"bytes {number}-{wrong}/{size}"),
        act.headers(Content_Range="bytes */*", ETag="W/weak"),
        act.headers(ETag=f'"{number}"', Last_Modified=""),
        act.headers(Content_Encoding=str(rng.choice(["gzip", "br", "nonsense"]))),
        changed(1 + number % 2),
    ]
    return choices[int(rng.integers(len(choices)))]


def drip(handler: Handler) -> bool:
    """Send little by little, and hang up."""
    handler.head(200, len(handler.content))
    for at in range(50):
        handler.wfile.write(handler.content[at : at + 1])
        handler.wfile.flush()
        time.sleep(0.001)
    handler.close_connection = True
    return True


def changed(version: int) -> act.Fault:
    """From now on the file is another one."""

    def run(handler: Handler) -> bool:
        offer(handler.server, archive(version), f"v{version}")
        return False

    return run


def offer(server: FileServer, content: bytes, version: str) -> None:
    server.files[PATH] = content
    server.etag = f'"{version}"'


@dataclass
class Round:
    """One fetching from a bad server, and one from a good one.

    Attributes:
        number, seed: what it is drawn from.
        data: the data folder.
        faults: what was found wrong.
    """

    number: int
    seed: int
    data: Path
    faults: list[str] = field(default_factory=list)

    def run(self, server: FileServer) -> str:
        rng = np.random.default_rng([self.seed, self.number])
        content = archive(0)
        kind = str(rng.choice(["whole", "whole", "whole", "damaged", "hostile"]))
        if kind == "damaged":
            content = damage(content, rng)
        elif kind == "hostile":
            content = hostile(rng)
        offer(server, content, kind)
        size = len(content)
        server.faults.extend(fault(rng, size) for _ in range(int(rng.integers(6))))
        # A server that lies about the length makes a cut archive of a whole one.
        may_be_bad = kind != "whole" or any("headers" in str(one) for one in server.faults)
        death = DEATHS[int(rng.integers(len(DEATHS)))] if rng.random() < 0.4 else None
        code, said = self._client(server, death, int(rng.integers(25)))
        self._check_end(code, said)
        self._check_files(complete=code == 0)
        server.faults.clear()
        offer(server, archive(3), "good")
        again, said = self._client(server, None, 0)
        if again == 2 and code == -signal.SIGKILL and may_be_bad:
            # It was killed with all of a bad archive in its hands, which goes with this sentence.
            self._check_end(again, said)
            again, said = self._client(server, None, 0)
        if again != 0:
            self.faults.append(f"a good server after that: exit code {again}, {said!r}")
        self._check_files(complete=True)
        self._check_leftovers()
        if self.faults:
            return "BAD"
        return {0: "whole", 2: "refused"}.get(code, "killed")

    def _client(self, server: FileServer, death: Any, calls: int) -> tuple[int, str]:
        """Run the command in a process of its own; returns its exit code and what it said."""
        output = self.data.with_name("said")
        child = os.fork()
        if not child:
            code = 1
            try:
                with output.open("w") as handle:
                    os.dup2(handle.fileno(), 1)
                    os.dup2(handle.fileno(), 2)
                    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                signal.alarm(SECONDS)
                if death:
                    _die_in(*death, calls)
                code = run_main(_main, self._command(server), INTERRUPTED)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        return os.waitstatus_to_exitcode(status), output.read_text(errors="replace")

    def _command(self, server: FileServer) -> list[str]:
        what = ["--dataset", "MSVD", "--release", RELEASE]
        return [*what, "--root_url", server.root, "--data_dir", str(self.data)]

    def _check_end(self, code: int, said: str) -> None:
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        if code not in (0, 2, -signal.SIGKILL):
            self.faults.append(f"exit code {code}: {said}")
        if code == 2 and (len(errors) != 1 or said.rstrip().splitlines()[-1] != errors[0]):
            self.faults.append(f"not one sentence: {said}")
        if "Traceback" in said:
            self.faults.append(said)

    def _check_files(self, complete: bool) -> None:
        """Insist that every file is whole, and all of one version where fetching is complete."""
        found = {
            path.relative_to(self.data).as_posix(): path.read_bytes()
            for path in self.data.rglob("*")
            if path.is_file() and not path.relative_to(self.data).parts[0].startswith(".")
        }
        versions = [features(version) for version in range(4)]
        if complete and found not in versions:
            self.faults.append(f"not whole: {sorted(found)}")
        for name, content in found.items():
            if content not in (version.get(name) for version in versions):
                self.faults.append(f"half or foreign: {name}, {len(content)} bytes")

    def _check_leftovers(self) -> None:
        state = self.data / ".fetch"
        left = {path.relative_to(self.data).as_posix() for path in self.data.rglob(".*")}
        left |= {path.relative_to(self.data).as_posix() for path in state.rglob("*")}
        name = f".fetch/{RELEASE}-MSVD-experts"
        if left != {".fetch", name, f"{name}/record.json"}:
            self.faults.append(f"left: {sorted(left)}")


def _main(arguments: list[str]) -> None:
    sync_experts.main(arguments, Patience(connect=5, read=0.5, sleep=lambda _: None))


def _die_in(owner: Any, name: str, calls: int) -> None:
    real: Callable[..., Any] = getattr(owner, name)
    left = iter(range(calls))

    def dying(*args: Any, **options: Any) -> Any:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)

    setattr(owner, name, dying)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.fuzz_fetching", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    options = parser.parse_args(arguments)
    counts: Counter[str] = Counter()
    for number in range(options.first, options.first + options.count):
        with tempfile.TemporaryDirectory() as place, serving() as server:
            one = Round(number, options.seed, Path(place) / "data")
            outcome = one.run(server)
        counts[outcome] += 1
        for text in one.faults:
            sys.stdout.write(
                f"BAD: python3 -m tests.fuzz_fetching --seed {options.seed} --first {number} "
                f"--count 1\n{text}\n"
            )
    sys.stdout.write(", ".join(f"{name}: {counts[name]:,}" for name in OUTCOMES) + "\n")
    return 1 if counts["BAD"] else 0


if __name__ == "__main__":
    sys.exit(main())
