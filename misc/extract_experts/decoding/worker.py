"""The process in which files are decoded: limited, silent, and told one file after the other.

It is a fresh interpreter, ``python3 -m misc.extract_experts.decoding.worker '{...}'``, that reads a
line of JSON for each file and answers with messages: a line of JSON, then the bytes of an array
where the line announces them. It ends when its input does, and so with whoever has started it.
"""

import json
import os
import resource
import stat
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import av.logging

from misc.extract_experts.decoding.cutting import Piece
from misc.extract_experts.decoding.media import Unreadable, read_media
from misc.extract_experts.expert import Frames, Look, Sound
from utils.files import PATH_ERRORS, reason

# What decoding may take: of memory besides what this process has at its start, and of time.
MEMORY = 3 << 30
_FREE_SECONDS, _SECONDS_PER_MEGABYTE = 60, 60
_FILES = 64

_KINDS: dict[str, type[Frames | Sound]] = {"frames": Frames, "sound": Sound}


def look_as_json(look: Look) -> dict[str, Any]:
    kind = "frames" if isinstance(look, Frames) else "sound"
    return {"kind": kind, **asdict(look)}


def _look_of_json(value: dict[str, Any]) -> Look:
    return _KINDS[value.pop("kind")](**value)


def main(given: str) -> None:
    """Answer what is asked; `given` holds "looks", "segments" and "threads" as JSON."""
    settings = json.loads(given)
    looks = [_look_of_json(look) for look in settings["looks"]]
    output = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    av.logging.set_level(av.logging.PANIC)
    _limit()
    _send(output, {"ready": True})
    output.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # last words of a library that crashes
    try:
        for line in sys.stdin.buffer:
            _answer(output, json.loads(line), looks, settings["segments"], settings["threads"])
            output.flush()
    except BrokenPipeError:  # whoever asked is gone
        os._exit(0)


def _answer(
    output: IO[bytes], asked: dict[str, Any], looks: list[Look], segments: str, threads: int
) -> None:
    """Decode one file; what is wrong with it is the last message instead of its end."""
    numbers = asked["looks"]
    try:
        # Of a pipe nobody may ever write to the other end.
        with os.fdopen(os.open(asked["path"], os.O_RDONLY | os.O_NONBLOCK), "rb") as handle:
            facts = os.fstat(handle.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise Unreadable("it is no file")
            if not facts.st_size:
                raise Unreadable("it is empty")
            _limit_time(facts.st_size)
            for piece in read_media(handle, [looks[n] for n in numbers], segments, threads):
                if isinstance(piece, Piece):
                    _send_piece(output, piece, numbers[piece.look])
                else:
                    _send(output, {"end": piece.seconds, "items": piece.items})
    except BrokenPipeError:
        raise
    except Unreadable as error:
        _send(output, {"unreadable": str(error)})
    except PATH_ERRORS as error:
        _send(output, {"unreadable": f"it cannot be read ({reason(error)})", "lasting": False})
    except MemoryError:
        _send(output, {"unreadable": "decoding it takes more memory than is allowed"})
    except Exception as error:  # noqa: BLE001 (one odd file of a million ends none of the others)
        told = f"{type(error).__name__}: {error}"
        _send(output, {"unreadable": f"decoding it failed ({told[:200]})"})


def _send_piece(output: IO[bytes], piece: Piece, look: int) -> None:
    head = {
        "look": look,
        "item": piece.item,
        "shape": piece.values.shape,
        "times": piece.times.tolist(),
    }
    _send(output, head)
    output.write(piece.values.data)
    output.flush()


def _send(output: IO[bytes], message: dict[str, Any]) -> None:
    output.write(json.dumps(message).encode() + b"\n")


def _limit() -> None:
    """Let this process take no more than decoding needs, and write nothing."""
    held = Path("/proc/self/statm")
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: _FILES,
    }
    if held.exists():
        data = int(held.read_text().split()[5]) * resource.getpagesize()
        wanted[resource.RLIMIT_DATA] = data + MEMORY
    for kind, most in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _limit_time(size: int) -> None:
    """Set when the system ends this process, in seconds of computing from now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = int(used.ru_utime + used.ru_stime) + seconds_for(size)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def seconds_for(size: int) -> int:
    """Return how long decoding a file of so many bytes may compute."""
    return _FREE_SECONDS + (size >> 20) * _SECONDS_PER_MEGABYTE


if __name__ == "__main__":
    main(sys.argv[1])
