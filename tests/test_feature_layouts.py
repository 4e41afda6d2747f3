"""Features in every layout that people keep: found, used as they lie, written under other ids."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from data_loader.formats.apart import watched
from data_loader.formats.read import feature_tables, read_feature_file
from misc.import_data_set.features import find_features
from tests.every_format import Table as AnyTable
from tests.feature_layouts import SEVERAL, SINGLE, Table
from tests.own_data import OwnData
from utils.errors import UserError

IDS = ("v0", "v1", "v2")


@pytest.fixture
def table() -> Table:
    # Numbers that every type holds exactly.
    rng = np.random.default_rng(3)
    return {key: rng.integers(-8, 8, (2, 3)).astype(np.float32) + 0.5 for key in IDS}


def named(name: str, found: AnyTable) -> dict[str, np.ndarray]:
    """The vectors of a table, without the folders of the nested layout."""
    return {key.rsplit("/", 1)[-1]: np.atleast_2d(value) for key, value in found.items()}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_vectors_of_each_video(tmp_path: Path, table: Table, name: str) -> None:
    path = tmp_path / name
    SEVERAL[name](path, table)
    source = find_features(f"x={path}")
    assert (source.name, source.size, source.is_variable) == ("x", 3, True)
    assert source.lengths is not None and source.lengths.tolist() == [2, 2, 2]
    check(source, tmp_path, table)


@pytest.mark.parametrize("name", SINGLE)
def test_one_vector_of_each_video(tmp_path: Path, table: Table, name: str) -> None:
    path = tmp_path / name
    SINGLE[name](path, table)
    source = find_features(f"x={path}")
    assert (source.size, source.is_variable, source.lengths) == (3, False, None)
    check(source, tmp_path, {key: value[:1] for key, value in table.items()})


def check(source: Any, folder: Path, table: Table) -> None:
    """The file as it lies, and one that is written with other ids, have the values of a table."""
    entry = source.entry(folder)
    assert entry["file"] == source.path.name
    found = named(source.name, read_feature_file(folder / entry["file"]))
    assert set(found) == set(table)
    source.write(folder / "new" / "x.npz", {key: f"new/{key}" for key in source.ids[1:]})
    written = read_feature_file(folder / "new" / "x.npz")
    assert list(written) == [f"new/{key}" for key in source.ids[1:]]
    for key, value in table.items():
        np.testing.assert_array_equal(found[key], value)
    for key, value in named("", written).items():
        np.testing.assert_array_equal(value, table[key])
        assert value.dtype == np.float32


@pytest.mark.parametrize("how", ["avg", "max"])
def test_tokens_become_one_vector(tmp_path: Path, table: Table, how: str) -> None:
    table["v1"] = table["v1"][:1]
    SEVERAL["e.pt"](tmp_path / "e.pt", table)
    source = find_features(f"x={tmp_path / 'e.pt'}", how)
    assert source.entry(tmp_path) is None and not source.is_variable
    source.write(tmp_path / "x.npz", {key: key for key in IDS})
    naive = {"avg": np.mean, "max": np.max}[how]
    found = read_feature_file(tmp_path / "x.npz")
    for key in IDS:
        np.testing.assert_allclose(found[key], naive(table[key], axis=0), rtol=1e-6)


def test_float16_stays_and_what_is_missing_is_left_out(tmp_path: Path) -> None:
    values = {"a": np.ones((2, 3), "f2"), "b": float("nan"), "c": np.zeros((0, 3), "f2")}
    (tmp_path / "e.pkl").write_bytes(pickle.dumps(values))
    source = find_features(f"x={tmp_path / 'e.pkl'}")
    assert source.ids == ["a", "b", "c"] and source.missing == {"b", "c"}
    source.write(tmp_path / "x.npz", {"a": "a", "b": "b"})
    found = read_feature_file(tmp_path / "x.npz")
    assert list(found) == ["a"] and found["a"].dtype == np.float16


def test_who_watches_is_told_how_far_the_writing_is(tmp_path: Path, table: Table) -> None:
    SEVERAL["e.pt"](tmp_path / "e.pt", table)
    told: list[tuple[int, int]] = []
    with watched(lambda name, done, total: told.append((done, total))):
        find_features(f"x={tmp_path / 'e.pt'}").write(tmp_path / "x.npz", {key: key for key in IDS})
    size = sum(array.size for array in table.values()) * 4
    assert told[-1] == (size, size)
    told.clear()
    SEVERAL["folder"](tmp_path / "folder", table)
    with watched(lambda name, done, total: told.append((done, total))):
        find_features(f"x={tmp_path / 'folder'}")
    size = sum(path.stat().st_size for path in (tmp_path / "folder").iterdir())
    assert told[-1] == (size, size)


@pytest.mark.parametrize("name", ["e.pt", "nested", "matrix.npy", "id.feature.txt"])
def test_the_loader_reads_what_lies_there(tmp_path: Path, name: str) -> None:
    own = OwnData(tmp_path)
    table = {key: np.tile(np.float32(n), (2, 3)) for n, key in enumerate(own.ids)}
    SEVERAL[name](tmp_path / name, table)
    source = find_features(f"tokens={tmp_path / name}")
    new = {key: key.rsplit("/", 1)[-1] for key in source.ids}
    entry = source.entry(tmp_path)
    if name == "nested":
        source.write(tmp_path / "x.npz", new)
        entry = source.entry_of("x.npz")
    own.description["experts"]["tokens"] = entry
    own.write()
    np.testing.assert_array_equal(searched(own)[:, :2, 0], [[n, n] for n in range(7, 11)])


def searched(own: OwnData) -> torch.Tensor:
    """The tokens of the retrieval set, (4, T, 3)."""
    [videos] = own.loader().retrieval.video_blocks(100)
    assert videos.ind["tokens"].tolist() == [1, 1, 1, 1]
    return videos.experts["tokens"]


def test_another_list_of_ids_is_another_file(tmp_path: Path) -> None:
    own = OwnData(tmp_path)
    table = {key: np.full((2, 3), n, "f4") for n, key in enumerate(own.ids)}
    SEVERAL["e.npy"](tmp_path / "e.npy", table)
    own.description["experts"]["tokens"] = find_features(f"t={tmp_path / 'e.npy'}").entry(tmp_path)
    own.write()
    first = searched(own)
    (tmp_path / "e.ids.txt").write_text("\n".join(own.ids[::-1]))
    second = searched(own)
    assert first[:, 0, 0].tolist() == [7, 8, 9, 10]
    assert second[:, 0, 0].tolist() == [3, 2, 1, 0]


def test_large_arrays_stay_in_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_loader.formats import npy

    monkeypatch.setattr(npy, "_MAPPED_BYTES", 8)
    values = np.arange(12.0, dtype="f4").reshape(4, 3)
    np.savez(tmp_path / "e.npz", ids=np.array(list("abcd")), feats=values)
    found = npy.read_npz(tmp_path / "e.npz", {"feats": True})["feats"]
    assert not found.flags.writeable and (found == values).all()
    np.save(tmp_path / "e.npy", np.asfortranarray(values))
    found = npy.read_npy(tmp_path / "e.npy")
    assert not found.flags.writeable and (found == values).all()
    data = bytearray((tmp_path / "e.npz").read_bytes())
    data[data.index(np.float32(11).tobytes())] ^= 1
    (tmp_path / "e.npz").write_bytes(data)
    with pytest.raises(zipfile.BadZipFile, match="checksum"):
        npy.read_npz(tmp_path / "e.npz", {"feats": True})


def compressed(path: Path, table: Table) -> None:
    with h5py.File(path, "w") as file:
        for key, value in table.items():
            file.create_dataset(f"all/{key}", data=value, compression="gzip")


def compressed_matrix(path: Path, table: Table) -> None:
    with h5py.File(path, "w") as file:
        rows = np.concatenate(list(table.values()))
        file.create_dataset("features", data=rows, compression="gzip", chunks=(1, 3))
        offsets = np.arange(0, 2 * len(table) + 1, 2)
        file.create_dataset("offsets", data=offsets, compression="gzip")
        file["video_ids"] = list(table)


def scattered(path: Path, table: Table) -> None:
    """Write rows of a video that do not stand together."""
    rows = [(key, row) for key, value in table.items() for row in value.tolist()]
    path.write_text("\n".join(",".join(map(str, [k, *row])) for k, row in rows[::2] + rows[1::2]))


# Format -> how many of the three videos are in memory at once.
IN_PIECES: dict[str, tuple[Callable[[Path, Table], None], int]] = {
    "one_each.h5": (compressed, 1),
    "matrix.h5": (compressed_matrix, 1),
    "rows.csv": (SEVERAL["rows.csv"], 1),
    "id.feature.txt": (SEVERAL["id.feature.txt"], 1),
    "scattered.csv": (scattered, 3),
    "nested.parquet": (SEVERAL["nested.parquet"], 1),
    "columns.parquet": (SEVERAL["columns.parquet"], 1),
}


@pytest.mark.parametrize("name", IN_PIECES)
def test_what_cannot_be_mapped_is_read_in_pieces(
    tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for place in (
        "rows._PIECE_BYTES",
        "rows._ROWS_AT_ONCE",
        "tables._PIECE_VALUES",
        "layouts._PIECE_VALUES",
    ):
        monkeypatch.setattr(f"data_loader.formats.{place}", 1)
    write, together = IN_PIECES[name]
    write(tmp_path / name, table)
    pieces = [piece for piece in feature_tables(tmp_path / name) if piece]
    assert max(map(len, pieces)) == together
    whole = read_feature_file(tmp_path / name)
    found = {key: value for piece in pieces for key, value in piece.items()}
    assert list(found) == list(whole) and sum(map(len, pieces)) == 3
    for key, value in named("", found).items():
        np.testing.assert_array_equal(value, table[key])


@pytest.mark.parametrize("name", ["one_each.h5", "folder", "e.npz"])
def test_what_memory_would_hold_is_put_together_once(
    tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    {"one_each.h5": compressed, **SEVERAL, "e.npz": SEVERAL["grouped.npz"]}[name](
        tmp_path / name, table
    )
    monkeypatch.setattr("data_loader.formats.npy._MAPPED_BYTES", 8)
    source = find_features(f"x={tmp_path / name}")
    assert source.entry(tmp_path) is not None
    monkeypatch.setattr("misc.import_data_set.features._MOST_HELD", 71)
    # An archive of plain arrays is mapped; what is compressed, or a folder of small files, is not.
    assert (source.entry(tmp_path) is None) == (name != "e.npz")


def test_a_source_that_changes_meanwhile_is_told(tmp_path: Path, table: Table) -> None:
    compressed(tmp_path / "e.h5", table)
    source = find_features(f"x={tmp_path / 'e.h5'}")
    compressed(tmp_path / "e.h5", {**table, "v1": table["v1"][:1]})
    with pytest.raises(UserError, match="has changed while"):
        source.write(tmp_path / "x.npz", {key: key for key in source.ids})
    assert not (tmp_path / "x.npz").exists()


# --- What cannot be used --------------------------------------------------------------------------


def wrong_safetensors(header: dict, body: bytes = b"\0" * 24) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("1/0",)


def saved(value: Any, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def two_kinds(path: Path) -> None:
    path.mkdir()
    np.save(path / "a.npy", np.ones(3))
    torch.save(torch.ones(3), path / "b.pt")


def matrix_folder(shape: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        SINGLE["w2vv"](path, {key: np.ones((1, 3), "f4") for key in IDS})
        (path / "shape.txt").write_text(shape)

    return write


def matrix(ids: str, name: str = "e.ids.txt") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.save(path, np.ones((2, 3)))
        path.with_name(name).write_text(ids)

    return write


def h5_of_two(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for key in IDS:
            file[f"{key}/rgb"] = file[f"{key}/flow"] = np.ones(3)


def h5_with_links(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a/features"] = np.ones(3)
        file["b/features"] = h5py.ExternalLink("/etc/passwd", "x")


def file_of(data: bytes | str) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(data if isinstance(data, bytes) else data.encode())


F3 = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
WRONG: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "code in a torch file": ("e.pt", file_of(saved({"v": Evil()})), "eval"),
    "code in a folder": (
        "f",
        lambda path: (path.mkdir(), (path / "v7.pkl").write_bytes(pickle.dumps(Evil()))),
        r"v7\.pkl: it holds .*eval",
    ),
    "code in a pickled tensor": ("e.pkl", file_of(pickle.dumps([torch.ones(2), Evil()])), "eval"),
    "cut torch file": ("e.pt", file_of(saved({"v": torch.ones(30)})[:-90]), "truncated|damaged"),
    "cut old torch file": ("e.pt", file_of(saved({"v": torch.ones(30)}, True)[:-9]), "truncated"),
    "a torch file of text": ("e.pt", file_of(saved({"v": "text"})), "a str where features"),
    "cut safetensors": ("e.safetensors", file_of(wrong_safetensors({"v": F3}, b"")), "bytes of"),
    "long header": ("e.safetensors", file_of((1 << 60).to_bytes(8, "little")), "header is missing"),
    "shape beyond bytes": (
        "e.safetensors",
        file_of(wrong_safetensors({"v": {**F3, "shape": [1 << 30, 1 << 30]}})),
        "bytes of its shape",
    ),
    "negative offset": (
        "e.safetensors",
        file_of(wrong_safetensors({"v": {**F3, "data_offsets": [-24, 0]}})),
        "not known",
    ),
    "unknown type": (
        "e.safetensors",
        file_of(wrong_safetensors({"v": {**F3, "dtype": "F8"}})),
        "not known",
    ),
    "csv of words": ("e.csv", file_of("id,a\nv0,1\nv1,horse\n"), '"horse" where a number'),
    "csv of several widths": ("e.csv", file_of("v0,1,2\nv1,1\n"), "2 fields .* 3 were expected"),
    "csv of captions": ("e.csv", file_of("id,text\nv0,a dog\n"), "where a number"),
    "empty text": ("e.txt", file_of(""), "no lines"),
    "no parquet": ("e.parquet", file_of("PAR1 nothing PAR1"), "damaged"),
    "two kinds of files": ("f", two_kinds, r"several kinds \(\.npy, \.pt\)"),
    "nothing in a folder": ("f", lambda path: path.mkdir(), "without files"),
    "shape of another matrix": ("f", matrix_folder("4 3"), "not those of shape"),
    "absurd shape": ("f", matrix_folder("-3 -3"), "rows and the size"),
    "a matrix alone": ("e.npy", lambda path: np.save(path, np.ones((2, 3))), "e.ids.txt"),
    "more ids than rows": ("e.npy", matrix("a\nb\nc"), "3 ids for 2"),
    "an id twice": ("e.npy", matrix("a\na"), '"a" twice'),
    "ids that are none": ("e.npy", matrix('{"a": 1}', "e.ids.json"), "no list of ids"),
    "several arrays a video": ("e.h5", h5_of_two, r"several arrays for each video \(flow, rgb\)"),
    "links out of the file": ("e.h5", h5_with_links, "link to somewhere else"),
    "not a number": ("e.npz", lambda p: np.savez(p, a=np.ones(3), b=[1, np.nan, 1]), "non-finite"),
    "other sizes": ("e.npz", lambda p: np.savez(p, a=np.ones(3), b=np.ones(4)), r"size 3 were"),
    "nothing at all": ("e.npz", lambda p: np.savez(p, a=np.nan), "hold no video"),
    "no such ending": ("e.xlsx", file_of("x"), 'ending in ".xlsx"'),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    place, write, message = WRONG[name]
    write(tmp_path / place)
    with pytest.raises(UserError, match=message):
        find_features(f"x={tmp_path / place}")


@pytest.mark.parametrize("spec", ["clip", "=a", "clip="])
def test_a_spec_says_name_and_path(spec: str) -> None:
    with pytest.raises(UserError, match="NAME=PATH"):
        find_features(spec)


def test_a_spec_of_nothing_and_an_unknown_way(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        find_features(f"clip={tmp_path / 'none.h5'}")
    with pytest.raises(UserError, match=r'"mean" is no way .* avg or max'):
        find_features("clip=x", "mean")


def test_two_videos_of_one_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", a=np.ones(3), b=np.ones(3))
    source = find_features(f"x={tmp_path / 'e.npz'}")
    with pytest.raises(UserError, match='would be called "c"'):
        source.write(tmp_path / "x.npz", {"a": "c", "b": "c"})
    with pytest.raises(UserError, match="No video"):
        source.write(tmp_path / "x.npz", {"z": "c"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.npz"]


@pytest.mark.parametrize(
    "name", ["e.pt", "legacy.pth", "tensors.pkl", "e.safetensors", "rows.csv", "columns.parquet"]
)
def test_damaged_files_give_a_table_or_a_clear_error(
    tmp_path: Path, table: Table, name: str
) -> None:
    path = tmp_path / name
    SEVERAL[name](path, table)
    whole, rng = path.read_bytes(), np.random.default_rng(len(name))
    for number in range(6):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data))] if number % 3 == 0 else data)
        try:
            read_feature_file(path)
        except UserError as error:
            assert name in str(error) and "\n" not in str(error)
