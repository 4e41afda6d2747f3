"""Starting the processes of a training on this machine, as torchrun does: `--device 0,1,2,3`.

Nothing of torch is loaded here. What the processes say, the first one says; this one passes signals
on, sees to it that none of them outlives the others, and tells which of them was killed.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from utils.errors import UserError
from utils.stopping import Stopped, last_words

# What torchrun and this launcher tell each process of the others.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# What this launcher tells besides: the first process's listening socket, and who has started them.
SOCKET, PARENT = "RETRIEVAL_PROCESSES_SOCKET", "RETRIEVAL_PROCESSES_PARENT"
# The code of a process that ends because another one has gone without a word.
WITHOUT_A_WORD = 70

_HOST = "127.0.0.1"
_SECONDS_BETWEEN_LOOKS = 0.2
# So long the others have to end by themselves when one has failed: longer than their lifeline's.
_SECONDS_TO_LEAVE = 15.0


class Child(Protocol):
    """A process that was started here, as `subprocess.Popen` tells of it."""

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...

    def kill(self) -> None: ...

    def send_signal(self, sig: int, /) -> None: ...


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
        return wait(children)


def wait(children: Sequence[Child]) -> int:
    """Wait for all, and say what became of one that could not say it.

    Returns:
        The code of the process that failed first; of one that was killed, what a shell says of it
        (137 for SIGKILL).
    """
    failed_at, passed_on = 0.0, 0
    codes: list[int | None] = [None]
    first: list[int | None] = []  # the codes when one was seen to have failed
    while None in codes:
        try:
            if failed_at and time.monotonic() - failed_at > _SECONDS_TO_LEAVE:
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            codes = [child.poll() for child in children]
            if not failed_at and any(codes):
                failed_at, first = time.monotonic(), codes
        except Stopped as stop:
            with last_words():
                passed_on = stop.signal_number
                for child in children:
                    child.send_signal(passed_on)  # nothing, where it has ended
    _end(children)
    failed = [(rank, code) for rank, code in enumerate(first) if code]
    if not failed:
        return 0
    rank, code = min(failed, key=lambda one: (one[1] > 0, one[1] == WITHOUT_A_WORD))
    killed_by = -code if code < 0 else 0
    if (killed_by and killed_by != passed_on) or WITHOUT_A_WORD in codes:
        how = f"was killed by {_named(killed_by)}" if killed_by else f"has ended with code {code}"
        sys.stderr.write(f"error: Process {rank} {how}; a training goes on with --resume auto.\n")
    return Stopped(killed_by).exit_code if killed_by else code


def _named(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:  # one without a name
        return f"signal {number}"
    return f"{name} (as the system does where memory is short)" if name == "SIGKILL" else name


def _end(children: Sequence[Child]) -> None:
    for child in children:
        if child.poll() is None:
            child.kill()
    for child in children:
        child.wait()
