"""What training and validation captions tell an index, beside naive twins."""

from pathlib import Path

import numpy as np
import pytest
import torch

from misc.build_index.hubs import KEPT, Hubs, calibrate, stored
from misc.search.index.folder import Index
from model.hubness import INVERTED_SOFTMAX, NEAREST, Rule
from model.similarity import similarity
from tests.search_index import random_videos, write_index
from tests.test_search_ranking import random_text

SIZES = (8, 6)


@pytest.mark.parametrize(
    "rule", [Rule(NEAREST, k=3, alpha=0.5), Rule(INVERTED_SOFTMAX, alpha=0.5, temperature=0.1)]
)
def test_hubs_are_measured_by_the_bank(tmp_path: Path, rule: Rule) -> None:
    text, video = random_text(9, SIZES), random_videos(20, SIZES)
    hubs = Hubs(rule, stored(text.embeddings, text.weights))
    near = similarity(hubs.bank, video).double()
    if rule.kind == NEAREST:
        expected = 0.5 * near.sort(dim=0, descending=True).values[:3].mean(dim=0)
    else:
        expected = 0.5 * 0.1 * (near / 0.1).exp().mean(dim=0).log()
    np.testing.assert_allclose(hubs(video), expected, atol=1e-6)
    # One after the other, and by the bank as it is written, they are the same.
    hubs.write(tmp_path)
    again = Hubs.read(tmp_path, vars(rule))
    np.testing.assert_allclose(
        np.concatenate([again(video[slice(n, n + 1)]) for n in range(20)]), hubs(video), atol=1e-6
    )


def test_a_match_is_confident_from_what_most_captions_reach(tmp_path: Path) -> None:
    video, text = random_videos(60, SIZES), random_text(40, SIZES)
    offsets = np.random.default_rng(0).random(60).astype(np.float32) / 4
    ids = write_index(tmp_path, video[slice(0, 50)], offsets=offsets[:50])
    ids += [f"elsewhere{n}" for n in range(10)]  # the last ten are not in the index
    owners = [(7 * n) % 60 for n in range(40)]
    own = video[torch.tensor(owners)]

    found = calibrate(
        Index(tmp_path), text, [ids[n] for n in owners], own, lambda _: offsets[owners]
    )

    scores = similarity(text, video).numpy() - offsets
    there, not_there = [], []
    for query, owner in enumerate(owners):
        others = [scores[query, n] for n in range(50) if n != owner]
        not_there.append(max(others))
        there.append(max(scores[query, owner], max(others)))
    threshold = sorted(there)[int((1 - KEPT) * 40)]
    assert found.threshold == pytest.approx(threshold, abs=1e-6)
    assert found.captions == 40
    assert found.kept == pytest.approx(np.mean([s >= threshold - 1e-7 for s in there]))
    assert found.refused == pytest.approx(np.mean([s < threshold - 1e-7 for s in not_there]))


def test_one_video_calibrates_nothing(tmp_path: Path) -> None:
    video = random_videos(1, SIZES)
    ids = write_index(tmp_path, video)
    assert calibrate(Index(tmp_path), random_text(1, SIZES), ids, video, None) is None
