"""The same features whatever the format; what a format can do beyond plain data is refused."""

import itertools
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
import scipy.io

from data_loader.formats import apart, hdf5
from data_loader.formats.read import read_feature_file, read_plain_mapping, read_text_feature_file
from tests.every_format import (
    WRITERS,
    Table,
    packed_for_msgpack,
    ragged,
    write_hdf5,
    write_hickle,
    write_msgpack,
    write_npy_folder,
    write_pickle,
)
from utils.errors import UserError


@pytest.fixture
def table() -> Table:
    return ragged(np.random.default_rng(4), [f"v{number}" for number in range(9)], 3, most=4)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_table(tmp_path: Path, table: Table, name: str) -> None:
    WRITERS[name](tmp_path / name, table)
    found = read_feature_file(tmp_path / name)
    assert set(found) <= set(table)
    for key, value in table.items():
        assert (found.get(key) is None) == (value is None)
        if value is not None:
            np.testing.assert_array_equal(found[key], value)
            assert found[key].dtype == np.float32


TEXT = {
    "a": [np.ones((2, 3), "f2"), np.zeros((1, 3), "f2")],
    "b": [np.full((4, 3), 2, "f2")],
}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.pkl", write_pickle),
        ("t.mp", write_msgpack),
        ("t.hickle", write_hickle),
        ("four.hickle", lambda path, text: write_hickle(path, text, version=4)),
        ("t.h5", write_hdf5),
        ("zipped.h5", lambda path, text: write_hdf5(path, text, compression="lzf")),
        ("t.npy", lambda path, text: np.save(path, text, allow_pickle=True)),
    ],
)
def test_text_features_in_every_format(tmp_path: Path, name: str, write: Any) -> None:
    write(tmp_path / name, TEXT)
    found = read_text_feature_file(tmp_path / name)
    assert set(found) == set(TEXT)
    for key, captions in TEXT.items():
        for value, expected in zip(found[key], captions, strict=True):
            np.testing.assert_array_equal(value, expected)
            assert value.dtype == np.float16


def test_text_features_in_a_folder_have_one_file_a_video(tmp_path: Path) -> None:
    write_npy_folder(tmp_path / "text", {"a": np.ones((2, 4, 3)), "b": np.ones((5, 3))})
    (tmp_path / "text" / "notes.txt").write_text("not a feature")
    found = read_text_feature_file(tmp_path / "text")
    assert [[caption.shape for caption in found[key]] for key in "ab"] == [
        [(4, 3), (4, 3)],
        [(5, 3)],
    ]


def test_keys_with_slashes_and_numbers_in_hickles(tmp_path: Path) -> None:
    values = {"a/b": np.ones(2), 7: np.zeros(2)}
    write_hickle(tmp_path / "e.hickle", values, version=4)
    assert set(read_feature_file(tmp_path / "e.hickle")) == {"a/b", "7"}


def test_scalars_and_old_strings_in_msgpack(tmp_path: Path) -> None:
    nan = {b"nd": False, b"type": "<f4", b"data": np.float32("nan").tobytes()}
    (tmp_path / "e.mp").write_bytes(
        # A writer that knows no difference between text and bytes.
        msgpack.packb(
            packed_for_msgpack({"a": nan, "b": np.arange(3, dtype="<i8"), "c": [1.5, 2]}),
            use_bin_type=False,
        )
    )
    found = read_feature_file(tmp_path / "e.mp")
    assert found["a"] is None
    assert found["b"].tolist() == [0, 1, 2]
    assert found["c"].tolist() == [1.5, 2.0]


class RunsACommand:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_pickles_inside_other_formats_run_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    evil = RunsACommand(f"touch {trace}")
    np.save(tmp_path / "e.npy", {"v": evil}, allow_pickle=True)
    with pytest.raises(UserError, match=r"e\.npy.*(posix|nt)\.system"):
        read_feature_file(tmp_path / "e.npy")
    entry = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps(evil)}
    write_msgpack(tmp_path / "e.mp", {"v": entry})
    with pytest.raises(UserError, match=r"e\.mp.*objects"):
        read_feature_file(tmp_path / "e.mp")
    for version, kind in ((3, "type"), (4, "base_type")):
        path = tmp_path / f"{version}.hickle"
        write_hickle(path, {"v": np.zeros(3)}, version)
        with h5py.File(path, "r+") as file:
            group = file["data_0/'v'" if version == 3 else "data/'v'"]
            name = next(iter(group))
            del group[name]
            place = group.create_dataset(
                name, data=np.frombuffer(pickle.dumps(evil), dtype=np.uint8)
            )
            place.attrs[kind] = [b"pickle"] if version == 3 else b"pickle"
        with pytest.raises(UserError, match="pickled"):
            read_feature_file(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((2, 3)), "mapping"),
        (np.array([{}, {}], dtype=object), "not a mapping"),
        (np.array(["a", 1], dtype=object), "not a mapping"),
        ([1, 2], "not a mapping"),
    ],
)
def test_npy_files_that_are_no_mapping(tmp_path: Path, value: Any, message: str) -> None:
    np.save(tmp_path / "e.npy", value, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        read_feature_file(tmp_path / "e.npy")


def _npy(shape: str, descr: str = "<f4") -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


HOSTILE = {
    "huge.npy": (_npy("(1099511627776, 4)") + b"\0" * 16, "truncated"),
    "object.npy": (_npy("()", "|O") + b"junk", "object.npy"),
    "structure.npy": (_npy("(2,)", "V8") + b"\0" * 16, "no plain array"),
    "head.npy": (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f", "more memory"),
    "deep.mp": (b"\x91" * 5000 + b"\x01", "StackError"),
    "announced.mp": (b"\xdd\x7f\xff\xff\xff" * 500 + b"\0" * 3000, "announces"),
    "map.mp": (b"\xdf\x7f\xff\xff\xff" + b"\xa1a\x01" * 100, "announces"),
    "text.mp": (b"\x81\xa1a\xdb\x7f\xff\xff\xff" + b"x" * 50, "truncated"),
    "extension.mp": (b"\x81\xa1a\xd6\x05abcd", "extension type"),
    "more.mp": (b"\x80\x80", "1 bytes follow"),
    "key.mp": (b"\x81\x90\x01", "a list as a key"),
    "old.mat": (b"\0" * 200, "version 5 or 7.3"),
    "none.h5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 200, "damaged"),
    "empty.hickle": (b"", "empty"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(tmp_path: Path, name: str) -> None:
    content, message = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_feature_file(tmp_path / name)


def test_arrays_of_msgpack_have_the_bytes_of_their_shape(tmp_path: Path) -> None:
    for shape in ([1 << 39], [3], [-2], ["2"], "22"):
        entry = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": shape, b"data": b"\0" * 8}
        write_msgpack(tmp_path / "e.mp", {"v": entry})
        with pytest.raises(UserError, match=r"e\.mp"):
            read_feature_file(tmp_path / "e.mp")


def _hdf5_trap(path: Path, kind: str) -> None:
    np.save(path.parent / "secret.npy", np.ones(50))
    with h5py.File(path.parent / "other.h5", "w") as other:
        other["v"] = np.ones(3)
    with h5py.File(path, "w") as file:
        if kind == "external link":
            file["v"] = h5py.ExternalLink("other.h5", "/v")
        elif kind == "soft link":
            file["a"] = np.ones(3)
            file["v"] = h5py.SoftLink("/a")
        elif kind == "two names":
            file["a"] = np.ones(3)
            file["v"] = file["a"]
        elif kind == "a circle":
            file.create_group("a")["b"] = file["/"]
        elif kind == "bytes of another file":
            outside = [(str(path.parent / "secret.npy"), 0, 400)]
            file.create_dataset("v", shape=(50,), dtype="f8", external=outside)
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
            layout[:] = h5py.VirtualSource(str(path.parent / "other.h5"), "v", shape=(3,))
            file.create_virtual_dataset("v", layout)
        elif kind == "nothing stored":
            file.create_dataset("v", shape=(1 << 34,), dtype="f4", chunks=(1 << 16,))
        elif kind == "zeros":
            data = np.zeros(30_000_000, dtype="f4")
            file.create_dataset("v", data=data, chunks=(3_000_000,), compression="gzip")
        elif kind == "complex":
            file["v"] = np.ones(3, dtype=complex)
        else:
            file["v"] = np.array([(1, 2)], dtype=[("x", "f4"), ("y", "f4")])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("external link", "a link"),
        ("soft link", "a link"),
        ("two names", "another name"),
        ("a circle", "another name"),
        ("bytes of another file", "lies in other files"),
        ("virtual", "lies in other files"),
        ("nothing stored", "far more memory"),
        ("zeros", "outgrow the file"),
        ("complex", "no plain numbers"),
        ("structure", "no plain numbers"),
    ],
)
def test_what_hdf5_can_do_beyond_arrays_is_refused(tmp_path: Path, kind: str, message: str) -> None:
    _hdf5_trap(tmp_path / "e.h5", kind)
    with pytest.raises(UserError, match=message):
        read_feature_file(tmp_path / "e.h5")


def test_a_heap_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_FREE_SECONDS", 1)
    WRITERS["grouped.h5"](tmp_path / "e.h5", {"v1": np.ones((1, 2)), "v2": np.ones((1, 2))})
    data = (tmp_path / "e.h5").read_bytes()
    heap = data.index(b"GCOL")
    (tmp_path / "e.h5").write_bytes(data[: heap + 16] + b"\0" * 16 + data[heap + 32 :])
    with pytest.raises(UserError, match=r"e\.h5.*more than 1 seconds"):
        read_feature_file(tmp_path / "e.h5")


def test_a_library_that_crashes_or_hangs_is_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hdf5(tmp_path / "e.h5", {"v": np.ones(3)})
    monkeypatch.setattr(hdf5, "read_hdf5", lambda path: os.abort())
    with pytest.raises(UserError, match=r"e\.h5.*crashed"):
        read_feature_file(tmp_path / "e.h5")
    monkeypatch.setattr(apart, "_FREE_SECONDS", 1)
    monkeypatch.setattr(hdf5, "read_hdf5", lambda path: all(True for _ in itertools.count()))
    with pytest.raises(UserError, match=r"e\.h5.*more than 1 seconds"):
        read_feature_file(tmp_path / "e.h5")


@pytest.mark.parametrize(
    "value",
    [{"x": 1.0}, np.ones((2, 2), dtype=complex), np.array([[1, "a"]], dtype=object)],
    ids=["structure", "complex", "mixed cells"],
)
def test_what_matlab_can_do_beyond_arrays_is_refused(tmp_path: Path, value: Any) -> None:
    scipy.io.savemat(tmp_path / "e.mat", {"v1": value})
    with pytest.raises(UserError, match=r"e\.mat"):
        read_feature_file(tmp_path / "e.mat")


def test_a_shape_in_matlab_is_compared_with_the_bytes(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "e.mat", {"v1": np.ones((2, 3))})
    data = (tmp_path / "e.mat").read_bytes()
    dims = np.array([2, 3], dtype="<i4").tobytes()
    huge = np.array([1 << 30, 1 << 30], dtype="<i4").tobytes()
    assert data.count(dims) == 1
    (tmp_path / "e.mat").write_bytes(data.replace(dims, huge))
    with pytest.raises(UserError, match=r"e\.mat"):
        read_feature_file(tmp_path / "e.mat")


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"\.npy"):
        read_feature_file(tmp_path / "none")
    write_npy_folder(tmp_path / "some", {"a": np.ones(3), "b": np.ones(3)})
    whole = (tmp_path / "some" / "b.npy").read_bytes()
    (tmp_path / "some" / "b.npy").write_bytes(whole[:-4])
    with pytest.raises(UserError, match=r"some.*b\.npy.*truncated"):
        read_feature_file(tmp_path / "some")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        read_feature_file("/dev/null")


def test_captions_in_msgpack(tmp_path: Path) -> None:
    captions = {"a": ["größer 猫"], "b": [["two", "words"]]}
    write_msgpack(tmp_path / "c.mp", captions)
    assert read_plain_mapping(tmp_path / "c.mp", "captions") == captions
