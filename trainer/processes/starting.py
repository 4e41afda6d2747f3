"""Which processes a program is one of: alone, started here by --device 0,1, or by torchrun."""

import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.processes.alone import ALONE, Processes
from trainer.processes.launch import PARENT, SOCKET, VARIABLES, launch, number_asked_for
from utils.command_line import EXIT_INTERRUPTED, EXIT_WRONG_INPUT
from utils.errors import UserError
from utils.stopping import Stopped, stop_behind

if TYPE_CHECKING:
    from torch.distributed import Store

    from trainer.processes.group import Group
    from trainer.processes.lifeline import Lifeline

# How long one waits for another: whoever draws a page or packs features may take long, and one
# that has gone is noticed otherwise.
_PATIENCE = timedelta(days=7)
# How long they may take to start: where nobody looks after them, as torchrun does, one that cannot
# start is noticed by this alone.
_TIME_TO_MEET = timedelta(minutes=10)
_SECONDS_BETWEEN_LOOKS = 0.05
# After a library has complained: whether that was because another process has gone.
_SECONDS_TO_NOTICE = 3.0


@contextmanager
def processes_of(
    device: str | None, program: Sequence[str], arguments: Sequence[str]
) -> Iterator[Processes]:
    """Give the processes of a program; where they are yet to be started, run it in them and exit.

    Args:
        device: --device.
        program: what Python is to run: a file, or -m and a module.
        arguments: of the command line.

    Raises:
        UserError: --device makes no sense, or another process has ended.
        SystemExit: all has been done by the processes that were started.
    """
    count = number_asked_for(device)
    if not all(name in os.environ for name in VARIABLES):
        if count > 1:
            raise SystemExit(launch([*program, *arguments], count))
        yield ALONE
        return
    _check_numbers()
    group, lifeline = _meet(device)
    try:
        yield group
        group.wait()
    except BaseException as error:
        _leave(group, lifeline, error)
        raise
    lifeline.finish()
    group.close()


def _meet(device: str | None) -> tuple["Group", "Lifeline"]:
    """Meet the other processes, and from now on learn of their ends.

    Raises:
        UserError: they cannot be met.
        SystemExit: the end was asked for, and the first process says so.
    """
    is_launched = PARENT in os.environ
    try:
        group = _join(device)
        from trainer.processes.lifeline import Lifeline

        return group, Lifeline(
            group,
            os.environ["MASTER_ADDR"],
            parent=int(os.environ[PARENT]) if is_launched else _agent(),
            speaks=os.environ["LOCAL_RANK"] == "0",  # each machine may have a log of its own
            parent_speaks=is_launched,
        )
    except BaseException as error:
        stop = stop_behind(error)
        if stop is not None and int(os.environ["RANK"]):
            raise SystemExit(getattr(stop, "exit_code", EXIT_INTERRUPTED)) from None
        raise


def _agent() -> int:
    """Return the torchrun that has started this process, and looks after it; 0: there is none."""
    return os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else 0


def _check_numbers() -> None:
    """Insist that the environment numbers the processes as torchrun does.

    Raises:
        UserError: it was set by hand, and does not.
    """
    names = [name for name in VARIABLES if name != "MASTER_ADDR"]
    given = {name: os.environ[name] for name in names}
    fault = " ".join(f"{name}={value}" for name, value in given.items())
    if all(re.fullmatch("[0-9]{1,9}", value) for value in given.values()):
        rank, count, local, here, port = map(int, given.values())
        if local < here <= count and local <= rank < count and 0 < port < 2**16:
            return
    raise UserError(
        f"The environment ({fault}) does not number processes as torchrun does: let torchrun set "
        "all of it, or unset RANK for a training in one process."
    )


def _join(device: str | None) -> "Group":
    """Meet the other processes.

    Raises:
        UserError: they cannot be met.
    """
    import torch
    import torch.distributed as dist

    from trainer.processes.group import Group

    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank:
        _keep_quiet()
    is_on_gpu = torch.cuda.is_available() and "cpu" not in (device or "")
    backend = "cpu:gloo,cuda:nccl" if is_on_gpu else "gloo"
    try:
        store: Store
        if PARENT in os.environ:
            where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), count
            socket = int(os.environ[SOCKET]) if rank == 0 else None
            store = dist.TCPStore(
                *where, is_master=rank == 0, timeout=_TIME_TO_MEET, master_listen_fd=socket
            )
        else:
            store, _, _ = next(dist.rendezvous("env://", timeout=_TIME_TO_MEET))
            store = dist.PrefixStore(_place(store, rank, count), store)
        store.set_timeout(_PATIENCE)  # NCCL's first exchange still asks it
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(f"Process {rank} cannot meet the others: {reason}.") from error
    return Group()


def _place(store: "Store", rank: int, count: int) -> str:
    """Agree with the others on a place in the store where nobody else has been.

    Where torchrun starts all anew, the store still has the addresses of those before, and each of
    its agents counts restarts of its own. So the first process names a place, and tells each of the
    others by a name of its own that the place is not that of a first process before.

    Raises:
        UserError: the others do not come.
    """
    name, until = secrets.token_hex(), time.monotonic() + _TIME_TO_MEET.total_seconds()
    if rank == 0:
        store.set("place", name)
        for other in range(1, count):
            greeting = store.get(f"{name}/{other}").decode()
            store.set(f"{name}/{greeting}", "")
        return name
    while time.monotonic() < until:
        place = store.get("place").decode()
        store.set(f"{place}/{rank}", name)
        if store.check([f"{place}/{name}"]):
            return place
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    raise UserError(f"Process {rank} cannot meet the others: the first one does not answer.")


def _keep_quiet() -> None:
    """Leave what there is to say to the first process; faults keep their tracebacks."""
    from logger.progress import hide_progress

    sys.stdout.flush()
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    hide_progress()


def _leave(group: "Group", lifeline: "Lifeline", error: BaseException) -> None:
    """Tell the others why this process ends, or learn from them why it has to.

    Raises:
        SystemExit: another one has gone, or speaks for this one.
    """
    stop = stop_behind(error)
    code = getattr(stop, "exit_code", EXIT_INTERRUPTED)
    if stop is None and isinstance(error, RuntimeError) and lifeline.notice(_SECONDS_TO_NOTICE):
        lifeline.finish()
        lifeline.speak()
        raise SystemExit(lifeline.code) from None
    if isinstance(stop, Stopped) and stop.saved:
        lifeline.finish()  # all of them stop
    elif isinstance(error, UserError) and stop is None:
        lifeline.fail(str(error), EXIT_WRONG_INPUT)
        code = EXIT_WRONG_INPUT
    elif stop is not None:
        lifeline.fail(str(stop) or "interrupted", code)
    else:
        lifeline.fail("by a fault of the program, which stands above", 1)
        return
    if not group.is_first:
        raise SystemExit(code) from None
