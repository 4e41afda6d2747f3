"""Several processes that make chunks, and end when their parent ends.

Workers are fresh interpreters that read chunk numbers from their input. Nothing of the parent is
imported again (a training program would load PyTorch in each of them), and a parent that is killed
leaves workers that find their input closed, and stop. A worker is
``python3 -m misc.demo_set.workers '{"folder": ..., "seed": ...}'``; it answers each number with a
line of JSON.
"""

import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from misc.demo_set.clips import make_chunk
from misc.demo_set.settings import Places, Settings
from utils.errors import UserError

_WORKER = "misc.demo_set.workers"
_ROOT = Path(__file__).resolve().parents[2]
_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_chunks(
    settings: Settings, places: Places, chunks: Sequence[int], workers: int, lock: int
) -> Iterator[int]:
    """Make `chunks` in `workers` processes; yield the number of each when it is done.

    `lock` is a file descriptor that workers keep open, so that the lock on it lasts as long as
    any of them writes.

    Raises:
        UserError: a worker met a user's mistake, such as a full disk.
        RuntimeError: a worker broke down; its traceback stands in the error output.
    """
    waiting = deque(chunks)
    processes = []
    with selectors.DefaultSelector() as selector:
        try:
            for _ in range(min(workers, len(waiting))):
                process = _start(settings, places, lock)
                processes.append(process)
                selector.register(process.stdout, selectors.EVENT_READ, process)
                _hand_out(waiting, process)
            while selector.get_map():
                for key, _ in selector.select():
                    line = key.fileobj.readline()
                    if line:
                        yield _result(line)
                        _hand_out(waiting, key.data)
                    else:
                        selector.unregister(key.fileobj)
                        _check_end(key.data)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
                process.stdin.close()
                process.stdout.close()


def _start(settings: Settings, places: Places, lock: int) -> subprocess.Popen[bytes]:
    given = json.dumps({"folder": str(places.folder.resolve()), **asdict(settings)})
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    # One thread each: results must not depend on how many cores a library finds.
    environment = {**os.environ, "PYTHONPATH": path, **dict.fromkeys(_LIBRARIES, "1")}
    return subprocess.Popen(
        [sys.executable, "-m", _WORKER, given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=environment,
        pass_fds=[lock],
        process_group=0,  # Ctrl-C reaches the parent alone, which ends the workers
    )


def _hand_out(waiting: deque[int], process: subprocess.Popen[bytes]) -> None:
    if waiting:
        try:
            process.stdin.write(b"%d\n" % waiting.popleft())
        except BrokenPipeError:
            _check_end(process)
    else:
        process.stdin.close()


def _result(line: bytes) -> int:
    message = json.loads(line)
    if "refused" in message:
        raise UserError(message["refused"])
    return message["done"]


def _check_end(process: subprocess.Popen[bytes]) -> None:
    code = process.wait()
    if code or not process.stdin.closed:
        raise RuntimeError(f"A worker that makes the demo set ended with exit code {code}.")


def main(given: str) -> None:
    """Make the chunks that are asked for."""
    record = json.loads(given)
    places = Places(Path(record.pop("folder")))
    settings = Settings(**record)
    for line in sys.stdin:
        try:
            make_chunk(settings, places, int(line))
            message: dict[str, int | str] = {"done": int(line)}
        except UserError as error:
            message = {"refused": str(error)}
        try:
            os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")
        except BrokenPipeError:  # the parent was killed: nobody is told, and the input has ended
            return


if __name__ == "__main__":
    main(sys.argv[1])
