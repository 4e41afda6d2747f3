"""The packed store: the same arrays whatever they came from, and never a stale or damaged copy."""

import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loader.description import parse_description
from data_loader.errors import UserError
from data_loader.feature_store import ExpertFeatures, FeatureStore
from data_loader.layout import ExpertSource, FileFinder
from data_loader.packed import finish_writing, load_or_make
from data_loader.packing import expert_recipe, read_captions
from data_loader.word_vectors import read_word_vectors
from tests.every_format import ragged, write_npy_folder, write_npz, write_pickle
from tests.own_data import OwnData


def load(
    path: Path, variable: bool = True, size: int | None = None, cache: Path | None = None
) -> ExpertFeatures:
    source = ExpertSource("e", (path,), variable, size)
    folders = [cache or path.parent / "cache"]
    features = ExpertFeatures(source, load_or_make(expert_recipe(source), folders))
    finish_writing()
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
    stat = path.stat()
    # Same size and time, other content: only a reader of the source could tell.
    path.write_bytes(b"x" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    source = ExpertSource("e", (path,), True, None)
    packed = load_or_make(expert_recipe(source), [tmp_path / "cache"])
    assert isinstance(packed.arrays["values"], np.memmap)
    np.testing.assert_array_equal(packed.arrays["values"], np.ones((2, 3)))


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
        "version": whole.replace(b'"version": 1', b'"version": 2'),
    }[damage]
    copy.write_bytes(changed)
    with caplog.at_level("WARNING"):
        np.testing.assert_array_equal(load(path).values.numpy(), np.ones((2, 300)))
    assert str(copy) in caplog.text
    assert copy.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = OwnData(tmp_path)
    # A file where the folder should be: even an administrator cannot write into it.
    (tmp_path / ".cache").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    loader = data.loader()
    finish_writing()
    assert len(loader.retrieval) == 4
    assert list((tmp_path / "home" / "text-video-retrieval").glob("own*/*.packed")) or list(
        (tmp_path / "home").rglob("*.packed")
    )
    # Neither can be written: held in memory.
    (tmp_path / "file").write_text("")
    loader = data.loader(cache_dir=str(tmp_path / "file"))
    assert len(loader.retrieval) == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    table = {"good": np.ones((1, 3)), "sick": np.array([[1.0, bad, 2.0]])}
    write_pickle(tmp_path / "e.pkl", table)
    with pytest.raises(UserError, match=r'expert "e".*non-finite.*"sick".*e\.pkl'):
        load(tmp_path / "e.pkl")
    assert not list((tmp_path / "cache").iterdir())


def test_vectors_of_another_size_are_refused(tmp_path: Path) -> None:
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((1, 3)), "b": np.ones((2, 4))})
    with pytest.raises(UserError, match=r'\(2, 4\).*"b".*size 3'):
        load(tmp_path / "e.pkl")
    with pytest.raises(UserError, match=r'\(1, 3\).*"a".*size 5'):
        load(tmp_path / "e.pkl", size=5)
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((2, 4))})
    with pytest.raises(UserError, match=r"2 vectors.*one was expected"):
        load(tmp_path / "e.pkl", variable=False)
    write_pickle(tmp_path / "e.pkl", {"a": None})
    with pytest.raises(UserError, match="missing for every video"):
        load(tmp_path / "e.pkl")
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((1, 2, 3))})
    with pytest.raises(UserError, match=r"\(1, 2, 3\)"):
        load(tmp_path / "e.pkl")


def test_text_features_from_word_vectors(tmp_path: Path) -> None:
    data = OwnData(tmp_path)
    path = tmp_path / "dataset.json"
    store = FeatureStore(FileFinder(parse_description(json.loads(path.read_text()), path)))
    text = store.text("words", None)
    table = read_word_vectors(tmp_path / "words.bin")
    first, counts = text.caption_ranges(data.ids)
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
    assert raw.counts(["c", "a", "unknown"]).tolist() == [0, 2, 0]


@pytest.mark.parametrize(
    "captions", ["{}", '{"a": {"en": "text"}}', '{"a": [1]}', '{"a": [["x", 2]]}']
)
def test_captions_that_are_none(tmp_path: Path, captions: str) -> None:
    (tmp_path / "c.json").write_text(captions)
    with pytest.raises(UserError, match=r'c\.json.*(no video|"a".*write "id": \["a caption")'):
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
        with pytest.raises(UserError, match=rf"{name} of the expert .* holds no video"):
            load(tmp_path / name, variable, 3)


def test_text_features_without_any_word_are_refused(tmp_path: Path) -> None:
    data = OwnData(tmp_path)
    data.text = {key: [np.empty((0, 6), "f4")] * len(texts) for key, texts in data.text.items()}
    data.write()
    store = FeatureStore(FileFinder(parse_description(data.description, tmp_path / "d.json")))
    with pytest.raises(UserError, match=r"no word of any caption in .*text\.pkl"):
        store.text("file", None)


def test_captions_none_of_whose_words_is_known_are_refused(tmp_path: Path) -> None:
    data = OwnData(tmp_path)
    store = FeatureStore(FileFinder(parse_description(data.description, tmp_path / "d.json")))
    assert store.text("words", None).size == 5
    data.captions = {key: ["一个男人在跑", "?"] for key in data.captions}
    data.write()
    with pytest.raises(UserError, match=r"None of the 22 captions.*words\.bin.*一个男人在跑"):
        store.text("words", None)
    data.captions["v3"] = ["一个男人在跑", "A dog"]
    data.write()
    assert store.text("words", None).caption_ranges(["v3"])[1] == [2]


def test_who_has_no_home_has_a_cache_in_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    data = OwnData(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    store = FeatureStore(FileFinder(parse_description(data.description, tmp_path / "d.json")))
    assert store.folders == [tmp_path / ".cache"]
    assert store.captions().of("v0") == data.captions["v0"]


def test_a_folder_is_packed_again_when_one_of_its_files_changes(tmp_path: Path) -> None:
    write_npy_folder(tmp_path / "e", {"a": np.ones((1, 3)), "b": np.ones((1, 3))})
    assert load(tmp_path / "e").available.tolist() == [True, True]
    np.save(tmp_path / "e" / "b.npy", np.full((2, 3), 5.0))
    np.testing.assert_array_equal(tokens_of(load(tmp_path / "e"), "b"), np.full((2, 3), 5.0))
    np.save(tmp_path / "e" / "c.npy", np.ones((1, 3)))
    assert load(tmp_path / "e").available.tolist() == [True, True, True]


def test_a_file_that_is_still_being_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pickle(tmp_path / "e.pkl", {"a": np.ones((2, 3), dtype=np.float32)})
    recipe = expert_recipe(ExpertSource("e", (tmp_path / "e.pkl",), True, None))
    disk_is_done = threading.Event()
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (disk_is_done.wait(60), sync(handle)))
    first = load_or_make(recipe, [tmp_path / "cache"])
    # The arrays are there before the disk has them; nothing stands at the final name yet.
    np.testing.assert_array_equal(first.arrays["values"], np.ones((2, 3)))
    assert not list((tmp_path / "cache").glob("*.packed"))
    disk_is_done.set()
    second = load_or_make(recipe, [tmp_path / "cache"])
    assert isinstance(second.arrays["values"], np.memmap)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".packed"]


def test_a_disk_that_fails_late_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    write_pickle(tmp_path / "e.pkl", {"a": np.ones((2, 3), dtype=np.float32)})
    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level("WARNING"):
        np.testing.assert_array_equal(load(tmp_path / "e.pkl").values.numpy(), np.ones((2, 3)))
    assert "no space left" in caplog.text
    assert not list((tmp_path / "cache").iterdir())
