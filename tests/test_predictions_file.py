"""Predictions as CSV: what is written is read again, what anybody else wrote is checked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logger.predictions import as_csv, largest_size, parse_predictions
from utils.errors import UserError

# Queries, videos, seed.
TABLES = st.tuples(st.integers(1, 8), st.integers(10, 30), st.integers(0, 2**32 - 1))


def draw(rng: np.random.Generator, queries: int, videos: int) -> np.ndarray:
    return np.array([rng.permutation(videos)[:10] for _ in range(queries)])


@settings(deadline=None)
@given(TABLES, st.booleans(), st.booleans())
def test_what_is_written_is_read(case: tuple[int, int, int], spaces: bool, returns: bool) -> None:
    queries, videos, seed = case
    table = draw(np.random.default_rng(seed), queries, videos)
    text = as_csv(table)
    assert len(text) <= largest_size(queries)
    text = text.replace(",", ", ") if spaces else text
    text = text.replace("\n", "\r\n") if returns else text
    found = parse_predictions(text.encode(), videos, queries, "x.csv")
    np.testing.assert_array_equal(found, table)
    np.testing.assert_array_equal(
        parse_predictions(text.rstrip().encode(), videos, queries, "x.csv"), table
    )


WRONG_CELLS = {
    "": "no integer",
    "1.0": "no integer",
    "1e1": "no integer",
    "nan": "no integer",
    "0x1": "no integer",
    "+1": "no integer",
    "1 2": "no integer",
    "9" * 30: "no integer",
    "-1": "names the video -1",
    "9" * 18: "names the video 9999",
}


@settings(deadline=None)
@given(TABLES, st.sampled_from(list(WRONG_CELLS)), st.data())
def test_one_wrong_cell_is_found(
    case: tuple[int, int, int], cell: str, data: st.DataObject
) -> None:
    queries, videos, seed = case
    rows = [
        line.split(",") for line in as_csv(draw(np.random.default_rng(seed), *case[:2])).split()
    ]
    row, column = data.draw(st.integers(0, queries - 1)), data.draw(st.integers(0, 9))
    kind = data.draw(st.sampled_from(["cell", "last", "twice", "short", "long"]))
    sentence = WRONG_CELLS[cell]
    if kind == "cell":
        rows[row][column] = cell
    elif kind == "last":
        rows[row][column] = str(videos)
        sentence = f"names the video {videos}; those from 0 to {videos - 1} are there"
    elif kind == "twice":
        rows[row][column] = rows[row][column - 1]
        sentence = f"names the video {rows[row][column]} twice"
    elif kind == "short":
        del rows[row][column]
        sentence = "has 9 columns, 10 were expected"
    else:
        rows[row].append("0")
        sentence = "has 11 columns"
    content = "".join(",".join(cells) + "\n" for cells in rows).encode()
    with pytest.raises(UserError) as error:
        parse_predictions(content, videos, queries, "x.csv")
    assert str(error.value).startswith(f"x.csv, row {row + 1}, ") and sentence in str(error.value)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_of_anybody_are_read_or_refused(content: bytes) -> None:
    try:
        found = parse_predictions(content, 12, 2, "x.csv")
    except UserError as error:
        assert str(error).startswith("x.csv") and "\n" not in str(error)
    else:
        assert found.shape == (2, 10) and found.min() >= 0 and found.max() < 12


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "0 rows"),
        (b"0,1,2,3,4,5,6,7,8,9\n", "1 rows"),
        (b"0,1,2,3,4,5,6,7,8,9\n" * 3, "3 rows"),
        (b"0,1,2,3,4,5,6,7,8,9\n\n", "row 2, has 1"),
        (b"\xef\xbb\xbf0,1\n1\n", "not plain ASCII"),
        ("٣,1\n1\n".encode(), "not plain ASCII"),
        (b"1" * (largest_size(2) + 1), "too much"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole(content: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_predictions(content, 12, 2, "x.csv")
