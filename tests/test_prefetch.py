"""Prefetching changes nothing but when an item is made."""

import threading
from collections.abc import Iterator

import pytest

from data_loader.batches import prefetch


def test_items_come_in_order() -> None:
    assert list(prefetch(iter(range(50)))) == list(range(50))
    assert list(prefetch(iter(()))) == []


def test_items_are_made_by_another_thread_and_not_far_ahead() -> None:
    made, makers = [], set()

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            makers.add(threading.current_thread())
            yield number

    for number in prefetch(items(), ahead=2):
        assert len(made) <= number + 1 + 2 + 1  # in use, ready, in the making
    assert makers.isdisjoint({threading.current_thread()})


def test_an_error_is_raised_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second item")

    given = prefetch(items())
    assert next(given) == 1
    with pytest.raises(ValueError, match="the second item"):
        next(given)


def test_who_leaves_early_leaves_no_thread() -> None:
    before = threading.active_count()
    given = prefetch(iter(range(1000)))
    assert next(given) == 0
    given.close()
    assert threading.active_count() == before
