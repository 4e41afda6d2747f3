"""Tables of words in every form in which they are published: binary, text, gzip, zip."""

import gzip
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loader.store.word_vectors import read_word_vectors, wanted_words
from tests.own_data import write_word_vectors
from utils.errors import UserError

WORDS = ["the", "dog", "can't", "new york", "é"]
VALUES = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def text_of(words: list[str], values: np.ndarray, head: bool, gap: str = " ") -> bytes:
    lines = [f"{len(words)} {values.shape[1]}"] if head else []
    lines += [gap.join([w, *map(repr, row.tolist())]) for w, row in zip(words, values, strict=True)]
    return "\n".join(lines).encode()


def write(folder: Path, kind: str) -> Path:
    """Write the table in one of its forms."""
    if kind == "binary":
        write_word_vectors(folder / "w.bin", ["the", "dog", "can't", "new_york", "é"], VALUES)
        return folder / "w.bin"
    if kind == "binary gzip":
        plain = write(folder, "binary")
        (folder / "w.bin.gz").write_bytes(gzip.compress(plain.read_bytes()))
        return folder / "w.bin.gz"
    text = text_of(WORDS, VALUES, head="head" in kind, gap="\t" if "tab" in kind else " ")
    if "gzip" in kind:
        (folder / "w.vec.gz").write_bytes(gzip.compress(text))
        return folder / "w.vec.gz"
    if "zip" in kind:
        with zipfile.ZipFile(folder / "w.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/w.txt", text)
            archive.writestr("folder/README.md", "about")
            archive.writestr("__MACOSX/w.txt", "junk")
        return folder / "w.zip"
    (folder / "w.txt").write_bytes(text)
    return folder / "w.txt"


KINDS = ["binary", "binary gzip", "text", "text head", "text tab", "text head gzip", "text zip"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_gives_the_same_table(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    table = read_word_vectors(path)
    np.testing.assert_array_equal(table.values, VALUES)
    assert list(table.rows)[:3] == WORDS[:3] and "é" in table.rows
    np.testing.assert_allclose(table.mean, VALUES.mean(axis=0), rtol=1e-6)
    # What is not wanted is not kept, but counts in the mean.
    part = read_word_vectors(path, wanted_words(["The dog.", "cat"]))
    assert list(part.rows) == ["the", "dog"]
    np.testing.assert_array_equal(part.values, VALUES[:2])
    np.testing.assert_array_equal(part.mean, table.mean)


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(
        st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=6), min_size=2
    ),
    size=st.integers(1, 4),
)
def test_text_and_binary_agree(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], size: int
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    values = np.random.default_rng(len(words)).standard_normal((len(words), size))
    values = values.astype(np.float32)
    write_word_vectors(folder / "w.bin", words, values)
    (folder / "w.txt").write_bytes(text_of(words, values, head=True))
    binary, text = read_word_vectors(folder / "w.bin"), read_word_vectors(folder / "w.txt")
    assert binary.rows == text.rows
    np.testing.assert_array_equal(binary.values, text.values)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.txt", b"", "lines"),
        ("w.txt", b"word\n", "lines"),
        ("w.txt", b"3 2\na 1 2\nb 3 4\n", "3 words.* 2"),
        ("w.txt", b"0 2\n", "announce 0 words"),
        ("w.txt", b"2 999999\na 1\n", "999999"),
        ("w.txt", b"a 1 2\nb 3\n", "entry 2"),
        ("w.txt", b"a 1 2\nb 3 four\n", "entry 2"),
        ("w.txt", b"some prose here\n", "entry 1"),
        ("w.txt", b"a 1 nan\n", 'non-finite values .word "a"'),
        ("w.txt", b"a 1 1e300\n", 'non-finite values .word "a"'),
        ("w.bin", b"the text 1 2\n", ".txt"),
        ("w.bin.gz", b"no gzip", "damaged or truncated"),
        ("w.bin.gz", gzip.compress(b"2 3\na ", mtime=0)[:-5], "damaged or truncated"),
        ("w.zip", b"no zip", "damaged or truncated"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_word_vectors(tmp_path / name)


def test_a_missing_file_and_an_ambiguous_zip(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist"):
        read_word_vectors(tmp_path / "w.bin.gz")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("one.txt", "a 1")
        archive.writestr("two.txt", "a 1")
    with pytest.raises(UserError, match=r"one.txt, two.txt"):
        read_word_vectors(tmp_path / "w.zip")


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    for head in (True, False):
        content = text_of(["a", "dog", "runs"], values, head)
        (tmp_path / "w.txt").write_bytes(b"\xef\xbb\xbf" + content)
        table = read_word_vectors(tmp_path / "w.txt")
        assert list(table.rows) == ["a", "dog", "runs"]
        np.testing.assert_allclose(table.values, values, rtol=1e-5)


def test_memory_is_that_of_the_wanted_words(tmp_path: Path) -> None:
    """A packed line without an end, and a table much larger than what is asked of it."""
    with gzip.open(tmp_path / "w.txt.gz", "wb") as handle:
        handle.write(b"a 1 " + b"0" * 40_000_000)
    values = np.ones((20_000, 300), dtype=np.float32)
    write_word_vectors(tmp_path / "w.bin", [f"w{n}" for n in range(20_000)], values)
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            read_word_vectors(tmp_path / "w.txt.gz")
        table = read_word_vectors(tmp_path / "w.bin", {"w7", "w19999"})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert list(table.rows) == ["w7", "w19999"]
    assert peak < 20e6
