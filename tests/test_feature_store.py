"""The packed store: the same arrays whatever they came from, and never a stale or damaged copy."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loader.sets.description import parse_description
from data_loader.sets.layout import ExpertSource, FileFinder
from data_loader.store import packed
from data_loader.store.feature_store import ExpertFeatures, FeatureStore
from data_loader.store.packed import load_or_make
from data_loader.store.packing import expert_recipe, read_captions
from data_loader.store.word_vectors import read_word_vectors
from tests.conftest import ROOT
from tests.every_format import ragged, write_npy_folder, write_npz, write_pickle
from tests.own_data import OwnData
from utils.errors import UserError


def load(
    path: Path, variable: bool = True, size: int | None = None, cache: Path | None = None
) -> ExpertFeatures:
    source = ExpertSource("e", (path,), variable, size)
    folders = [cache or path.parent / "cache"]
    features = ExpertFeatures(source, load_or_make(expert_recipe(source), folders))
    return features


def tokens_of(features: ExpertFeatures, video_id: str) -> np.ndarray | None:
    """Return one video's tokens the slow way."""
    row = int(features.rows([video_id])[0])
    if row < 0:
        return None
    if features.offsets is None:
        return features.values[row : row + 1].numpy()
    return features.values[features.offsets[row] : features.offsets[row + 1]].numpy()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    videos=st.integers(2, 7),
    size=st.integers(1, 4),
    protocol=st.integers(2, 5),
    half=st.booleans(),
)
def test_the_store_does_not_depend_on_how_a_file_was_stored(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    videos: int,
    size: int,
    protocol: int,
    half: bool,
) -> None:
    folder = tmp_path_factory.mktemp("store")
    ids = [f"v{number}" for number in range(videos)]
    table = ragged(np.random.default_rng(seed), ids, size, most=4)
    table["v0"] = np.ones((2, size), dtype=np.float32)
    if half:
        table = {k: v if v is None else v.astype(np.float16) for k, v in table.items()}
    write_pickle(folder / "e.pickle", table, protocol)
    write_npz(folder / "e.npz", table, variable=True)
    plain = {key: None if value is None else value.tolist() for key, value in table.items()}
    (folder / "e.json").write_text(json.dumps(plain))
    for name in ("e.pickle", "e.npz", "e.json"):
        features = load(folder / name)
        assert features.size == size
        assert features.values.dtype.itemsize == (2 if half and name != "e.json" else 4)
        for key, value in table.items():
            found = tokens_of(features, key)
            assert (found is None) == (value is None)
            if value is not None:
                np.testing.assert_array_equal(found, value)
        assert features.rows(["unknown", "v0"]).tolist()[0] == -1


def test_fixed_size_in_its_two_shapes(tmp_path: Path) -> None:
    row = np.arange(3, dtype=np.float64)
    write_pickle(tmp_path / "e.pkl", {"a": row, "b": row[None] + 1, "c": None})
    features = load(tmp_path / "e.pkl", variable=False)
    assert features.values.dtype.itemsize == 4
    np.testing.assert_array_equal(features.values.numpy(), [[0, 1, 2], [1, 2, 3], [0, 0, 0]])
    assert features.available.tolist() == [True, True, False]


def test_no_tokens_is_there_for_varying_length_and_missing_for_fixed_size(tmp_path: Path) -> None:
    none = np.empty((0, 3), dtype=np.float32)
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((1, 3), dtype=np.float32), "b": none})
    assert load(tmp_path / "e.pkl").available.tolist() == [True, True]
    assert load(tmp_path / "e.pkl", variable=False).available.tolist() == [True, False]


def test_aggregates_are_joined_along_the_features(tmp_path: Path) -> None:
    first = {"a": np.array([1.0, 2.0], dtype="f4"), "b": None}
    second = {"b": np.array([3.0], dtype="f4"), "a": np.array([4.0], dtype="f4")}
    write_pickle(tmp_path / "1.pkl", first)
    write_pickle(tmp_path / "2.pkl", second)
    source = ExpertSource("e", (tmp_path / "1.pkl", tmp_path / "2.pkl"), False, 3)
    features = ExpertFeatures(source, load_or_make(expert_recipe(source), [tmp_path / "c"]))
    np.testing.assert_array_equal(features.values.numpy(), [[1, 2, 4], [0, 0, 0]])
    assert features.available.tolist() == [True, False]


def test_the_second_load_is_mapped_and_does_not_read_the_source(tmp_path: Path) -> None:
    path = tmp_path / "e.pkl"
    write_pickle(path, {"a": np.ones((2, 3), dtype=np.float32)})
    load(path)
    recipe = expert_recipe(ExpertSource("e", (path,), True, None))

    def read_again() -> NoReturn:
        raise AssertionError

    found = load_or_make(replace(recipe, make=read_again), [tmp_path / "cache"])
    assert isinstance(found.arrays["values"], np.memmap)
    np.testing.assert_array_equal(found.arrays["values"], np.ones((2, 3)))


def test_a_changed_source_is_packed_again(tmp_path: Path) -> None:
    path = tmp_path / "e.pkl"
    for value in (1.0, 2.0):
        write_pickle(path, {"a": np.full((1, 3), value, dtype=np.float32)})
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, int(value) * 10**9))
        np.testing.assert_array_equal(load(path).values.numpy(), np.full((1, 3), value))
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("damage", ["header", "magic", "cut", "longer", "empty", "version"])
def test_a_damaged_copy_is_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "e.pkl"
    write_pickle(path, {"a": np.ones((2, 300), dtype=np.float32)})
    load(path)
    copy = next((tmp_path / "cache").iterdir())
    whole = copy.read_bytes()
    changed = {
        "header": whole[:60] + b"~" + whole[61:],
        "magic": b"?" + whole[1:],
        "cut": whole[:-64],
        "longer": whole + b"\0" * 64,
        "empty": b"",
        "version": whole.replace(b'"version": 2', b'"version": 3'),
    }[damage]
    copy.write_bytes(changed)
    with caplog.at_level("WARNING"):
        np.testing.assert_array_equal(load(path).values.numpy(), np.ones((2, 300)))
    assert str(copy) in caplog.text
    assert copy.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = OwnData(tmp_path)
    # A file where the folder should be: even an administrator cannot write into it.
    (tmp_path / ".cache").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    loader = data.loader()
    assert len(loader.retrieval) == 4
    assert list((tmp_path / "home" / "text-video-retrieval").glob("own*/*.packed")) or list(
        (tmp_path / "home").rglob("*.packed")
    )
    # Neither can be written: held in memory, and said once of all experts and texts.
    (tmp_path / "file").write_text("")
    loader = data.loader(cache_dir=str(tmp_path / "file"))
    assert len(loader.retrieval) == 4
    assert [text.partition(":")[0] for text in caplog.messages] == [
        f"No packed copies in {tmp_path / name}" for name in (".cache", "file")
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    table = {"good": np.ones((1, 3)), "sick": np.array([[1.0, bad, 2.0]])}
    write_pickle(tmp_path / "e.pkl", table)
    with pytest.raises(UserError, match=r'expert "e".*non-finite.*"sick".*e\.pkl'):
        load(tmp_path / "e.pkl")
    assert not (tmp_path / "cache").exists()


def test_vectors_of_another_size_are_refused(tmp_path: Path) -> None:
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((1, 3)), "b": np.ones((2, 4))})
    with pytest.raises(UserError, match=r'\(2, 4\).*"b".*size 3'):
        load(tmp_path / "e.pkl")
    with pytest.raises(UserError, match=r'\(1, 3\).*"a".*size 5'):
        load(tmp_path / "e.pkl", size=5)
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((2, 4))})
    with pytest.raises(UserError, match=r"2 vectors"):
        load(tmp_path / "e.pkl", variable=False)
    write_pickle(tmp_path / "e.pkl", {"a": None})
    with pytest.raises(UserError, match="every video"):
        load(tmp_path / "e.pkl")
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((2, 2, 3))})
    with pytest.raises(UserError, match=r"\(2, 2, 3\)"):
        load(tmp_path / "e.pkl")


def test_text_features_from_word_vectors(tmp_path: Path) -> None:
    data = OwnData(tmp_path)
    path = tmp_path / "dataset.json"
    store = FeatureStore(FileFinder(parse_description(json.loads(path.read_text()), path)))
    text = store.text("words", None)
    table = read_word_vectors(tmp_path / "words.bin")
    first, counts = text.index.captions(data.ids)
    for video, key in enumerate(data.ids):
        assert counts[video] == len(data.captions[key])
        for number, caption in enumerate(data.captions[key]):
            start, stop = text.offsets[first[video] + number : first[video] + number + 2]
            known = [word for word in caption.split() if word in table.rows]
            expected = [table.values[table.rows[word]] for word in known] or [table.mean]
            np.testing.assert_array_equal(text.values[start:stop].numpy(), expected)


def test_raw_captions(tmp_path: Path) -> None:
    captions = {"a": ["one  two", "größer 猫"], "b": [["a", "list"], ["of"]], "c": []}
    data = OwnData(tmp_path)
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    path = tmp_path / "dataset.json"
    store = FeatureStore(FileFinder(parse_description(data.description, path)))
    raw = store.captions()
    assert raw.of("a") == captions["a"]
    assert raw.of("b") == ["a list", "of"]
    assert raw.of("c") == raw.of("unknown") == []
    assert raw.index.captions(["c", "a", "unknown"])[1].tolist() == [0, 2, 0]


@pytest.mark.parametrize(
    "captions", ["{}", '{"a": {"en": "text"}}', '{"a": [1]}', '{"a": [["x", 2]]}']
)
def test_captions_that_are_none(tmp_path: Path, captions: str) -> None:
    (tmp_path / "c.json").write_text(captions)
    with pytest.raises(UserError, match=r'c\.json.*(no video|"a")'):
        read_captions(tmp_path / "c.json")


def test_a_caption_without_a_list_is_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"a": "one text", "b": ["x", "y"]}')
    assert read_captions(tmp_path / "c.json") == {"a": ["one text"], "b": ["x", "y"]}


@pytest.mark.parametrize("variable", [True, False])
def test_a_file_without_any_video_is_refused(tmp_path: Path, variable: bool) -> None:
    np.savez(tmp_path / "e.npz", ids=np.array([], "U1"), feats=np.empty((0, 3), "f4"), offsets=[0])
    for name, content in (("e.npz", None), ("e.json", "{}")):
        if content:
            (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=rf"{name}.*no video"):
            load(tmp_path / name, variable, 3)


def test_text_features_without_any_word_are_refused(tmp_path: Path) -> None:
    data = OwnData(tmp_path)
    data.text = {key: [np.empty((0, 6), "f4")] * len(texts) for key, texts in data.text.items()}
    data.write()
    store = FeatureStore(FileFinder(parse_description(data.description, tmp_path / "d.json")))
    with pytest.raises(UserError, match=r"text\.pkl"):
        store.text("file", None)


def test_captions_none_of_whose_words_is_known_are_refused(tmp_path: Path) -> None:
    data = OwnData(tmp_path)
    store = FeatureStore(FileFinder(parse_description(data.description, tmp_path / "d.json")))
    assert store.text("words", None).size == 5
    data.captions = {key: ["一个男人在跑", "?"] for key in data.captions}
    data.write()
    with pytest.raises(UserError, match=r"without spaces.*一个男人在跑"):
        store.text("words", None)
    data.captions = {key: ["qqq"] for key in data.captions}
    data.write()
    with pytest.raises(UserError, match=r"11 captions.*words\.bin.*qqq"):
        store.text("words", None)
    data.captions["v3"] = ["一个男人在跑", "A dog"]
    data.write()
    assert store.text("words", None).index.captions(["v3"])[1] == [2]


def test_a_folder_is_packed_again_when_one_of_its_files_changes(tmp_path: Path) -> None:
    write_npy_folder(tmp_path / "e", {"a": np.ones((1, 3)), "b": np.ones((1, 3))})
    assert load(tmp_path / "e").available.tolist() == [True, True]
    np.save(tmp_path / "e" / "b.npy", np.full((2, 3), 5.0))
    np.testing.assert_array_equal(tokens_of(load(tmp_path / "e"), "b"), np.full((2, 3), 5.0))
    np.save(tmp_path / "e" / "c.npy", np.ones((1, 3)))
    assert load(tmp_path / "e").available.tolist() == [True, True, True]


@pytest.mark.parametrize("inside", [False, True])
def test_a_source_put_in_the_place_of_another_is_noticed(tmp_path: Path, inside: bool) -> None:
    """Of the same size and time, as a copy that keeps times leaves it."""
    folder = tmp_path / "e"
    folder.mkdir()
    source = folder if inside else folder / "a.npy"
    values = np.array([[1.0, 2.0]])
    if inside:
        np.save(folder / "a.npy", values)
    else:
        source = tmp_path / "e.pkl"
        write_pickle(source, {"a": values})
    file = folder / "a.npy" if inside else source
    assert tokens_of(load(source), "a").tolist() == [[1, 2]]
    old = file.stat()
    other = tmp_path / "other"
    other.write_bytes(file.read_bytes().replace(values.tobytes(), (values + 1).tobytes()))
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    other.replace(file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    assert tokens_of(load(source), "a").tolist() == [[2, 3]]
    # Written into the same file: the inode stays.
    file.write_bytes(file.read_bytes().replace((values + 1).tobytes(), values.tobytes()))
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert tokens_of(load(source), "a").tolist() == [[1, 2]]


def test_a_copy_of_an_earlier_version_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((1, 3))})
    with monkeypatch.context() as patch:
        patch.setattr(packed, "VERSION", 1)
        load(tmp_path / "e.pkl")
    [old] = (tmp_path / "cache").iterdir()
    before = old.read_bytes()
    load(tmp_path / "e.pkl")
    assert list((tmp_path / "cache").iterdir()) == [old]
    assert old.read_bytes() != before


PACKING = """
import logging, sys
from pathlib import Path
from data_loader.store import packing
from data_loader.sets.layout import ExpertSource
from data_loader.store.packed import load_or_make
read = packing.read_feature_file
def slow(path):
    print("reading", flush=True)
    sys.stdin.readline()
    return read(path)
packing.read_feature_file = slow
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
folder = Path(sys.argv[1])
recipe = packing.expert_recipe(ExpertSource("e", (folder / "e.pkl",), True, None))
found = load_or_make(recipe, [folder / "cache"])
print("has", float(found.arrays["values"].sum()), flush=True)
"""


def packer(folder: Path) -> subprocess.Popen:
    """Start a process that packs, and stops for a line of its input when it reads the source."""
    command = [sys.executable, "-c", PACKING, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)


@pytest.mark.parametrize("killed", [False, True])
def test_of_two_processes_one_packs(tmp_path: Path, killed: bool) -> None:
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((2, 3))})
    with packer(tmp_path) as first:
        assert first.stdout.readline() == "reading\n"
        with packer(tmp_path) as second:
            assert second.stdout.readline().startswith("Another process is packing expert-e into")
            if killed:
                first.kill()
                assert second.stdout.readline() == "reading\n"
                output = second.communicate("\n")[0]
            else:
                output = first.communicate("\n")[0]
                assert output == "has 6.0\n"
                output = second.communicate()[0]
            assert output == "has 6.0\n"
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".packed"]


def test_a_folder_that_goes_while_a_process_waits_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was the new folder of another process, whose source was refused."""
    alone = packed.alone

    def late(path: Path, *rest: Any, **more: Any) -> Any:
        monkeypatch.setattr(packed, "alone", alone)
        path.parent.rmdir()
        return alone(path, *rest, **more)

    monkeypatch.setattr(packed, "alone", late)
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((2, 3))})
    load(tmp_path / "e.pkl")
    assert not caplog.messages
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".packed"]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((2, 3))})
    assert isinstance(load(tmp_path / "e.pkl").values.numpy(), np.ndarray)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".packed"]


def test_a_full_disk_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = packed._write

    def full(handle: IO[bytes], *rest: Any) -> None:
        if not isinstance(handle.name, int):  # what no folder holds needs no disk
            raise OSError(errno.ENOSPC, "full")
        write(handle, *rest)

    write_pickle(tmp_path / "e.pkl", {"a": np.ones((2, 3), dtype=np.float32)})
    monkeypatch.setattr(packed, "_write", full)
    with caplog.at_level("WARNING"):
        np.testing.assert_array_equal(load(tmp_path / "e.pkl").values.numpy(), np.ones((2, 3)))
    assert "no space" in caplog.text
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("cache", ["", "relative/cache"])
def test_without_a_home_there_is_one_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    def homeless(*_: object) -> NoReturn:
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "set").mkdir()
    data = OwnData(tmp_path / "set")
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.chdir(tmp_path)
    assert len(data.loader().retrieval) == 4
    assert list((tmp_path / "set" / ".cache").glob("*.packed"))
    assert not (tmp_path / "relative").exists()
