"""Starting the processes of a training on this machine, as torchrun does: `--device 0,1,2,3`.

Nothing of torch is loaded here. What the processes say, the first one says; this one passes signals
on, and sees to it that none of them outlives the others.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from utils.errors import UserError
from utils.stopping import Stopped

# What torchrun and this launcher tell each process of the others.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# What this launcher tells besides: the first process's listening socket, and who has started them.
SOCKET, PARENT = "RETRIEVAL_PROCESSES_SOCKET", "RETRIEVAL_PROCESSES_PARENT"

_HOST = "127.0.0.1"
_SECONDS_BETWEEN_LOOKS = 0.2
# So long the others have to end by themselves when one has failed: longer than their lifeline's.
_SECONDS_TO_LEAVE = 15.0


def number_asked_for(device: str | None) -> int:
    """Return how many processes --device asks for: one for each GPU, or for each "cpu".

    Raises:
        UserError: there are several of something else.
    """
    parts = [part.strip().lower() for part in (device or "").split(",")]
    are_gpus = all(part.isdecimal() for part in parts) and len(set(parts)) == len(parts)
    if len(parts) > 1 and not are_gpus and set(parts) != {"cpu"}:
        raise UserError(
            '--device takes different GPUs such as "0,1", or "cpu,cpu" for two processes on the '
            f'CPU, not "{device}".'
        )
    return len(parts)


def launch(command: Sequence[str], count: int) -> int:
    """Run a Python program, with its arguments, in several processes; returns their exit code."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((_HOST, 0)))
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        shared = {
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": _HOST,
            "MASTER_PORT": str(listening.getsockname()[1]),
            PARENT: str(os.getpid()),
        }
        usual = {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo"}
        children: list[subprocess.Popen] = []
        stack.callback(_end, children)
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            held = [listening.fileno()] if rank == 0 else []
            own |= {SOCKET: str(held[0])} if held else {}
            children.append(
                subprocess.Popen(
                    [sys.executable, *command],
                    env=usual | os.environ | shared | own,
                    stdout=None if rank == 0 else subprocess.DEVNULL,
                    pass_fds=held,
                    start_new_session=True,  # Ctrl-C comes once, from here
                )
            )
        listening.close()
        return _wait(children)


def _wait(children: list[subprocess.Popen]) -> int:
    """Wait for all; returns the code of the first process, or of one that failed before it."""
    failed_at = 0.0
    while any(child.poll() is None for child in children):
        try:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        except Stopped as stop:
            for child in children:
                if child.poll() is None:
                    child.send_signal(stop.signal_number)
        if not failed_at and any(child.poll() for child in children):
            failed_at = time.monotonic()
        if failed_at and time.monotonic() - failed_at > _SECONDS_TO_LEAVE:
            _end(children)
    codes = [child.returncode for child in children]
    code = next((code for code in codes if code), 0)
    return code if code >= 0 else 128 - code


def _end(children: list[subprocess.Popen]) -> None:
    for child in children:
        if child.poll() is None:
            child.kill()
    for child in children:
        child.wait()
