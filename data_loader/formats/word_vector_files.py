"""Files of word vectors, read block by block: word2vec's binary format and text, plain or packed.

Text is a line for each word: the word, then its numbers, apart by spaces or a tab; a first line
"<words> <size>" may stand before (word2vec, fastText) or not (GloVe, GrOVLE). GrOVLE's tables are
published as a zip of one such file, word2vec's news vectors as a gzip of the binary format.
"""

import codecs
import contextlib
import gzip
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np

from utils.errors import BadContent, Truncated, UserError, short
from utils.files import reason

Blocks = Iterator[tuple[list[str], np.ndarray]]
"""Words and their vectors, (words, size) float32, a thousand or so at a time."""

_HEADER = re.compile(rb"(\d{1,9}) (\d{1,6})\s*\n")
_TEXT_SUFFIXES = (".txt", ".vec", ".tsv")
_MAX_WORD = 1000
_MAX_SIZE = 100_000
# The longest line of text that is read: a number takes at most some 25 letters.
_MAX_LINE = _MAX_WORD + 25 * _MAX_SIZE
_BLOCK = 1 << 20
# What both packers raise on damage; gzip's own error is an OSError, zipfile has others for members
# of unknown methods and for names that are none.
_DAMAGED = (
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    ValueError,
    struct.error,
)


@contextlib.contextmanager
def open_word_vectors(path: Path) -> Iterator[tuple[int, Blocks]]:
    """Give the size of the vectors, and an iterator of words with vectors in the order of the file.

    A suffix `.txt`, `.vec` or `.tsv` (of the packed file, too) says that it is text.

    Raises:
        UserError: the file cannot be read, is damaged, or does not hold what its head announces.
    """
    try:
        with contextlib.ExitStack() as stack:
            stream, name, length = _open(path, stack)
            is_text = Path(name).suffix.lower() in _TEXT_SUFFIXES
            yield _text(stream) if is_text else _binary(stream, length)
    except Truncated as error:
        raise UserError(
            f"The word vectors {path} are damaged or truncated: {error}; fetch or make them again."
        ) from error
    except BadContent as error:
        raise UserError(f"Cannot read the word vectors {path}: {error}.") from error
    except _DAMAGED as error:
        raise UserError(
            f"The word vectors {path} are damaged or truncated ({short(error, 120)}); "
            "fetch or make them again."
        ) from error
    except OSError as error:
        raise UserError(f"Cannot read the word vectors {path}: {reason(error)}.") from error


def _open(path: Path, stack: contextlib.ExitStack) -> tuple[IO[bytes], str, int | None]:
    """Return the unpacked stream, the name that tells its format, and its length where known."""
    if path.exists() and not path.is_file():
        raise BadContent("this is no file")
    handle = stack.enter_context(path.open("rb"))
    if path.suffix == ".gz":
        unpacked = stack.enter_context(gzip.GzipFile(fileobj=handle))
        return cast("IO[bytes]", unpacked), path.stem, None
    if path.suffix == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(handle))
        member = _only_member(archive, path.stem)
        return stack.enter_context(archive.open(member)), member.filename, member.file_size
    return handle, path.name, path.stat().st_size


def _only_member(archive: zipfile.ZipFile, stem: str) -> zipfile.ZipInfo:
    """Return the file of an archive, or the one that bears the archive's name."""
    files = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not member.filename.startswith("__MACOSX/")
    ]
    named = [member for member in files if Path(member.filename).stem == stem]
    chosen = files if len(files) == 1 else named
    if len(chosen) != 1:
        held = ", ".join(short(member.filename) for member in files[:8]) or "nothing"
        raise BadContent(f"one file of vectors was expected in it (it holds: {held})")
    return chosen[0]


def _binary(stream: IO[bytes], length: int | None) -> tuple[int, Blocks]:
    start = stream.read(64)
    head = _HEADER.match(start)
    if not head:
        raise BadContent(
            "they are not in word2vec's binary format: the first line must be "
            f'"<words> <size>"; a file of text ends in {", ".join(_TEXT_SUFFIXES)}'
        )
    count, size = int(head[1]), int(head[2])
    if length is not None and head.end() + count * (4 * size + 2) > length:
        raise Truncated(
            f"they announce {count} words of size {size}, more than {length} bytes can hold"
        )
    _check_head(count, size)
    return size, _binary_blocks(stream, start[head.end() :], count, size)


def _binary_blocks(stream: IO[bytes], buffer: bytes, count: int, size: int) -> Blocks:
    """Read word, space, `size` little-endian float32 values, and often a newline."""
    at, width = 0, 4 * size
    words: list[str] = []
    values: list[bytes] = []
    for row in range(count):
        if len(buffer) - at < _MAX_WORD + width + 2:
            buffer = buffer[at:] + stream.read(_BLOCK + width)
            at = 0
        while buffer[at : at + 1] == b"\n":
            at += 1
        space = buffer.find(b" ", at, at + _MAX_WORD)
        stop = space + 1 + width
        if space < 0 or stop > len(buffer):
            raise Truncated(f"entry {row + 1} of {count} cannot be read")
        words.append(buffer[at:space].decode("utf-8", "replace"))
        values.append(buffer[space + 1 : stop])
        at = stop
        if len(words) * width >= _BLOCK or row == count - 1:
            yield words, np.frombuffer(b"".join(values), dtype="<f4").reshape(-1, size)
            words, values = [], []


def _text(lines: IO[bytes]) -> tuple[int, Blocks]:
    first = lines.readline(_MAX_LINE).removeprefix(codecs.BOM_UTF8)
    head = _HEADER.match(first)
    if head:
        count, size = int(head[1]), int(head[2])
        _check_head(count, size)
        return size, _text_blocks(lines, lines.readline(_MAX_LINE), count, size)
    # A word may hold spaces, but the first words of a table are its most frequent ones.
    size = len(first.split()) - 1
    if not 0 < size <= _MAX_SIZE:
        raise BadContent("they are no text of lines with a word and its numbers")
    return size, _text_blocks(lines, first, None, size)


def _check_head(count: int, size: int) -> None:
    if not count or not 0 < size <= _MAX_SIZE:
        raise BadContent(f"they announce {count} words of size {size}")


def _text_blocks(lines: IO[bytes], line: bytes, count: int | None, size: int) -> Blocks:
    row = 0
    words: list[str] = []
    values: list[np.ndarray] = []
    while line:
        if line.strip():
            row += 1
            word, numbers = _entry(line, row, size)
            words.append(word)
            values.append(numbers)
        line = lines.readline(_MAX_LINE)
        if words and (len(words) * size * 4 >= _BLOCK or not line):
            yield words, np.stack(values)
            words, values = [], []
    if count is not None and row != count:
        raise Truncated(f"they announce {count} words and hold {row}")


def _entry(line: bytes, row: int, size: int) -> tuple[str, np.ndarray]:
    parts = line.rsplit(None, size)
    try:
        if len(parts) != size + 1:
            raise ValueError
        values = np.array(parts[1:], dtype=np.float64)
    except ValueError as error:
        # What a cut line looks like, and what any other file looks like.
        kind = Truncated if row > 1 else BadContent
        raise kind(f"entry {row} is no word with {size} numbers ({short(line[:40])})") from error
    with np.errstate(over="ignore"):
        return parts[0].strip().decode("utf-8", "replace"), values.astype(np.float32)
