"""Importing other people's files: every layout, what is asked, what is refused, importing twice."""

import csv
import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import misc.check_data_set.__main__ as check_program
import misc.import_data_set.__main__ as program
import train as train_program
from data_loader.sets.description import ListEntry, find_description
from data_loader.sets.layout import FileFinder, videos_of
from tests.conftest import SHARED
from tests.foreign_captions import LAYOUTS, WITH_SPLITS, WORDS, invented
from tests.own_data import write_word_vectors
from tests.run_files import Run
from trainer.build import expert_dims, inputs_of
from utils.config import Config
from utils.errors import UserError

Call = Callable[..., tuple[int, str]]
CAPTIONS = invented()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with two experts of all videos."""
    monkeypatch.chdir(tmp_path)
    write_experts(tmp_path, list(CAPTIONS))
    return tmp_path


def write_experts(folder: Path, ids: list[str], ending: str = "") -> None:
    rng = np.random.default_rng(len(ids))
    look = rng.standard_normal((len(ids), 6)).astype(np.float32)
    np.savez(folder / f"look{ending}.npz", ids=np.array(ids), feats=look)
    counts = rng.integers(1, 5, len(ids))
    np.savez(
        folder / f"sound{ending}.npz",
        ids=np.array(ids),
        feats=rng.standard_normal((counts.sum(), 4)).astype(np.float32),
        offsets=np.cumsum([0, *counts]),
    )


@pytest.fixture
def importing(run: Run) -> Call:
    """Import into `set`; returns the exit code and what was said."""

    def call(*arguments: object, experts: bool = True) -> tuple[int, str]:
        features = ("--features", "look=look.npz", "sound=sound.npz") if experts else ()
        return run(program, "--output", "set", *arguments, *features)

    return call


def captions_in(folder: str | Path = "set") -> dict[str, list[str]]:
    return json.loads(Path(folder, "captions.json").read_text())


def lists_in(folder: str | Path = "set") -> dict[str, list[str]]:
    paths = Path(folder, "splits").glob("*.txt")
    return {path.stem: path.read_text(encoding="utf-8").split("\n")[:-1] for path in paths}


def config_in(folder: str | Path = "set") -> dict[str, Any]:
    return json.loads(Path(folder, "config.json").read_text())


def table(path: str, rows: list[list[str]]) -> str:
    with Path(path).open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)
    return path


def csv_of(captions: dict[str, list[str]], path: str = "c.csv") -> str:
    rows = [[key, text] for key, texts in captions.items() for text in texts]
    return table(path, [["video_id", "caption"], *rows])


def refused(answer: tuple[int, str], *words: str) -> None:
    """One sentence, and nothing is left."""
    code, said = answer
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(errors) == 1, said
    assert all(word in errors[0] for word in words), errors
    assert not Path("set").exists() and not list(Path().glob(".*"))


def train(run: Run, folder: str | Path) -> str:
    over = f"trainer.epochs@1+trainer.save_dir@{Path('saved').absolute()}"
    code, said = run(train_program, "--config", f"{folder}/config.json", "--custom_args", over)
    assert code == 0, said
    return said


# --- Layouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_captions(place: Path, importing: Call, layout: str) -> None:
    code, said = importing("--captions", LAYOUTS[layout](place, CAPTIONS))
    assert code == 0, said
    assert captions_in() == CAPTIONS
    assert "40 captions of 20 videos" in said
    lists = lists_in()
    assert sorted(video for ids in lists.values() for video in ids) == sorted(CAPTIONS)
    counts = (12, 4, 4) if layout in WITH_SPLITS else (16, 2, 2)
    assert tuple(len(lists[role]) for role in ("train", "val", "test")) == counts


@pytest.mark.parametrize("layout", ["CSV", "MSR-VTT", "ActivityNet"])
def test_what_is_imported_is_checked_and_trains(
    place: Path, importing: Call, run: Run, layout: str
) -> None:
    assert importing("--captions", LAYOUTS[layout](place, CAPTIONS))[0] == 0
    code, said = run(check_program, "set", "--config", "set/config.json")
    assert code == 0 and "Nothing stands in the way" in said
    assert "each caption by itself" in train(run, "set")


def split_files(kind: str, lists: dict[str, list[str]]) -> list[str]:
    """Write lists of videos in a layout; returns what stands behind --split-files."""
    if kind == "lines":
        for role, ids in lists.items():
            Path(f"my_{role}_list.txt").write_text("".join(f"{i}.mp4\n" for i in ids), "utf-8")
        return [f"my_{role}_list.txt" for role in lists]
    if kind == "CSV":
        return [
            f"{r}={table(f'only_{r}.csv', [['video_id'], *([i] for i in ids)])}"
            for r, ids in lists.items()
        ]
    if kind == "CSV without names":
        return [f"{r}={table(f'only_{r}.csv', [[i] for i in ids])}" for r, ids in lists.items()]
    if kind == "CSV with a column":
        rows = [[i, role] for role, ids in lists.items() for i in ids]
        return [table("all.csv", [["video_id", "split"], *rows])]
    if kind == "JSON":
        Path("s.json").write_text(json.dumps(lists))
        return ["s.json"]
    assert kind == "JSON lines"
    for role, ids in lists.items():
        lines = [json.dumps({"video_id": i, "caption": "a"}) for i in ids]
        Path(f"{role}.jsonl").write_text(
            "\n".join(
                lines[: None if role != "test" else 0] or [json.dumps({"video_id": i}) for i in ids]
            )
        )
    return [f"{role}.jsonl" for role in lists]


@pytest.mark.parametrize(
    "kind", ["lines", "CSV", "CSV without names", "CSV with a column", "JSON", "JSON lines"]
)
def test_lists_in_every_layout(place: Path, importing: Call, kind: str) -> None:
    ids = list(CAPTIONS)
    lists = {"train": ids[5:], "val": ids[:2], "test": ids[2:5]}
    code, said = importing(
        "--captions", csv_of(CAPTIONS), "--split-files", *split_files(kind, lists)
    )
    assert code == 0, said
    assert lists_in() == lists


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_table_is_a_list_of_a_data_set(place: Path, importing: Call, ending: str) -> None:
    """Named in `dataset.json` itself."""
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    ids = lists_in()["train"]
    path = Path("set", f"train.{ending}")
    if ending == "jsonl":
        path.write_text("\n".join(json.dumps({"video_id": i, "n": 1}) for i in ids))
    else:
        mark = "\t" if ending == "tsv" else ","
        path.write_text(
            "".join(f"{a}{mark}{b}\n" for a, b in [("n", "video_id"), *(("1", i) for i in ids)])
        )
    description = json.loads(Path("set/dataset.json").read_text())
    description["splits"]["val"]["train"] = path.name
    Path("set/dataset.json").write_text(json.dumps(description))
    found = find_description("set")
    assert videos_of(found.split("val").train, FileFinder(found)) == ids


def test_a_table_without_a_known_column_is_refused_as_a_list(place: Path, importing: Call) -> None:
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    found = find_description("set")
    table("set/train.csv", [["a", "b"], ["x", "y"]])
    with pytest.raises(UserError, match="has 2 columns, of which none is known to hold ids"):
        videos_of(ListEntry("train.csv"), FileFinder(found))


# --- What is asked of the files -------------------------------------------------------------------


def test_fields_that_are_ambiguous_are_asked_for(place: Path, importing: Call) -> None:
    rows = [[key, texts[0], texts[1]] for key, texts in CAPTIONS.items()]
    table("c.csv", [["video_id", "enCap", "chCap"], *rows])
    refused(importing("--captions", "c.csv"), "enCap", "chCap", "--caption-column")
    refused(importing("--captions", "c.csv", "--caption-column", "x"), "enCap", "--caption-column")
    assert importing("--captions", "c.csv", "--caption-column", "chcap")[0] == 0
    assert captions_in() == {key: [texts[1]] for key, texts in CAPTIONS.items()}


def test_ids_are_in_the_column_that_the_experts_know(place: Path, importing: Call) -> None:
    rows = [
        [f"r{n}", f"other{n}", key, texts[0]] for n, (key, texts) in enumerate(CAPTIONS.items())
    ]
    table("c.csv", [["video_id", "vid", "third", "caption"], *rows])
    assert importing("--captions", "c.csv")[0] == 0
    assert set(captions_in()) == {*CAPTIONS}


def test_two_columns_of_ids_that_no_expert_knows_are_asked_for(
    place: Path, importing: Call
) -> None:
    rows = [[f"ret{n}", f"other{n}", "a b"] for n in range(20)]
    table("c.csv", [["video_id", "vid", "caption"], *rows])
    refused(importing("--captions", "c.csv"), "--id-column")
    refused(
        importing("--captions", "c.csv", "--id-column", "vid"), "No video of the captions", "other"
    )


def test_segments_are_named_as_the_experts_name_them(place: Path, importing: Call) -> None:
    ids = [f"film{n // 4}_{n % 4}" for n in range(80)]
    write_experts(place, ids)
    rows = [["end", "start", "video_id", "text"]]
    rows += [
        [str(n % 4 + 1), str(n % 4), f"film{n // 4}.mp4", f"{WORDS[n % 9]} {WORDS[n % 7]} sings"]
        for n in range(80)
    ]
    table("c.csv", rows)
    code, said = importing("--captions", "c.csv")
    assert code == 0 and "{video}_{number}" in said
    assert set(captions_in()) == {*ids}
    films = {role: {name.split("_")[0] for name in names} for role, names in lists_in().items()}
    assert not films["train"] & (films["val"] | films["test"]) and not films["val"] & films["test"]
    assert "by source video: 80 segments of 20 videos" in said
    by_hand = importing("--captions", "c.csv", "--segment-ids", "{video}_{start}")
    assert by_hand[0] == 0 and "nothing has changed" not in by_hand[1]
    assert set(captions_in()) == {*ids}


def test_segments_stay_captions_of_their_video_where_experts_have_whole_videos(
    place: Path, importing: Call
) -> None:
    assert importing("--captions", LAYOUTS["YouCook2"](place, CAPTIONS))[0] == 0
    assert captions_in() == CAPTIONS


def test_ids_of_all_sources_meet(place: Path, importing: Call) -> None:
    """Folders, endings and Unicode forms differ from source to source."""
    decomposed = {unicodedata.normalize("NFD", key): texts for key, texts in CAPTIONS.items()}
    assert set(decomposed) != set(CAPTIONS)
    Path("train.txt").write_text("".join(f"cat/{i}.AVI\n" for i in list(CAPTIONS)[4:]), "utf-8-sig")
    Path("test.txt").write_text("".join(f"{i}.mp4\n" for i in list(CAPTIONS)[:4]), "utf-8")
    code, said = importing(
        "--captions", csv_of(decomposed), "--split-files", "train.txt", "test.txt"
    )
    assert code == 0, said
    assert captions_in() == CAPTIONS
    row = next(line for line in said.splitlines() if line.startswith("captions"))
    assert row.split()[1:] == ["20", "20", "20", "20"]
    assert "videos  with captions" in said  # not their number, which stands above


def test_folders_stay_where_the_ids_would_be_one(place: Path, importing: Call) -> None:
    ids = [f"cat{n % 2}/v{n // 2}" for n in range(20)]
    write_experts(place, ids)
    captions = dict(zip(ids, CAPTIONS.values(), strict=True))
    assert importing("--captions", csv_of(captions))[0] == 0
    assert captions_in() == captions


def test_near_misses_are_told(place: Path, importing: Call) -> None:
    captions = {key.upper() if n > 10 else key: t for n, (key, t) in enumerate(CAPTIONS.items())}
    code, said = importing("--captions", csv_of(captions))
    assert code == 0 and "differ from ids there only by letter case" in said


# --- Splits and protocols -------------------------------------------------------------------------


def test_the_sentence_of_a_test_list_is_the_query(place: Path, importing: Call, run: Run) -> None:
    ids = list(CAPTIONS)
    rows = [[f"ret{n}", key, f"the red sentence {n}"] for n, key in enumerate(ids[:4])]
    table("test.csv", [["key", "video_id", "sentence"], *rows])
    Path("train.txt").write_text("\n".join(ids[4:]), "utf-8")
    code, said = importing("--captions", csv_of(CAPTIONS), "--split-files", "train.txt", "test.csv")
    assert code == 0 and "the sentence that the test list gives is the query" in said
    index = json.loads(Path("set/queries.json").read_text())
    found = captions_in()
    assert [found[key][index[key]] for key in ids[:4]] == [row[2] for row in rows]
    assert all(found[key][:2] == CAPTIONS[key] for key in ids)
    assert "4 queries" in train(run, "set")


@pytest.mark.parametrize(
    ("captions_as", "loading", "said"),
    [
        ("each", {"num_test_captions": 2}, "4 queries of 4 captions, each caption by itself"),
        ("first", {"num_test_captions": 1}, "2 queries of 4 captions"),
        ("paragraph", {"fuse_captions": True}, "2 queries"),
        ("mean", {"num_test_captions": 2}, "2 queries of 4 captions, each the mean"),
    ],
)
def test_protocols(
    place: Path, importing: Call, run: Run, captions_as: str, loading: dict, said: str
) -> None:
    code, told = importing("--captions", csv_of(CAPTIONS), "--captions-as", captions_as)
    assert code == 0 and f"(--captions-as {captions_as})" in told
    assert loading.items() <= config_in()["data_loader"]["args"].items()
    assert said in train(run, "set")


def test_a_missing_validation_list_never_takes_test_videos(place: Path, importing: Call) -> None:
    ids = list(CAPTIONS)
    Path("train.txt").write_text("\n".join(ids[4:]), "utf-8")
    Path("test.txt").write_text("\n".join(ids[:4]), "utf-8")
    code, said = importing("--captions", csv_of(CAPTIONS), "--split-files", "train.txt", "test.txt")
    assert code == 0 and "of the training videos were drawn" in said
    lists = lists_in()
    assert lists["test"] == ids[:4] and sorted(lists["train"] + lists["val"]) == sorted(ids[4:])


def test_listed_videos_without_captions_are_a_question(place: Path, importing: Call) -> None:
    ids = list(CAPTIONS)
    Path("train.txt").write_text("\n".join([*ids[4:], "nobody"]), "utf-8")
    Path("test.txt").write_text("\n".join(ids[:4]), "utf-8")
    flags = ("--captions", csv_of(CAPTIONS), "--split-files", "train.txt", "test.txt")
    refused(importing(*flags), "nobody", "--leave-out")
    code, said = importing(*flags, "--leave-out")
    assert code == 0 and "1 listed videos without captions are left out" in said


def test_videos_whose_vectors_are_no_numbers_are_named(place: Path, importing: Call) -> None:
    ids = list(CAPTIONS)
    look = np.ones((len(ids), 6), np.float32)
    look[3] = np.nan
    np.savez("look.npz", ids=np.array(ids), feats=look)
    code, said = importing("--captions", csv_of(CAPTIONS))
    assert code == 0
    assert "expert look: no vector (empty, or not a number) for 1 videos" in said
    assert f"such as {ids[3]}" in said and "expert sound: no vector" not in said


# --- Importing twice ------------------------------------------------------------------------------


def facts(folder: str | Path) -> dict[str, tuple[int, int]]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in paths}


def test_importing_twice_changes_nothing(place: Path, importing: Call) -> None:
    ids = [f"{key}.mp4" for key in CAPTIONS]
    write_experts(place, ids)  # other ids than those of the data set: they are written anew
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    before = facts("set")
    assert "set/features/look.npz" in before
    code, said = importing("--captions", "c.csv")
    assert code == 0 and "nothing has changed" in said
    assert facts("set") == before


def test_another_source_of_the_same_name_is_noticed(place: Path, importing: Call) -> None:
    """Of the same size and time."""
    write_experts(place, [f"{key}.mp4" for key in CAPTIONS])
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    old, times = Path("set/features/look.npz").read_bytes(), Path("look.npz").stat()
    arrays = dict(np.load("look.npz"))
    np.savez("new.npz", ids=arrays["ids"], feats=arrays["feats"] + 1)
    os.utime("new.npz", ns=(times.st_atime_ns, times.st_mtime_ns))
    Path("new.npz").replace("look.npz")
    code, said = importing("--captions", "c.csv")
    assert (
        code == 0
        and "features/look.npz has changed" in said
        and "sound" not in said.split("set:")[1]
    )
    assert Path("set/features/look.npz").read_bytes() != old


def test_videos_are_added(place: Path, importing: Call, run: Run) -> None:
    first, more = dict(list(CAPTIONS.items())[:14]), dict(list(CAPTIONS.items())[14:])
    write_experts(place, list(first))
    write_experts(place, list(more), "2")
    both = np.load("sound.npz"), np.load("sound2.npz")
    np.savez(
        "sound.npz",
        ids=np.concatenate([part["ids"] for part in both]),
        feats=np.concatenate([part["feats"] for part in both]),
        offsets=np.concatenate(
            [both[0]["offsets"], both[1]["offsets"][1:] + both[0]["offsets"][-1]]
        ),
    )
    assert importing("--captions", csv_of(first))[0] == 0
    before = lists_in()
    train(run, "set")
    packs = {str(path): path.stat().st_mtime_ns for path in Path("set").rglob("*sound*.packed")}
    assert packs
    flags = ("--add", "--captions", csv_of(more, "more.csv"), "--features", "look=look2.npz")
    code, said = importing(*flags, experts=False)
    assert code == 0, said
    assert captions_in() == CAPTIONS
    after = lists_in()
    assert all({*before[role]} <= {*after[role]} for role in before)
    assert sum(map(len, after.values())) == 20
    train(run, "set")
    assert packs == {
        str(path): path.stat().st_mtime_ns for path in Path("set").rglob("*sound*.packed")
    }
    code, said = importing(*flags, experts=False)
    assert code == 0 and "nothing has changed" in said


def test_parts_of_an_expert_may_not_share_videos(place: Path, importing: Call) -> None:
    flags = ("--captions", csv_of(CAPTIONS), "--features", "look=look.npz", "look=again.npz")
    Path("again.npz").write_bytes(Path("look.npz").read_bytes())
    refused(importing(*flags, experts=False), "another part")


def test_a_config_that_the_user_changed_stays(place: Path, importing: Call) -> None:
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    config = config_in()
    config["trainer"] = {"epochs": 7}
    Path("set/config.json").write_text(json.dumps(config))
    code, said = importing("--captions", "c.csv", "--captions-as", "first")
    assert code == 0 and "config.json was changed since" in said
    assert config_in() == config


def test_what_cannot_be_replaced_is_told(place: Path, importing: Call) -> None:
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    Path("set/captions.json").unlink()
    Path("set/captions.json").mkdir()
    code, said = importing("--captions", "c.csv")
    assert code == 2 and "error: Cannot import into " in said and "set/captions.json" in said


@pytest.mark.parametrize("name", ["captions.json", "splits/train.txt", "dataset.json"])
def test_what_the_user_changed_is_not_undone(place: Path, importing: Call, name: str) -> None:
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    path = Path("set", name)
    written = path.read_text()
    changed = json.dumps({**json.loads(written), "name": []}) if "json" in name else "v0\n"
    path.write_text(changed)
    code, said = importing("--captions", "c.csv")
    assert code == 2 and f"set/{name} was changed since" in said
    assert path.read_text() == changed
    path.write_text(written)
    assert "nothing has changed" in importing("--captions", "c.csv")[1]


def test_a_video_that_the_user_moved_to_another_list_stays_there(
    place: Path, importing: Call
) -> None:
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    lists = lists_in()
    lists["val"].append(lists["train"].pop())
    for role, ids in lists.items():
        Path(f"set/splits/{role}.txt").write_text("".join(f"{v}\n" for v in ids))
    assert importing("--add", experts=False)[0] == 0
    assert {role: {*ids} for role, ids in lists_in().items()} == {r: {*v} for r, v in lists.items()}


def test_sources_may_lie_in_the_folder_of_the_data_set(place: Path, importing: Call) -> None:
    """The folder may be there before, with the features and the word vectors in it."""
    Path("set/deep").mkdir(parents=True)
    Path("look.npz").rename("set/deep/look.npz")
    vocabulary = [*WORDS, "a", "is"]
    write_word_vectors(Path("set/w.bin"), vocabulary, np.ones((len(vocabulary), 4)))
    features = ("--features", "look=set/deep/look.npz", "sound=sound.npz")
    flags = ("--captions", csv_of(CAPTIONS), *features, "--text-encoder", "set/w.bin")
    code, said = importing(*flags, experts=False)
    assert code == 0, said
    description = json.loads(Path("set/dataset.json").read_text())
    assert description["experts"]["look"]["file"] == "deep/look.npz"
    assert not any(path.is_symlink() for path in Path("set").rglob("*"))
    assert "nothing has changed" in importing(*flags, experts=False)[1]
    assert "nothing has changed" in importing("--add", experts=False)[1]


def test_a_recipe_that_exists_is_named_and_its_files_are_gone_after(
    place: Path, importing: Call
) -> None:
    """What an earlier import wrote and this one does not need is removed, and nothing else."""
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    Path("set/notes.txt").write_text("mine")
    write_word_vectors(Path("v.bin"), WORDS, np.eye(len(WORDS), 5))
    code, said = importing("--captions", "c.csv", "--text-encoder", "v.bin")
    assert code == 0 and "words.bin is gone" in said
    assert not Path("set/words.bin").exists() and Path("set/notes.txt").read_text() == "mine"


# --- Text -----------------------------------------------------------------------------------------


def test_moee_made_of_the_config_embeds_in_more_than_its_small_experts(
    place: Path, importing: Call
) -> None:
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    made = config_in() | {"inherit_from": "configs/own/train-moee.json"}
    Path("set/config.json").write_text(json.dumps(made))
    config = Config.from_file(Path("set/config.json"))
    sizes = {size for _, size in expert_dims(config, inputs_of(config)).values()}
    assert config["arch.args.use_ce"] == "" and sizes == {256}


def test_word_vectors_are_used_as_they_lie(place: Path, importing: Call, run: Run) -> None:
    write_word_vectors(Path("v.bin"), WORDS, np.eye(len(WORDS), 5))
    assert importing("--captions", csv_of(CAPTIONS), "--text-encoder", "v.bin")[0] == 0
    description = json.loads(Path("set/dataset.json").read_text())
    assert description["text_features"] == {"words": {"word_vectors": "../v.bin", "size": 5}}
    train(run, "set")


def test_a_model_encodes_once_and_is_recorded(place: Path, importing: Call, run: Run) -> None:
    pytest.importorskip("transformers")
    from tests.tiny_encoders import SIZE, make_encoder

    make_encoder(Path("model"), "bert")
    flags = ("--captions", csv_of(CAPTIONS), "--text-encoder", "model")
    assert importing(*flags)[0] == 0
    description = json.loads(Path("set/dataset.json").read_text())
    entry = description["text_features"]["text"]
    assert (entry["file"], entry["size"], entry["encoder"]["pooling"]) == (
        "text.npz",
        SIZE,
        "tokens",
    )
    before = facts("set")
    code, said = importing(*flags)
    assert code == 0 and "nothing has changed" in said and facts("set") == before
    train(run, "set")
    code, said = importing(*flags, "--split-column", "none")  # refused: what was there stays
    assert code == 2 and facts("set") | before == facts("set")
    csv_of({key: texts[:1] for key, texts in CAPTIONS.items()})
    code, said = importing(*flags)
    assert code == 0 and "text.npz has changed" in said


def test_word_vectors_refuse_a_language_that_they_do_not_know(place: Path, importing: Call) -> None:
    write_word_vectors(Path("v.bin"), WORDS, np.eye(len(WORDS), 5))
    captions = {key: ["一个男人在跑"] for key in CAPTIONS}
    for flags in ([], ["--text-encoder", "v.bin"]):
        refused(importing("--captions", csv_of(captions), *flags), "written without spaces")
    with_spaces = {key: ["一个 男人 在 跑"] for key in CAPTIONS}
    assert importing("--captions", csv_of(with_spaces))[0] == 0


def test_vectors_of_the_captions_bring_words_together_that_are_used_alike(tmp_path: Path) -> None:
    from data_loader.store.word_vectors import read_word_vectors
    from misc.import_data_set.text import make_vectors

    rng = np.random.default_rng(0)
    pets, tools = ("cat", "dog"), ("saw", "drill")
    captions = [f"a {rng.choice(pets)} eats food" for _ in range(50)]
    captions += [f"some {rng.choice(tools)} cuts wood" for _ in range(50)]
    make_vectors(tmp_path / "words.bin", captions)
    table = read_word_vectors(tmp_path / "words.bin")
    cat, dog, saw = (table.values[table.rows[word]] for word in ("cat", "dog", "saw"))
    assert cat @ dog > 0.5 > 0.1 > cat @ saw


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("made_of", ["a folder", "a link", "a file"])
def test_what_lies_where_a_set_is_made_stays(place: Path, importing: Call, made_of: str) -> None:
    way = Path(".set.importing")
    if made_of == "a file":
        way.write_text("mine")
    else:
        folder = way if made_of == "a folder" else Path("elsewhere")
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
        if folder != way:
            way.symlink_to(folder)
    code, said = importing("--captions", csv_of(CAPTIONS))
    assert code == 2 and ".set.importing is in the way" in said
    assert (way if made_of == "a file" else way / "notes.txt").read_text() == "mine"
    assert way.is_symlink() == (made_of == "a link") and not Path("set").exists()


def test_a_folder_of_an_import_that_was_killed_is_made_anew(place: Path, importing: Call) -> None:
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    Path("set").rename(".set.importing")  # killed before the last step: it bears no mark
    assert importing("--captions", "c.csv")[0] == 0
    assert not Path(".set.importing").exists() and captions_in() == CAPTIONS


def test_other_files_are_never_replaced(place: Path, importing: Call, run: Run) -> None:
    Path("set").mkdir()
    Path("set/captions.json").write_text("mine")
    code, said = importing("--captions", csv_of(CAPTIONS))
    assert code == 2 and "set/captions.json is there and was not written by this tool" in said
    Path("set/dataset.json").write_text("{}")
    code, said = importing("--captions", "c.csv")
    assert code == 2 and "dataset.json was not written by this tool" in said
    assert [path.name for path in sorted(Path("set").iterdir())] == [
        "captions.json",
        "dataset.json",
    ]
    assert Path("set/captions.json").read_text() == "mine" and not list(Path().glob(".*"))


def test_a_description_that_names_files_elsewhere_is_damaged(place: Path, importing: Call) -> None:
    assert importing("--captions", csv_of(CAPTIONS))[0] == 0
    description = json.loads(Path("set/dataset.json").read_text())
    description["made_by"]["files"]["../c.csv"] = "0"
    Path("set/dataset.json").write_text(json.dumps(description))
    code, said = importing("--captions", "c.csv")
    assert code == 2 and "is damaged" in said and Path("c.csv").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"\xff\xfe\xff", ["no text in UTF-8"]),
        (b'video_id,caption\n"v', ["none of captions"]),
        (b"video_id,caption\na,b,c,d\n", ["line 2", "4 columns"]),
        (b"alpha,beta\n1,2\n", ["--caption-column"]),
        (b"alpha,text\na b,a b\n", ["--id-column"]),
        (b"\x1f\x8b\x08\x00packed", ["no text", "unpack"]),
        (b'video_id,caption\n"a\nb",a dog runs\n', ["several lines"]),
        (b'video_id,caption\na,"a dog\n' + b"b,a cat\n" * 100, ["lines 2 to 102", "quotation"]),
    ],
)
def test_broken_tables_are_refused(
    place: Path, importing: Call, content: bytes, words: list[str]
) -> None:
    Path("c.csv").write_bytes(content)
    refused(importing("--captions", "c.csv"), "c.csv", *words)


@pytest.mark.parametrize(
    "content", ["[1, 2", "{}", "3", '[{"x": 1}]', '{"a": {"b": 1}}', '{"train": [{"q": 1}]}']
)
def test_json_without_captions_is_refused(place: Path, importing: Call, content: str) -> None:
    Path("c.json").write_text(content)
    refused(importing("--captions", "c.json"), "c.json")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--captions", "none.csv"], ["none.csv", "does not exist"]),
        (["--captions", "c.csv", "--segment-ids", "{x}"], ["{video}"]),
        (["--captions", "c.csv", "--split-files", "c2.csv"], ["--split-files train=c2.csv"]),
        (["--captions", "c.csv", "--split-files", "train=c2.csv"], ["test"]),
        (["--captions", "c.csv", "--split-column", "caption"], ["--split-column"]),
        (["--captions", "c.csv", "--add"], ["no data set", "--add"]),
        (["--captions", "c.csv", "--text-encoder", "none/model"], ["none/model"]),
        (["--captions", "c.csv", "--features", "look"], ["EXPERT=PATH"]),
        (["--captions", "c.csv", "--features", "look=none.npz"], ["none.npz"]),
        (["--captions", "c.csv", "--features", "text=look.npz"], ["name of an expert"]),
        (["--captions", "c.csv", "c.csv"], ["c.csv twice"]),
        (["--captions", "c.csv", "--features", "a=look.npz", "a=./look.npz"], ["twice"]),
        (["--captions", "c.csv", "--videos", "none"], ["none is no folder"]),
        (["--captions", "c.csv", "--device", "0"], ["--device has no meaning"]),
        (["--captions", "c.csv", "--output", "/"], ["folder of its own"]),
        (["--captions", "texts", "--output", "texts/set"], ["elsewhere"]),
        (["--captions", "c.csv", "--split-files", "train=c2.csv", "test=empty.txt"], ["is empty"]),
    ],
)
def test_refusals(place: Path, importing: Call, flags: list[str], words: list[str]) -> None:
    csv_of(CAPTIONS)
    table("c2.csv", [["video_id"], *([key] for key in CAPTIONS)])
    Path("empty.txt").touch()
    LAYOUTS["a text for each video"](place, CAPTIONS)
    refused(importing(*flags, experts="--features" not in flags), *words)


def test_an_interrupted_import_leaves_nothing(
    place: Path, importing: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("misc.import_data_set.data_set._Maker.check", interrupt)
    assert importing("--captions", csv_of(CAPTIONS))[0] == 130
    assert not Path("set").exists() and not list(Path().glob(".*"))


# --- A walk as a new user -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_new_users_walk(place: Path, importing: Call, run: Run) -> None:
    """200 invented videos: frames as a folder of `.npy`, sound as `.h5`, captions as CSV."""
    import h5py

    rng = np.random.default_rng(0)
    meaning = {word: rng.standard_normal(16) for word in WORDS}
    captions = {}
    for number in range(200):
        words = rng.choice(WORDS, 4, replace=False)
        captions[f"v{number:03}"] = [" ".join(rng.permutation(words)) for _ in range(2)]
    Path("frames").mkdir()
    with h5py.File("sound.h5", "w") as sound:
        for number, (key, texts) in enumerate(captions.items()):
            centre = np.mean([meaning[word] for word in " ".join(texts).split()], axis=0)
            frames = centre + 0.3 * rng.standard_normal((rng.integers(2, 12), 16))
            np.save(f"frames/{key}.npy", frames.astype(np.float32))
            if number % 9:
                sound[key] = (centre + rng.standard_normal((3, 16))).astype(np.float32)
    features = ("--features", "frames=frames", "sound=sound.h5")
    code, said = importing("--captions", csv_of(captions), *features, experts=False)
    assert code == 0, said
    [command] = [line for line in said.splitlines() if line.startswith("  python3 train.py")]
    over = f"trainer.save_dir@{Path('saved').absolute()}"
    code, said = run(train_program, *command.split()[2:], "--custom_args", over)
    assert code == 0, said
    page = next(Path("saved/web").rglob("index.html"))
    assert page.stat().st_size > 1000
    row = next(line for line in said.splitlines() if line.startswith("t2v"))
    assert float(row.split()[2]) > 50, "R@5 of 20 videos; chance is 25"


@pytest.mark.slow
def test_a_real_set_rebuilt_gives_the_same_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    data = SHARED / "data"
    if not (data / "vine").is_dir():
        pytest.skip("the folder of real data is not here")
    vine = data / "vine"
    config = json.loads((vine / "config.json").read_text())
    monkeypatch.chdir(tmp_path)
    code, said = run(
        program,
        *("--output", "vine", "--captions", vine / "captions.json"),
        *("--split-files", vine / "splits.json"),
        *("--features", f"motion={vine / 'motion.npz'}", f"audio_tags={vine / 'audio_tags.npz'}"),
        *("--text-encoder", data / "word_vectors" / "captions-w2v-300d.bin"),
    )
    assert code == 0, said
    results = []
    for name, text in ((str(vine), "w2v"), ("vine", "words")):
        config["data_loader"]["args"] |= {"dataset_name": name, "cache_dir": "cache"}
        config["experts"]["text_feat"] = text
        config["trainer"] |= {"save_dir": f"saved-{text}", "epochs": 2}
        Path(f"{text}.json").write_text(json.dumps(config))
        assert run(train_program, "--config", f"{text}.json")[0] == 0
        [metrics] = Path(f"saved-{text}").rglob("metrics.json")
        results.append(json.loads(metrics.read_text())["test"])
    assert results[0] == results[1]


# --- Handed files ---------------------------------------------------------------------------------

FORMATS: dict[str, list[str]] = {
    "didemo": [
        "--captions",
        "train_data.json",
        "val_data.json",
        "--split-files",
        "train_list.txt",
        "val_list.txt",
    ],
    "lsmdc": [
        "--captions",
        "LSMDC16_annos_training.csv",
        "test=LSMDC16_challenge_1000_publictect.csv",
    ],
    "msrvtt": [
        "--captions",
        "MSRVTT_data.json",
        "--split-files",
        "MSRVTT_train.9k.csv",
        "MSRVTT_JSFUSION_test.csv",
    ],
    "msvd": [
        "--captions",
        "raw-captions.pkl",
        "--split-files",
        "train_list.txt",
        "val_list.txt",
        "test_list.txt",
    ],
    "records": ["--captions", "train.jsonl", "test.jsonl"],
    "records ": ["--captions", "txt_msrvtt-retrieval.json"],
    "vatex": [
        "--captions",
        "vatex_training_v1.0.json",
        "vatex_validation_v1.0.json",
        "--caption-column",
        "enCap",
    ],
    "webvid": ["--captions", "results_2M_val.csv"],
    "yc2": ["--captions", "youcookii_annotations_trainval.json"],
    "yc2 ": ["--captions", "validation_youcook.csv"],
}
# In the published layouts: captions, and the size of the lists (0: drawn).
SIZES = {
    "didemo": (30, 10, 10),
    "lsmdc": (27, 3, 10),
    "msrvtt": (27, 3, 10),
    "msvd": (28, 6, 6),
    "records": (27, 3, 10),
    "records ": (30, 10, 10),
    "vatex": (30, 10, 10),
    "webvid": (32, 4, 4),
    "yc2": (28, 12, 12),
    "yc2 ": (32, 4, 4),
}


def handed(name: str) -> Path:
    folder = SHARED / "cases" / "bug_reports" / name
    if not folder.is_dir():
        pytest.skip("the folder of handed cases is not here")
    return folder


def from_folder(folder: Path, flags: list[str]) -> list[str]:
    """Write files of the folder with their path in front."""
    found = []
    for flag in flags:
        role, equals, name = flag.rpartition("=")
        found.append(f"{role}{equals}{folder / name}" if (folder / name).exists() else flag)
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_handed_annotations_are_imported_and_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, name: str
) -> None:
    folder = handed(f"format-{name.strip()}")
    monkeypatch.chdir(tmp_path)
    experts = [f"motion={folder / 'motion.npz'}", f"sound={folder / 'sound.npz'}"]
    flags = from_folder(folder, FORMATS[name])
    code, said = run(program, "--output", "set", *flags, "--features", *experts)
    assert code == 0, said
    lists = lists_in()
    assert tuple(len(lists[role]) for role in ("train", "val", "test")) == SIZES[name]
    row = next(line for line in said.splitlines() if line.startswith("captions"))
    assert row.split()[1:] == ["40"] * 4
    train(run, "set")


@pytest.mark.parametrize(
    "name", ["ids-with-folders", "ids-end-at", "nfd-ids", "no-expert-at-all", "caption-is-text"]
)
def test_handed_ids_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, name: str
) -> None:
    folder = handed(name)
    monkeypatch.chdir(tmp_path)
    lists = ["train.txt", "val.txt", "test.txt"]
    flags = from_folder(folder, ["--captions", "captions.json", "--split-files", *lists])
    experts = from_folder(folder, ["motion=motion.npz", "sound=sound.npz"])
    words = folder / "words.txt"
    code, said = run(
        program, "--output", "set", *flags, "--features", *experts, "--text-encoder", words
    )
    assert code == 0, said
    rows = [line.split() for line in said.splitlines() if line.startswith(("train ", "test "))]
    assert rows == [["train"] + ["30"] * 4, ["test"] + ["8"] * 4]


@pytest.mark.parametrize(
    ("name", "expert", "word"),
    [("chinese-captions", "motion.npz", "without spaces"), ("bad-video-unnamed", "m", "v007")],
)
def test_handed_files_that_cannot_be_used_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, name: str, expert: str, word: str
) -> None:
    folder = handed(name)
    monkeypatch.chdir(tmp_path)
    answer = run(
        program,
        *("--output", "set", "--captions", folder / "captions.json"),
        *("--features", f"motion={folder / expert}", "--text-encoder", folder / "words.txt"),
    )
    refused(answer, word)
