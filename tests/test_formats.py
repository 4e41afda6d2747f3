"""Reading files of strangers: what plain data hold comes out, everything else is refused."""

import collections
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_loader.formats import apart, pickles
from data_loader.formats.pickles import read_pickle
from data_loader.formats.read import (
    read_feature_file,
    read_id_list,
    read_plain_mapping,
    read_text_feature_file,
)
from data_loader.store.word_vectors import read_word_vectors, words_of
from tests.conftest import ROOT
from tests.every_format import write_msgpack, write_npz, write_pickle
from tests.own_data import write_word_vectors
from utils.errors import UserError


def same(found: Any, expected: Any) -> bool:
    """Compare plain values; tuples are read as lists, bytes as text."""
    if isinstance(expected, np.ndarray) and expected.dtype == object:
        return same(found, list(expected))
    if isinstance(expected, np.ndarray):
        equal = np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f")
        return equal and found.dtype == expected.dtype
    if isinstance(expected, float) and expected != expected:
        return found != found
    if isinstance(expected, bytes):
        return found == expected.decode()
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[k], expected[k]) for k in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


ARRAYS = hnp.arrays(
    st.sampled_from(["<f2", "<f4", ">f4", "<f8", "<i4", "|u1", "|b1", "<U3", "|S2"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


def pickled_and_read(value: Any, protocol: int, smallest: int) -> Any:
    """Read what Python pickles by its machine in C, or from `smallest` bytes on by the other."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile() as file:
        patch.setattr(pickles, "_SMALL", smallest)
        pickle.dump(value, file, protocol)
        file.seek(0)
        return read_pickle(file)


both_machines = pytest.mark.parametrize("smallest", [0, 1 << 20])


@both_machines
@settings(max_examples=120, deadline=None)
@given(value=PLAIN, protocol=st.integers(0, 5), fortran=st.booleans())
def test_what_python_pickles_is_read_back(
    smallest: int, value: Any, protocol: int, fortran: bool
) -> None:
    if fortran and isinstance(value, np.ndarray):
        value = np.asfortranarray(value)
    assert same(pickled_and_read(value, protocol, smallest), value)


@both_machines
@pytest.mark.parametrize("protocol", range(6))
def test_containers_of_the_library_and_numpy_scalars(protocol: int, smallest: int) -> None:
    value = {
        "ordered": collections.OrderedDict(b=1, a=[2]),
        "default": collections.defaultdict(list, {"k": [1.5]}),
        "scalar": [np.float32(2.5), np.int64(-3)],
        "objects": np.array([np.zeros((2, 3), "f2"), np.ones((1, 3), "f2"), None], dtype=object),
        "raw": b"abc",
        "members": {"x", "y"},
    }
    assert same(pickled_and_read(value, protocol, smallest), value)


def test_pickle_of_python_2_and_numpy_1(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0], [0.25, 1e-3]], dtype="<f4")
    path = tmp_path / "old.pickle"
    path.write_bytes(
        b"\x80\x02}q\x00U\x06video7q\x01cnumpy.core.multiarray\n_reconstruct\nq\x02"
        b"cnumpy\nndarray\nq\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02K\x02\x86q\x08"
        b"cnumpy\ndtype\nq\x09U\x02f4q\x0aK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01<q\x0d"
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x10"
        + values.tobytes()
        + b"q\x0ftq\x10bs."
    )
    table = read_feature_file(path)
    np.testing.assert_array_equal(table["video7"], values)


def test_expert_stores(golden: Path) -> None:
    folder = golden / "tiny_msrvtt" / "alt_formats"
    with np.load(folder / "expertstore_expected.npz") as expected:
        for path in folder.glob("*.pickle"):
            table = read_feature_file(path)
            assert list(table) == expected.files
            assert table["video2"] is None
            for key in set(table) - {"video2"}:
                np.testing.assert_array_equal(table[key], expected[key])


class RunsACommand:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@both_machines
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, smallest: int
) -> None:
    monkeypatch.setattr(pickles, "_SMALL", smallest)
    path, trace = tmp_path / "evil.pickle", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"v": RunsACommand(f"touch {trace}")}, protocol=protocol))
    with pytest.raises(UserError, match=r"evil\.pickle.*(posix|nt)\.system"):
        read_feature_file(path)
    assert not trace.exists()


ARRAY_HEAD = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
FLOAT_TYPE = (
    b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R"
    b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
STORE = b"czsvision.zs_data_structures\nExpertStore\n"
HOSTILE = {
    "an array larger than its bytes": ARRAY_HEAD
    + b"(K\x01\x8a\x05\x00\x00\x00\x00\x40\x85"
    + FLOAT_TYPE
    + b"\x89C\x08abcdefghtb.",
    "a structured type": ARRAY_HEAD
    + b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02V8\x89\x88\x87R\x89C\x08abcdefghtb.",
    "a memo place far away": b"Nr\xff\xff\xff\x7f0" * 10 + b"b.",
    "a length beyond the file": b"\x8e\x00\x00\x00\x00\x00\x00\x00\x40abc.",
    "a frame beyond the file": b"\x95\x00\x00\x00\x00\x00\x00\x00\x40N.",
    "a key whose hash takes forever": b"}N\x85" + b"2\x86" * 64 + b"K\x01s.",
    "a set of such members": b"\x8f(N\x85" + b"2\x86" * 64 + b"\x90.",
    "a list in itself": b"]2a.",
    "deep nesting": b"]" * 500 + b"a" * 499 + b".",
    "an object of a class": b"(ios\nsystem\n.",
    "a persistent id": b"Pevil\n.",
    "an extension code": b"\x82\x01.",
    "a state for a class": STORE + b"}X\x01\x00\x00\x00aK\x01sb.",
    "a call of a value": b"K\x01)R.",
    "a call of a type": b"cnumpy\nndarray\n)R.",
    "a function of numpy": b"cnumpy\nload\nX\x01\x00\x00\x00a\x85R.",
    "a dotted name": b"cnumpy.core\nmultiarray._reconstruct\n.",
    "an unknown protocol": b"\x80\x63N.",
    "no pickle at all": b"hello world, these are no features",
    "too many sets": b"(" + b"\x8f" * 400_000 + b"l.",
    "an endless number": b"I" + b"9" * 100_000 + b"\n.",
}


@both_machines
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_without_large_allocations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, smallest: int
) -> None:
    monkeypatch.setattr(pickles, "_SMALL", smallest)
    monkeypatch.setattr(apart, "_FREE_SECONDS", 1)
    path = tmp_path / "hostile.pickle"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"hostile\.pickle"):
            read_feature_file(path)
        assert tracemalloc.get_traced_memory()[1] < 300_000_000
    finally:
        tracemalloc.stop()


def test_one_array_named_for_a_million_videos_is_refused(tmp_path: Path) -> None:
    array = np.ones((500, 500), dtype=np.float32)
    path = tmp_path / "repeated.pickle"
    path.write_bytes(pickle.dumps({f"v{number}": array for number in range(2000)}))
    with pytest.raises(UserError, match="repeats"):
        read_feature_file(path)


@both_machines
def test_truncated_pickles_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smallest: int
) -> None:
    monkeypatch.setattr(pickles, "_SMALL", smallest)
    table = {f"v{number}": np.arange(5, dtype=np.float32) + number for number in range(2)}
    whole, path = pickle.dumps(table), tmp_path / "cut.pickle"

    def read_all() -> None:
        for size in range(len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(UserError, match=rf"cut\.pickle.*truncated \({size} bytes\)"):
                read_feature_file(path)

    apart.apart([], read_all)  # one process for all


def _mutations(whole: bytes, count: int) -> list[bytes]:
    rng = np.random.default_rng(5)
    results = []
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(data)))
            match int(rng.integers(4)):
                case 0:
                    data[at] = int(rng.integers(256))
                case 1:
                    del data[at : at + int(rng.integers(1, 9))]
                case 2:
                    data[at:at] = rng.bytes(int(rng.integers(1, 9)))
                case _:
                    data[at] ^= 1 << int(rng.integers(8))
        results.append(bytes(data))
    return results


@pytest.mark.parametrize("suffix", [".pickle", ".npz", ".json"])
def test_mutated_files_give_a_table_or_a_clear_error(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    table = {f"v{n}": rng.standard_normal((n % 3 + 1, 3)).astype("f4") for n in range(5)}
    path = tmp_path / f"whole{suffix}"
    if suffix == ".npz":
        write_npz(path, table, variable=True)
    elif suffix == ".pickle":
        write_pickle(path, {**table, "v9": None, "v10": [1.5, 2.0]})
    else:
        path.write_text(json.dumps({key: value.tolist() for key, value in table.items()}))

    def read_all() -> int:
        refused = 0
        for data in _mutations(path.read_bytes(), 200):
            path.write_bytes(data)
            try:
                result = read_feature_file(path)
            except UserError as error:
                assert path.name in str(error)
                refused += 1
            else:
                arrays = [value for value in result.values() if value is not None]
                assert all(isinstance(value, np.ndarray) for value in arrays)
                assert all(value.dtype.kind in "fiub" for value in arrays)
        return refused

    assert apart.apart([], read_all) > 30  # one process for all


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_tables(tmp_path: Path, compressed: bool) -> None:
    save = np.savez_compressed if compressed else np.savez
    feats = np.asfortranarray(np.arange(12, dtype=np.float16).reshape(4, 3))
    save(tmp_path / "fixed.npz", ids=np.array(["a", "b", "c", "d"]), feats=feats)
    table = read_feature_file(tmp_path / "fixed.npz")
    assert list(table) == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(table["c"], feats[2])
    offsets = np.array([0, 3, 3, 4])
    save(tmp_path / "ragged.npz", ids=np.array([7, 8, 9]), feats=feats, offsets=offsets)
    table = read_feature_file(tmp_path / "ragged.npz")
    np.testing.assert_array_equal(table["7"], feats[:3])
    assert table["8"] is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"feats": np.ones((2, 3))}, '"ids"'),
        ({"ids": np.array(["a"]), "feats": np.ones((2, 3))}, "1 ids for 2 entries"),
        ({"ids": np.array(["a", "a"]), "feats": np.ones((2, 3))}, 'video "a" twice'),
        (
            {"ids": np.array(["a"]), "feats": np.ones((2, 3)), "offsets": np.array([0, 5])},
            "offsets",
        ),
        ({"ids": np.array(["a"]), "feats": np.array([{}], dtype=object)}, "no plain array"),
        ({"ids": np.array(["a"]), "feats": np.array(["x"])}, "features"),
    ],
)
def test_npz_that_do_not_fit_together(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=message):
        read_feature_file(tmp_path / "bad.npz")


def _member(shape: str, data: bytes) -> bytes:
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data


@pytest.mark.parametrize("size", [1 << 40, 3])
def test_npz_header_that_announces_another_size(tmp_path: Path, size: int) -> None:
    ids = io.BytesIO()
    np.save(ids, np.array(["a"]))
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as archive:
        archive.writestr("ids.npy", ids.getvalue())
        archive.writestr("feats.npy", _member(f"({size}, 4)", b"\0" * 16))
    with pytest.raises(UserError, match=r"big\.npz.*needs"):
        read_feature_file(tmp_path / "big.npz")


def test_npz_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    # A small one stands for it, and a new process for one that has no freed memory to fill.
    program = """
import sys
from data_loader.formats import apart
from data_loader.formats.read import read_feature_file
apart._FREE_MEMORY, apart._FREE_UNPACKED = 16 << 20, 0
read_feature_file(sys.argv[1])
"""
    data = b"\0" * (80 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ids.npy", _member("(20971520,)", data))
        archive.writestr("feats.npy", b"")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "bomb.npz")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert re.search(r"Refused: .*bomb\.npz.*far more memory", done.stderr), done.stderr


def test_missing_experts_and_experts_without_tokens(tmp_path: Path) -> None:
    table = {
        "nan": float("nan"),
        "none": None,
        "all nan": np.full(3, np.nan, dtype=np.float32),
        "no tokens": np.empty((0, 3), dtype=np.float32),
        "there": np.array([1.0, np.nan, 2.0], dtype=np.float32),
    }
    write_pickle(tmp_path / "e.pkl", table)
    found = read_feature_file(tmp_path / "e.pkl")
    assert {key for key, value in found.items() if value is None} == {"nan", "none", "all nan"}
    (tmp_path / "e.json").write_text('{"a": [1, 2.5], "b": null, "c": [[1, 2], [3, 4]]}')
    found = read_feature_file(tmp_path / "e.json")
    assert found["b"] is None
    np.testing.assert_array_equal(found["c"], np.array([[1, 2], [3, 4]], dtype=np.float32))


def test_text_features_in_pickle_and_npz(tmp_path: Path) -> None:
    text = {
        "a": [np.ones((2, 3), "f2"), np.zeros((1, 3), "f2")],
        "b": [np.full((4, 3), 2, "f2")],
    }
    write_pickle(tmp_path / "t.pkl", text)
    words = np.concatenate([caption for captions in text.values() for caption in captions])
    np.savez(
        tmp_path / "t.npz",
        ids=np.array(["a", "b"]),
        feats=words,
        offsets=np.array([0, 2, 3, 7]),
        caption_offsets=np.array([0, 2, 3]),
    )
    for name in ("t.pkl", "t.npz"):
        assert same(read_text_feature_file(tmp_path / name), text)


def test_lists_of_ids(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("v1\n\n v2 \n")
    (tmp_path / "a.json").write_text('{"train": ["v1", 2], "val": "v3"}')
    assert read_id_list(tmp_path / "a.txt") == ["v1", "v2"]
    assert read_id_list(tmp_path / "a.json", "train") == ["v1", "2"]
    with pytest.raises(UserError, match=r'"test".*train, val'):
        read_id_list(tmp_path / "a.json", "test")
    with pytest.raises(UserError, match="video ids"):
        read_id_list(tmp_path / "a.json", "val")
    (tmp_path / "a.txt").write_text("v1\nv1\n")
    with pytest.raises(UserError, match='"v1" twice'):
        read_id_list(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pickle", None, "does not exist"),
        (
            "a.json",
            b'{"v1": [1.0], "v2": {"feats": [1]}}',
            '"v2" .*"feats"',
        ),
        ("a.json", b'{"v1": [1.0], "v2": [[1], [1, 2]]}', 'video "v2"'),
        ("a.json", b'{"v1": [1.0], "v2": [1, null]}', 'video "v2"'),
        ("a.json", b'{"v1": [1.0], "v2": [1' + b"0" * 400 + b"]}", 'video "v2"'),
        ("a.json", b'{"v\\ud800": [1]}', r'id "v\\ud800"'),
        ("a.json", b'{"v\\u0000": [1]}', r'id "v\\x00"'),
        ("a.json", b'{"' + b"v" * 2000 + b'": [1]}', r"at most 1000"),
        ("a.pickle", pickle.dumps({"v1": np.ones(2), "v2": np.array(["x"])}), 'video "v2".*<U1'),
        ("a.pickle", pickle.dumps({"v1": np.ones(2), "v2": np.array(1.0)}), 'video "v2"'),
        ("a.mp", msgpack.packb({"v1": None, "v2": msgpack.ExtType(5, b"x")}), '"v2"'),
        ("a.pickle", b"", "empty.*truncated"),
        ("a.json", b'{"a": [1, 2', r"a\.json"),
        ("a.json", b"[" * 100_000, r"a\.json"),
        ("a.json", b"[1, 2]", "mapping"),
        ("a.json", b'{"a": "text"}', "str"),
        ("a.json", b'{"a": [[1], [1, 2]]}', r"a\.json"),
        ("a.npz", b"PK\x03\x04 and then nothing", "truncated"),
        ("a.mat", b"x", "MAT-file"),
        ("a.xyz", b"x", r"\.xyz"),
        ("a.pickle", pickle.dumps([1]), "mapping"),
        ("a.pickle", pickle.dumps({1: 2.0, "1": 3.0}), "twice"),
    ],
)
def test_unusable_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_feature_file(tmp_path / name)


def test_a_bad_video_is_named_in_every_format(tmp_path: Path) -> None:
    good, bad = np.ones((2, 3), "f4"), {"features": np.ones((2, 3), "f4"), "fps": 25}
    (tmp_path / "m").mkdir()
    np.save(tmp_path / "m" / "v1.npy", good)
    np.save(tmp_path / "m" / "v2.npy", np.array(bad, dtype=object), allow_pickle=True)
    (tmp_path / "m.pickle").write_bytes(pickle.dumps({"v1": good, "v2": bad}))
    write_msgpack(tmp_path / "m.mp", {"v1": good, "v2": {"a": good}})
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["v1"], file["v2/features"] = good, good
    for name in ("m", "m.pickle", "m.mp", "m.h5"):
        with pytest.raises(UserError, match=r'm.*"v2"'):
            read_feature_file(tmp_path / name)
    (tmp_path / "m" / "v2.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"v2\.npy"):
        read_feature_file(tmp_path / "m")
    scipy.io.savemat(tmp_path / "m.mat", {"v1": good, "v2": {"x": good}})
    with pytest.raises(UserError, match='"v2"'):
        read_feature_file(tmp_path / "m.mat")
    for value in ("text", 1.0, {"a": [good]}, [good, "text"]):
        write_pickle(tmp_path / "t.pkl", {"v1": [good], "v2": value})
        with pytest.raises(UserError, match='"v2"'):
            read_text_feature_file(tmp_path / "t.pkl")


def test_arrays_of_text_are_no_features(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", ids=["a"], feats=np.array([["x"]]))
    with pytest.raises(UserError, match='"feats" holds <U1'):
        read_feature_file(tmp_path / "e.npz")
    cuts = {"offsets": [0, 1], "caption_offsets": [0, 1]}
    np.savez(tmp_path / "t.npz", ids=["a"], feats=np.array([["x"]]), **cuts)
    with pytest.raises(UserError, match='"feats" holds <U1'):
        read_text_feature_file(tmp_path / "t.npz")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("vé1\nv2\n", encoding=encoding)
    (tmp_path / "a.json").write_text('{"val": ["vé1", "v2"]}', encoding=encoding)
    assert read_id_list(tmp_path / "a.txt") == ["vé1", "v2"]
    assert read_id_list(tmp_path / "a.json", "val") == ["vé1", "v2"]
    assert read_plain_mapping(tmp_path / "a.json", "captions") == {"val": ["vé1", "v2"]}


@pytest.mark.parametrize("item", ["true", "null", "1.5", '["v1"]', r'"\ud800"', r'"\u0000"'])
def test_what_is_no_video_id_is_named(tmp_path: Path, item: str) -> None:
    (tmp_path / "a.json").write_text(f'["v1", {item}]')
    with pytest.raises(UserError, match=r"a\.json.*video id") as error:
        read_id_list(tmp_path / "a.json")
    assert str(error.value).isprintable()


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.npz", "a.json", "a.txt", "w.bin"):
        os.mkfifo(tmp_path / name)
    for read in (read_feature_file, read_text_feature_file):
        with pytest.raises(UserError, match="neither a file nor a folder"):
            read(tmp_path / "a.npz")
    for name in ("a.json", "a.txt"):
        with pytest.raises(UserError, match="neither a file nor a folder"):
            read_id_list(tmp_path / name)
    with pytest.raises(UserError, match="no file"):
        read_word_vectors(tmp_path / "w.bin")


def test_plain_mappings(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"a": ["x y"], "b": [["x", "y"]]}')
    assert read_plain_mapping(tmp_path / "c.json", "captions") == {"a": ["x y"], "b": [["x", "y"]]}


def test_words_of_captions() -> None:
    assert words_of("A dog, can't   jump-over: 2 fences!") == [
        *("a", "dog", "can't", "jump", "over", "2", "fences")
    ]
    assert words_of(["Élan", "_vital_", "..."]) == ["élan", "vital"]
    assert words_of(" ?! ") == []


def test_word_vectors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    write_word_vectors(tmp_path / "w.bin", ["a", "dog", "cant", "dog"], values)
    table = read_word_vectors(tmp_path / "w.bin")
    assert table.size == 3
    with caplog.at_level("INFO"):
        found = list(table.look_up(["A dog can't", "xyz xyz", ["zebra", "dog"], ""]))
    np.testing.assert_array_equal(found[0], values[[0, 1, 2]])
    np.testing.assert_allclose(found[1], values.mean(axis=0)[None], rtol=1e-6)
    np.testing.assert_array_equal(found[2], values[[1]])
    np.testing.assert_allclose(found[3], values.mean(axis=0)[None], rtol=1e-6)
    assert "3 of 7 caption words" in caplog.text
    assert "xyz (2), zebra (1)" in caplog.text


def test_damaged_word_vectors(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    write_word_vectors(path, ["a", "dog"], np.ones((2, 3), dtype=np.float32))
    whole = path.read_bytes()
    for size in range(len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"w\.bin"):
            read_word_vectors(path)
    path.write_bytes(b"999999999 999999\nabc")
    with pytest.raises(UserError, match="truncated"):
        read_word_vectors(path)
    write_word_vectors(path, ["a", "dog"], np.array([[1.0], [np.inf]]))
    with pytest.raises(UserError, match=r'non-finite.*"dog"'):
        read_word_vectors(path)
