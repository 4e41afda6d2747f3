"""A process that ends before the others ends them too, within seconds, and says why.

Who computes waits for the others in libraries that may not notice for minutes that one of them has
gone. So each process holds a connection to the first one, which the system closes whatever it dies
of; a thread of each watches, and the first one tells the others.
"""

import contextlib
import hmac
import json
import os
import secrets
import select
import socket
import sys
import threading
import time
from typing import Any

from trainer.processes.group import Group
from trainer.processes.launch import WITHOUT_A_WORD
from utils.errors import short

# So long a process has to end by itself, in order, when another one has gone.
SECONDS_TO_LEAVE = 5.0
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_CONNECT = 60.0
_LONGEST_MESSAGE = 2**16
_UNTOLD = "it was killed, or its machine has gone; go on with --resume auto"
_ORPHANED = "what had started it was killed; go on with --resume auto"


class Lifeline:
    """The connections of this process, and the thread that watches them.

    Args:
        processes: all of them make theirs at the same time.
        host: where the first one is reached.
        parent: the process that has started this one, which it does not outlive; 0: none.
        speaks: whether this one says why it ends with another one.
        parent_speaks: the parent says it where it knows better: of one that went without a word.

    Attributes:
        lost: what to say of the process that has gone; "": nothing, or nothing that the parent
            does not know better.
        code: the exit code that its end asks for.
    """

    def __init__(
        self,
        processes: Group,
        host: str,
        parent: int = 0,
        speaks: bool = True,
        parent_speaks: bool = False,
    ) -> None:
        self.lost, self.code = "", 1
        self._speaks, self._parent_speaks = speaks, parent_speaks
        self._parent, self._is_over = parent, False
        self._rank, self._is_first = processes.rank, processes.is_first
        self._has_noticed = threading.Event()
        listening = socket.create_server(("", 0)) if self._is_first else None
        port = listening.getsockname()[1] if listening else 0
        port, secret = processes.from_first((port, secrets.token_hex()))
        if listening:
            self._others = _accepted(listening, secret, processes.count)
        else:
            connection = socket.create_connection((host, port), _SECONDS_TO_CONNECT)
            self._others = {connection: 0}
            _send(connection, {"rank": self._rank, "secret": secret})
        for connection in self._others:
            connection.settimeout(SECONDS_TO_LEAVE)
        processes.wait()
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def finish(self) -> None:
        """Tell the others that this process ends as it should."""
        self._is_over = True
        self._tell({"over": True})

    def fail(self, reason: str, code: int) -> None:
        """Tell the others that this process ends too early, and why."""
        self._is_over = True
        self._tell({"reason": reason, "code": code, "rank": self._rank})

    def notice(self, seconds: float) -> bool:
        """Wait until it is known which process has gone; False: none so far."""
        return self._has_noticed.wait(seconds)

    def _tell(self, message: dict[str, Any]) -> None:
        for connection in list(self._others):
            with contextlib.suppress(OSError):
                _send(connection, message)

    def _watch(self) -> None:
        while self._others and not self._is_over:
            if self._parent and os.getppid() != self._parent:
                self._tell({"reason": _ORPHANED, "code": 1, "rank": self._rank})
                self._leave(f"Process {self._rank} ends: {_ORPHANED}.", 1, 0.0)
            readable, _, _ = select.select(list(self._others), [], [], _SECONDS_BETWEEN_LOOKS)
            for connection in readable:
                rank = self._others.pop(connection)
                try:
                    message = _receive(connection)
                except (OSError, ValueError):
                    message = {}
                if not message.get("over") and not self._is_over:
                    self._lose(message.get("rank", rank), message)

    def _lose(self, rank: int, message: dict[str, Any]) -> None:
        reason, code = str(message.get("reason", "")).rstrip("."), message.get("code")
        code = code if type(code) is int else 1
        if self._is_first:
            self._tell({"reason": reason, "code": code, "rank": rank})
        if not reason and self._parent_speaks:
            self._leave("", WITHOUT_A_WORD, SECONDS_TO_LEAVE)
        else:
            reason = reason or _UNTOLD
            self._leave(f"Process {rank} has ended: {reason}.", code, SECONDS_TO_LEAVE)

    def _leave(self, sentence: str, code: int, seconds: float) -> None:
        """End this process, unless it ends by itself in time."""
        self.lost, self.code = sentence, code
        self._has_noticed.set()
        time.sleep(seconds)
        if not self._is_over:
            self.speak()
            os._exit(code)

    def speak(self) -> None:
        """Say which process has gone, and why, where this one is to say it."""
        if self._speaks and self.lost:
            sys.stderr.write(f"error: {short(self.lost, 2000)}\n")
            sys.stderr.flush()


def _accepted(listening: socket.socket, secret: str, count: int) -> dict[socket.socket, int]:
    """Take the connections of all other processes, and of nobody else."""
    others: dict[socket.socket, int] = {}
    until = time.monotonic() + _SECONDS_TO_CONNECT
    with listening:
        while len(others) < count - 1:
            listening.settimeout(max(0.1, until - time.monotonic()))
            connection, _ = listening.accept()
            connection.settimeout(SECONDS_TO_LEAVE)
            try:
                hello = _receive(connection)
                is_known = hmac.compare_digest(str(hello["secret"]), secret)
            except (OSError, ValueError, KeyError):
                is_known = False
            if is_known:
                others[connection] = hello["rank"]
            else:
                connection.close()
    return others


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket) -> dict[str, Any]:
    """Return the next message (OSError, ValueError: there is none)."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte or len(line) > _LONGEST_MESSAGE:
            raise ValueError("the connection has ended")
        line += byte
    message = json.loads(line)
    if type(message) is not dict:
        raise ValueError("no message")
    return message
