"""Features that were read do not stay in the memory of the process."""

import sys
from pathlib import Path

import numpy as np
import pytest

from data_loader.store import packed as mapped
from data_loader.store.feature_store import TextFeatures, TextView
from data_loader.store.packed import MappedPages, Packed, Part, read_packed, write_packed

VIDEOS, WORDS, SIZE = 400, 8, 2048  # 26 MB


def packed_text(path: Path) -> Packed:
    values = np.arange(VIDEOS * WORDS, dtype=np.float32)[:, None].repeat(SIZE, axis=1)
    one_caption_each = np.arange(VIDEOS + 1, dtype=np.int64)
    parts = {
        "values": values,
        "offsets": WORDS * one_caption_each,
        "caption_offsets": one_caption_each,
    }
    ids = [f"v{number}" for number in range(VIDEOS)]
    write_packed(path, {name: Part.of(array) for name, array in parts.items()}, {"ids": ids})
    return read_packed(path)


def resident(path: Path) -> int:
    """Bytes of a mapped file that count as memory of this process."""
    total, is_ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            is_ours = line.endswith(f" {path}")
        elif is_ours and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("held", [2**20, 2**30])
def test_pages_that_were_read_go_back(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "_READ_BYTES", held)
    path = tmp_path / "text"
    view = TextView(TextFeatures("text", packed_text(path)), [f"v{n}" for n in range(VIDEOS)], 5)
    most = 0
    for _ in range(2):  # what has gone back is read again
        for start in range(0, VIDEOS, 10):
            videos = np.arange(start, start + 10)
            words, counts = view.gather(videos, np.zeros_like(videos))
            most = max(most, resident(path))
            expected = WORDS * videos[:, None] + np.arange(5)
            np.testing.assert_array_equal(words.numpy()[..., -1], expected)
            assert counts.tolist() == [5] * 10
    everything = VIDEOS * WORDS * SIZE * 4
    if held < everything:
        # The kernel maps up to 2 MB around a page that is read.
        assert most < everything / 2
    else:
        assert most > 0.9 * everything


def test_arrays_in_memory_keep_their_values() -> None:
    array = np.ones((4, 2**20), dtype=np.float32)
    pages = MappedPages(array)
    for _ in range(10):
        pages.were_read(4)
    assert array.all()
    MappedPages(np.empty((0, 3))).were_read(0)
