"""Ids that nearly meet are told with what keeps them apart; texts of files steer no terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loader.sets.near_ids import hint, near_miss
from utils.errors import UserError, is_writable, listed, printable, short

IDS = [f"video{number:03}" for number in (0, 7, 12, 130)]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda name: f"{name}.avi", "a file's ending"),
        (lambda name: f"{name}.mp4", "a file's ending"),
        (lambda name: f"cat/{name}", "folders in front of them"),
        (lambda name: f"C:\\cat\\{name}", "folders in front of them"),
        (str.upper, "letter case"),
        (lambda name: f"video{int(name[5:])}", "leading zeros"),
        (lambda name: f"{name} ", "spaces around them"),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_one_cause_is_found_whichever_side_it_is_on(change, cause, swapped) -> None:
    wanted, known = [change(name) for name in IDS], IDS
    if swapped:
        wanted, known = known, wanted
    found = near_miss(wanted, known)
    # "video130" has no leading zero to lose.
    assert found.count == len(IDS) - (cause == "leading zeros")
    assert found.causes == (cause,)
    assert known[wanted.index(found.wanted)] == found.known
    assert hint(wanted, known).startswith(f"; {found.count} of them differ from ids there only by")


def test_forms_of_one_letter_are_spelled_out() -> None:
    composed = [f"café{number}" for number in range(3)]
    found = near_miss(composed, [unicodedata.normalize("NFD", name) for name in composed])
    assert found.count == 3 and found.causes == ("their Unicode form",)
    assert r"'caf\xe90' from 'cafe\u03010'" in str(found)


def test_several_causes_at_once() -> None:
    found = near_miss(["a/VIDEO7.avi", "a/VIDEO12.avi"], IDS)
    assert found.count == 2
    assert set(found.causes) == {
        *("folders in front of them", "a file's ending", "letter case", "leading zeros")
    }


def test_the_remedy_for_an_ending_that_lists_alone_have() -> None:
    assert '"ids_end_at": ".avi"' in hint(["v1.avi"], ["v1"])
    assert "ids_end_at" not in hint(["v1"], ["v1.avi"])
    assert "ids_end_at" not in hint(["V1.avi"], ["v1"])


@pytest.mark.parametrize(
    ("wanted", "known"),
    [
        (["a"], ["b"]),
        (["a"], []),
        ([], ["a"]),
        (["a"], ["a"]),
        # Both are wanted as they stand: the missing one is another video.
        (["Abc", "abc"], ["abc"]),
        # Videos of the same number in other folders are others.
        (["c3/1"], ["c1/1", "c2/1"]),
        # A version is no ending.
        (["v1.5"], ["v1"]),
        (["v10"], ["v1", "v100"]),
    ],
)
def test_what_is_no_near_miss(wanted: list[str], known: list[str]) -> None:
    assert near_miss(wanted, known) is None
    assert hint(wanted, known) == ""


@given(st.sets(st.text(max_size=6), max_size=12), st.sets(st.text(max_size=6), max_size=12))
def test_what_is_told_is_so(wanted: set[str], known: set[str]) -> None:
    found = near_miss(wanted, known)
    if found:
        assert found.wanted in wanted - known and found.known in known - wanted
        assert 1 <= found.count <= len(wanted - known) and found.causes


@given(st.text())
def test_printable_texts_hold_nothing_that_steers(text: str) -> None:
    shown = printable(text)
    for letter in shown:
        assert unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(letter) not in (
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
        )
    assert printable(shown) == shown
    assert str(UserError(text)) == shown
    kept = printable(text, keep="\n\t")
    assert kept.count("\n") == text.count("\n") and kept.count("\t") == text.count("\t")


def test_what_is_shown_of_a_text() -> None:
    plain = "größer 猫 \N{ZERO WIDTH JOINER}👩\N{ZERO WIDTH JOINER}🚀 \\ 'a' \"b\""
    assert printable(plain) == plain
    assert printable("\x1b]0;x\x07\r\n\x9b\u2066\ud800\U000e0041") == (
        r"\x1b]0;x\x07\r\n\x9b\u2066\ud800\U000e0041"
    )


def test_what_is_long_is_cut_and_what_is_many_is_counted() -> None:
    assert short("x" * 60) == "x" * 60 and short("x" * 61) == "x" * 60 + "..."
    assert short(b"\x1b", 3) == "b'\\..." and short("\x1b[2J") == r"\x1b[2J"
    assert listed(map(str, range(3)), most=3) == "0, 1, 2" and listed([]) == ""
    assert listed("abc", most=1, separator="; ") == "a and 2 more"


@pytest.mark.parametrize("text", ["a\0", "\ud800", "x\udfff"])
def test_what_no_file_can_hold(text: str) -> None:
    assert not is_writable(text) and is_writable("größer 猫\n\x1b")
    assert not is_writable("a\n", in_one_line=True) and is_writable("größer 猫", in_one_line=True)
