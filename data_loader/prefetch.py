"""The next items are made by a thread while the last one is in use."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")

_END = object()


def prefetch(items: Iterator[Item], ahead: int = 2) -> Iterator[Item]:
    """Give the same items in the same order, made up to `ahead` before they are asked for.

    What goes wrong in the making is raised here, in its place. Where the items are not asked for to
    their end, the thread ends too.
    """
    ready: queue.Queue = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(outcome: tuple[object, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(outcome, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as error:  # noqa: BLE001 - all are raised where the items are used
            put((_END, error))
        else:
            put((_END, None))

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
