"""Prefetching changes nothing but when an item is made."""

import threading
from collections.abc import Iterator

import pytest
import torch

from data_loader.batches import prefetch
from data_loader.store.feature_store import numbered
from tests.test_step import make_batch


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


def test_a_batch_is_pinned_whole_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: any(tensor is p for p in pinned))
    sent: list[bool] = []
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, *_, **__: sent.append(tensor.is_pinned()) or tensor
    )
    batch = make_batch()
    ready = batch.pinned()
    count = len(pinned)
    assert count == 2 * len(batch.experts) + 2
    assert all(torch.equal(ready.experts[name], x) for name, x in batch.experts.items())
    ready.to(torch.device("cuda", 0))
    assert sent == [True] * count and len(pinned) == count


def test_cuda_alone_is_the_current_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert numbered("cuda") == torch.device("cuda", 2)
    assert numbered("cuda:1") == torch.device("cuda", 1)
    assert numbered(torch.device("cpu")) == torch.device("cpu")
