"""Asks a process of its own for the pieces of a file; one that dies is followed by another."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from misc.extract_experts.decoding.cutting import Piece
from misc.extract_experts.decoding.media import End, Unreadable
from misc.extract_experts.decoding.worker import look_as_json, seconds_for
from misc.extract_experts.expert import Frames, Look

_WORKER = "misc.extract_experts.decoding.worker"
_ROOT = Path(__file__).resolve().parents[3]
_LONGEST_LINE = 1 << 24
_LARGEST_PIECE = 1 << 32
# Libraries that would start a thread for each core in each process.
_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Decoder:
    """A process that decodes one file after the other.

    Args:
        looks: what may be asked for.
        segments: as `items_of` takes it.
        threads: of the decoder.
    """

    def __init__(self, looks: Sequence[Look], segments: str, threads: int) -> None:
        self._looks = looks
        self._given = json.dumps(
            {
                "looks": [look_as_json(look) for look in looks],
                "segments": segments,
                "threads": threads,
            }
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._is_interrupted = False

    def pieces(self, path: Path, looks: Sequence[int]) -> Iterator[Piece | End]:
        """Give what some of the looks see in a file, and what it was at the end.

        Raises:
            Unreadable: it cannot be decoded.
        """
        process = self._process or self._start()
        assert process.stdin and process.stdout
        asked = {"path": os.fspath(path.absolute()), "looks": list(looks)}
        finished = False
        try:
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            while not finished:
                message = self._read(process, path)
                finished = not isinstance(message, Piece)
                if isinstance(message, Unreadable):
                    raise message
                yield message
        finally:
            if not finished:
                self.close()

    def interrupt(self) -> None:
        """Let whoever waits for the process, in another thread, wait no longer."""
        self._is_interrupted = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream
                with suppress(BrokenPipeError):
                    stream.close()

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            # Without the working directory, which may hold anything.
            [sys.executable, "-P", "-m", _WORKER, self._given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, **dict.fromkeys(_LIBRARIES, "1")},
            process_group=0,  # Ctrl-C reaches the parent alone, which ends this one
        )
        assert self._process.stdout
        if not self._process.stdout.readline(_LONGEST_LINE) and not self._is_interrupted:
            code = self._process.wait()
            raise RuntimeError(f"the process that decodes does not start (it ended with {code})")
        return self._process

    def _read(self, process: subprocess.Popen[bytes], path: Path) -> Piece | End | Unreadable:
        """Return the next message; what it says is believed as far as it makes sense."""
        assert process.stdout
        line = process.stdout.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            return self._how_it_ended(process, path)
        message = json.loads(line)
        if "unreadable" in message:
            return Unreadable(str(message["unreadable"]), bool(message.get("lasting", True)))
        if "end" in message:
            spans = [(float(start), float(end)) for start, end in message["items"]]
            return End(float(message["end"]), spans)
        return self._piece(process, message, path)

    def _piece(
        self, process: subprocess.Popen[bytes], message: dict[str, Any], path: Path
    ) -> Piece | Unreadable:
        assert process.stdout
        look, shape = self._looks[message["look"]], tuple(map(int, message["shape"]))
        dtype = np.dtype(np.uint8 if isinstance(look, Frames) else np.float32)
        count = math.prod(shape) * dtype.itemsize
        assert 0 < count <= _LARGEST_PIECE and len(shape) == (4 if dtype == np.uint8 else 1)
        values = np.empty(shape, dtype)
        view = values.data.cast("B")
        while len(view):
            read = process.stdout.readinto(view)  # type: ignore[attr-defined]
            if not read:
                return self._how_it_ended(process, path)
            view = view[read:]
        times = np.array(message["times"], np.float64)
        return Piece(message["look"], int(message["item"]), values, times)

    def _how_it_ended(self, process: subprocess.Popen[bytes], path: Path) -> Unreadable:
        code = process.wait()
        self._process = None
        self.close()
        if code == -signal.SIGXCPU:
            seconds = seconds_for(path.stat().st_size)
            return Unreadable(f"decoding it took more than {seconds} seconds of computing")
        if code == -signal.SIGKILL:
            why = "decoding it was killed (the memory of this machine may be full)"
            return Unreadable(why, is_lasting=False)
        return Unreadable(f"it is damaged (what decodes it crashed, code {code})")
