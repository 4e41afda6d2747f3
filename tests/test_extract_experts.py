"""From videos to a data set: resuming, adding, shards, broken videos, captions, words."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import misc.check_data_set.__main__ as check_program
import misc.extract_experts.__main__ as program
import train as train_program
from misc.extract_experts import assemble, job, journal
from misc.extract_experts.decoding.cutting import Piece
from misc.extract_experts.decoding.media import End
from misc.extract_experts.expert import Chunk, Frames, Loaded, Row, Seen, Settings, Sound, Words
from misc.extract_experts.experts import builtin, table
from misc.extract_experts.one_file import features_of
from misc.extract_experts.running import Experts, Work, load_experts
from misc.extract_experts.walk import find_videos
from tests.made_videos import numbered, tone, write_media
from tests.run_files import Run
from utils.errors import UserError

Call = Callable[..., tuple[int, str]]
COUNT = 10
SMALL = ("--experts", "scene", "audio")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten short videos, one of them silent, one of them sound alone, and captions."""
    folder = tmp_path_factory.mktemp("videos")
    captions = {}
    for number in range(COUNT):
        frames = [numbered(shown, 64, 48) for shown in range(9 * number, 9 * number + 14)]
        sound = None if number == 3 else tone(1.4, 200.0 + 40 * number)
        name = f"v{number}.mp4"
        write_media(folder / name, [] if number == 5 else frames, 10, sound)
        captions[f"v{number}"] = [f"bars that count from {9 * number} on", "black and white bars"]
    (folder / "notes.doc").write_text("no video")
    (folder / ".hidden.mp4").write_text("no video")
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder


@pytest.fixture
def place(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for path in videos.glob("v*.mp4"):
        (tmp_path / "videos").mkdir(exist_ok=True)
        os.link(path, tmp_path / "videos" / path.name)
    shutil.copy(videos / "captions.json", tmp_path)
    return tmp_path


@pytest.fixture
def extracting(run: Run) -> Call:
    def call(*arguments: object, output: str = "set") -> tuple[int, str]:
        return run(program, "--videos", "videos", "--output", output, "--workers", "1", *arguments)

    return call


def features_in(folder: str | Path, expert: str) -> dict[str, np.ndarray]:
    with np.load(Path(folder, "experts", f"{expert}.npz"), allow_pickle=False) as found:
        ids, feats = found["ids"].tolist(), found["feats"]
        ends = found["offsets"][1:-1] if "offsets" in found else np.arange(1, len(ids))
        return dict(zip(ids, np.split(feats, ends), strict=True))


def contents(folder: str | Path) -> dict[str, bytes]:
    """All files that others use: what `.extraction` holds is not theirs."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and ".extraction" not in path.parts
    }


def bytes_of(folder: str) -> dict[str, bytes]:
    """The same but for the name of the data set."""
    return {name: data for name, data in contents(folder).items() if name != "dataset.json"}


def looked_at(said: str) -> int:
    line = next((line for line in said.splitlines() if "looked at now" in line), "0")
    return int(line.split()[0])


# --- A data set -----------------------------------------------------------------------------------


def test_from_videos_to_a_training(place: Path, extracting: Call, run: Run) -> None:
    code, said = extracting("--captions", "captions.json")
    assert code == 0, said
    assert "10 videos, 0.00 hours" in said and "--config set/config.json" in said
    rows = {line.split()[0]: line.split()[2:4] for line in said.splitlines() if "  " in line}
    assert rows["audio"] == ["9", "1"] and rows["scene"] == ["9", "1"]
    assert "v3" not in features_in("set", "audio") and "v5" not in features_in("set", "scene")
    description = json.loads(Path("set/dataset.json").read_text())
    made = description["experts"]["scene"]["extractor"]
    assert made["spec"] == "scene=scene" and made["weights"] == "none" and made["look"]["fps"] == 10
    code, said = run(check_program, "set", "--config", "set/config.json")
    assert code == 0 and "Nothing stands in the way" in said
    over = f"trainer.epochs@1+trainer.save_dir@{place / 'saved'}"
    code, said = run(train_program, "--config", "set/config.json", "--custom_args", over)
    assert code == 0, said


def test_the_same_command_again_changes_nothing(place: Path, extracting: Call) -> None:
    first = extracting("--captions", "captions.json", *SMALL)
    before = contents("set")
    times = {path: path.stat().st_mtime_ns for path in Path("set").rglob("*.npz")}
    again = extracting("--captions", "captions.json", *SMALL)
    assert first[0] == again[0] == 0
    assert contents("set") == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert looked_at(first[1]) == COUNT and looked_at(again[1]) == 0


def test_what_is_added_later_ends_as_what_is_made_at_once(place: Path, extracting: Call) -> None:
    """More videos, a further expert, captions: only what is missing is looked at."""
    assert extracting("--captions", "captions.json", "--experts", *ALL, output="once")[0] == 0
    (place / "later").mkdir()
    for number in (2, 7):
        shutil.move(f"videos/v{number}.mp4", "later")
    assert looked_at(extracting(*SMALL)[1]) == COUNT - 2
    assert sorted(json.loads(Path("set/videos.json").read_text())) == [
        f"v{n}" for n in range(COUNT) if n not in (2, 7)
    ]
    for number in (2, 7):
        shutil.move(f"later/v{number}.mp4", "videos")
    assert looked_at(extracting()[1]) == 2
    said = extracting("--experts", "shape")[1]
    assert looked_at(said) == COUNT and "audio" in said
    said = extracting("--captions", "captions.json")[1]
    assert looked_at(said) == 0
    once, later = contents("once"), contents("set")
    assert once.keys() == later.keys()
    assert {name for name in once if once[name] != later[name]} <= {"config.json", "dataset.json"}


ALL = ("scene", "audio", "shape")


def test_a_changed_video_is_looked_at_again(place: Path, extracting: Call) -> None:
    extracting(*SMALL)
    before = features_in("set", "scene")
    Path("videos/v1.mp4").unlink()  # a link: the fixture's file stays
    shutil.copy("videos/v8.mp4", "videos/v1.mp4")
    said = extracting()[1]
    assert looked_at(said) == 1
    after = features_in("set", "scene")
    np.testing.assert_array_equal(after["v1"], before["v8"])
    np.testing.assert_array_equal(after["v0"], before["v0"])


def test_features_are_on_the_disk_once(place: Path, extracting: Call) -> None:
    """What was added later, changed or lost ends as what is made at once."""
    assert extracting("--experts", *ALL, output="once")[0] == 0
    shutil.move("videos/v7.mp4", "v7.mp4")
    assert extracting(*SMALL)[0] == 0
    [path] = Path("set/.extraction").glob("*.journal")
    vectors = sum(path.stat().st_size for path in Path("set/experts").glob("*.npz"))
    assert path.stat().st_size < 0.5 * vectors
    shutil.move("v7.mp4", "videos/v7.mp4")
    assert looked_at(extracting("--experts", "shape")[1]) == COUNT
    assert bytes_of("set") == bytes_of("once")
    # Somebody has scaled the vectors of one video, cut a file off, and removed another one.
    path = Path("set/experts/audio.npz")
    with np.load(path) as found:
        arrays = dict(found)
    arrays["feats"][: arrays["offsets"][1]] *= 2
    np.savez(path, **arrays)
    said = extracting()[1]
    assert looked_at(said) == 1 and "features of audio are not what was written" in said
    os.truncate("set/experts/scene.npz", 900)
    Path("set/experts/shape.npz").unlink()
    assert looked_at(extracting()[1]) == COUNT - 1  # one is sound alone
    assert bytes_of("set") == bytes_of("once")
    assert looked_at(extracting()[1]) == 0


@pytest.mark.parametrize("dies_at", ["before", "within", "after"])
def test_a_kill_while_journals_are_put_together_loses_nothing(
    place: Path, extracting: Call, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    assert extracting(*SMALL, output="once")[0] == 0
    for number in (1, 2):
        extracting(*SMALL, "--shard", f"{number}/2")
    names = {path.name for path in Path("set/.extraction").glob("*.journal")}
    assert names == {"1-of-2.journal", "2-of-2.journal"}

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if dies_at == "after":
            patch.setattr(journal.fcntl, "flock", killed)
        else:
            patch.setattr(*((job, "free") if dies_at == "before" else (journal, "_line")), killed)
        assert extracting()[0] == 130
    said = extracting()[1]
    assert looked_at(said) == 0 and bytes_of("set") == bytes_of("once")
    assert [path.name for path in Path("set/.extraction").glob("*.journal")] == ["1-of-1.journal"]


def test_what_a_shard_adds_meanwhile_stays(
    place: Path, extracting: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        extracting(*SMALL, "--shard", f"{number}/2")
    let_go = journal.let_go

    def while_another_works(work: Path, name: str, done: dict[str, journal.Done]) -> None:
        with closing(journal.Journal(work, "2-of-2")) as other:
            new = journal.Done("../videos/new.mp4", [1, 2], broken="it is another")
            other.add("new", new, {})
        let_go(work, name, done)

    monkeypatch.setattr(assemble, "let_go", while_another_works)
    assert extracting()[0] == 0
    assert "new" in journal.read_journals(Path("set/.extraction"))
    assert not Path("set/.extraction/1-of-2.journal").exists()


def test_shards_merge_into_the_bytes_of_one_process(place: Path, extracting: Call) -> None:
    assert extracting("--captions", "captions.json", *SMALL, "--workers", "2")[0] == 0
    Path("parts/.extraction").mkdir(parents=True)
    Path("parts/.extraction/.settings.json.9-01234567.tmp").touch()  # of one that was killed
    for number in (12, 1, 2):
        code, said = extracting(*SMALL, "--shard", f"{number}/12", output="parts")
        assert code == 0 and looked_at(said) == (number != 12)
    for number in (3, 1, 2):
        code, said = extracting(*SMALL, "--shard", f"{number}/3", output="parts")
        assert code == 0 and looked_at(said) == {1: 3, 2: 2, 3: 3}[number]
    assert not Path("parts/dataset.json").exists()
    code, said = extracting("--captions", "captions.json", *SMALL, output="parts")
    assert code == 0 and looked_at(said) == 0
    one, parts = contents("set"), contents("parts")
    named = {"config.json", "dataset.json"}  # after the folder
    assert {name: one[name] for name in one.keys() - named} == {
        name: parts[name] for name in parts.keys() - named
    }


def test_a_job_array_runs_the_shards(place: Path, extracting: Call, run: Run) -> None:
    flags = ("--sbatch", "jobs", "--shards", "2", "--sbatch_option=--partition=gpu")
    arguments = ["--videos", "videos", "--output", "my set", *SMALL, *flags]
    code, said = run(program, *arguments)
    assert code == 0 and "--dependency=afterok:$(sbatch --parsable jobs/shards.sbatch)" in said
    assert not Path("my set").exists()
    shards, merge = (Path("jobs", f"{name}.sbatch").read_text() for name in ("shards", "merge"))
    assert "#SBATCH --array=0-1" in shards and "#SBATCH --partition=gpu" in merge
    commands = [
        shlex.split(line.split(" set -- ")[1].removesuffix(" ;;"))
        for line in (shards + merge).splitlines()
        if " set -- " in line
    ]
    assert [command[:2] for command in commands] == [["-m", "misc.extract_experts"]] * 3
    for command in commands:
        assert run(program, *command[2:])[0] == 0
    assert json.loads(Path("my set/dataset.json").read_text())["name"] == "my set"
    for name in ("shards", "merge"):
        subprocess.run(["bash", "-n", f"jobs/{name}.sbatch"], check=True)


def test_broken_videos_are_told_and_left_out(place: Path, extracting: Call) -> None:
    data = Path("videos/v0.mp4").read_bytes()
    Path("videos/half.mp4").write_bytes(data[: len(data) // 2])
    Path("videos/empty.mkv").touch()
    Path("videos/text.avi").write_text("no video\n" * 50)
    os.link("videos/v1.mp4", "videos/wrong ending.png")
    code, said = extracting(*SMALL)
    assert code == 0
    assert "3 of 14 videos cannot be used and are left out" in said
    assert "videos/empty.mkv: it is empty" in said
    assert len(features_in("set", "scene")) == COUNT
    again = extracting()[1]
    assert looked_at(again) == 0 and "3 of 14 videos cannot be used" in again
    code, said = extracting("--strict", output="strict")
    assert code == 2 and "--strict" in said
    code, said = extracting("--strict")
    assert code == 2 and "--strict" in said
    Path("videos/text.avi").unlink()
    shutil.copy("videos/v2.mp4", "videos/text.avi")
    assert looked_at(extracting()[1]) == 1


def test_what_is_no_file_is_named_and_may_come_back(place: Path, extracting: Call) -> None:
    """Links that lead nowhere, pipes, links to folders: nothing among the videos is silent."""
    shutil.move("videos/v1.mp4", "away.mp4")
    Path("videos/v1.mp4").symlink_to(place / "away.mp4")
    Path("videos/lost.mp4").symlink_to(place / "nowhere.mp4")
    Path("videos/round.mp4").symlink_to("round.mp4")
    os.mkfifo("videos/pipe.mp4")
    Path("more").mkdir()
    Path("videos/more").symlink_to(place / "more")
    code, said = extracting(*SMALL)
    assert code == 0 and "3 of 13 videos cannot be used" in said
    assert "videos/lost.mp4: it cannot be read (it does not exist)" in said
    assert "videos/round.mp4: it cannot be read (its links lead in a circle)" in said
    assert "videos/pipe.mp4: it is no file" in said
    assert "links to folders are not followed, name these with --videos: videos/more" in said
    # A disk that is not mounted today: its videos stay, and are not looked at again tomorrow.
    shutil.move("away.mp4", "hidden.mp4")
    code, said = extracting()
    assert code == 0 and "v1.mp4: it cannot be read (it does not exist); what was seen" in said
    assert len(features_in("set", "scene")) == COUNT - 1
    shutil.move("hidden.mp4", "away.mp4")
    for name in ("lost", "round", "pipe"):
        Path(f"videos/{name}.mp4").unlink()
    assert looked_at(extracting()[1]) == 0


def test_what_fails_before_anything_is_seen_leaves_nothing(place: Path, extracting: Call) -> None:
    Path("videos/a.mp4").write_text("no video")  # the first one
    code, said = extracting("--strict", *SMALL, output="deep/in/set")
    assert code == 2 and "Cannot use" in said and not Path("deep").exists()
    shutil.move("videos", "all")
    Path("videos").mkdir()
    shutil.move("all/a.mp4", "videos")
    Path("there").mkdir()
    code, said = extracting(*SMALL, output="there")
    assert code == 2 and "None of the videos can be used" in said and not [*Path("there").iterdir()]
    shutil.move("all/v5.mp4", "videos/v5.mp4")  # sound alone
    code, said = extracting("--experts", "scene")
    assert code == 2 and "No expert has seen anything" in said and not Path("set").exists()
    # What was seen is worth keeping: the same command goes on from there.
    shutil.move("videos/a.mp4", "videos/w.mp4")
    code, said = extracting("--strict", *SMALL)
    assert code == 2 and "Cannot use" in said
    Path("videos/w.mp4").unlink()
    code, said = extracting("--strict", *SMALL)
    assert code == 0 and looked_at(said) == 0


def test_captions_that_are_refused_leave_the_data_set_as_it_was(
    place: Path, extracting: Call
) -> None:
    assert extracting("--segments", "0.7", *SMALL)[0] == 0
    before = contents("set")
    code, said = extracting("--segments", "0.7", "--captions", "captions.json")  # of whole videos
    assert code == 2 and "No video of the captions has the expert" in said
    assert contents("set") == before


def test_names_of_files_may_be_anything(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 files named with spaces, quotes and emoji, half of them in a folder below."""
    monkeypatch.chdir(tmp_path)
    Path("videos/sub folder").mkdir(parents=True)
    sound = write_media(tmp_path / "a.wav", sound=tone(0.3), sound_codec="pcm_s16le")
    odd = ["it's", 'a "quote"', "🎬 film", "50% off; rm -rf", "é", "$HOME", "-flag", "#1?"]
    names = [f"{odd[n % len(odd)]} {n:03}" for n in range(200)]
    for number, name in enumerate(names):
        folder = "videos/sub folder" if number % 2 else "videos"
        os.link(sound, f"{folder}/{name}.wav")
    os.link(sound, "videos/sub folder/it's 000.wav")  # the same name twice
    captions = {name: ["a short tone", f"tone {number}"] for number, name in enumerate(names)}
    Path("c.json").write_text(json.dumps(captions))
    arguments = ["--videos", "videos", "--output", "set", "--experts", "audio"]
    code, said = run(program, *arguments, "--captions", "c.json")
    assert code == 0, said
    # Of two files with one name neither is called by that alone.
    twice = {names[0]} ^ {"sub folder/" + names[0]}
    assert set(features_in("set", "audio")) == {*names} | twice
    assert "201 videos" in said


# --- Which videos ---------------------------------------------------------------------------------


def test_videos_come_as_folders_lists_tables_and_files(place: Path) -> None:
    def ids(*sources: str) -> dict[str, str]:
        found = find_videos([Path(source) for source in sources], {})
        return {video.id: video.path.name for video in found.videos}

    every = {f"v{number}": f"v{number}.mp4" for number in range(COUNT)}
    assert ids("videos") == every
    assert ids("videos/v3.mp4", "videos/v4.mp4") == {"v3": "v3.mp4", "v4": "v4.mp4"}
    Path("list.txt").write_text("videos/v3.mp4\n\n  videos/v1.mp4  \n")
    assert ids("list.txt") == {"v1": "v1.mp4", "v3": "v3.mp4"}
    Path("named.csv").write_text("path,id,more\nvideos/v3.mp4,three,x\nvideos/v1.mp4,one,y\n")
    assert ids("named.csv") == {"one": "v1.mp4", "three": "v3.mp4"}
    Path("plain.tsv").write_text("three\tvideos/v3.mp4\n")
    assert ids("plain.tsv") == {"three": "v3.mp4"}
    (place / "videos" / "sub").mkdir()
    os.link("videos/v0.mp4", "videos/sub/v0.mp4")
    assert ids("videos") == {**every, "sub/v0": "v0.mp4"}
    os.link("videos/v1.mp4", "videos/v1.mkv")
    assert ids("videos").items() > {"v1": "v1.mkv", "v1.mp4": "v1.mp4"}.items()


def test_ids_stay_whatever_comes_later(place: Path, extracting: Call) -> None:
    extracting(*SMALL)
    Path("videos/a").mkdir()
    shutil.copy("videos/v9.mp4", "videos/a/v0.mp4")  # comes first in order
    extracting()
    files = {
        name: one["file"] for name, one in json.loads(Path("set/videos.json").read_text()).items()
    }
    assert files["v0"].endswith("videos/v0.mp4") and files["a/v0"].endswith("a/v0.mp4")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--videos", "missing", "--output", "set"], "does not exist"),
        (["--videos", "empty", "--output", "set"], "There is no video in empty"),
        (["--output", "set"], "--videos is missing"),
        (["--videos", "videos"], "--output is missing"),
        (["--videos", "bad.csv", "--output", "set"], "an id and a path were expected"),
        (["--videos", "gone.csv", "--output", "set"], "which does not exist"),
        (["--videos", "twice.csv", "--output", "set"], 'Two videos have the id "a"'),
        (["--videos", "latin.csv", "--output", "set"], "is not UTF-8"),
        (["--videos", "videos", "--output", "set", "--experts", "scenes"], 'did you mean "scene"'),
        (["--videos", "videos", "--output", "set", "--experts", "x=timm"], "lacks a model"),
        (["--videos", "videos", "--output", "set", "--experts", "a=scene", "a=shape"], "twice"),
        (["--videos", "videos", "--output", "set", "--shard", "3/2"], "a part such as 3/40"),
        (["--videos", "videos", "--output", "set", "--segments", "0"], "seconds from 0.5"),
        (["--videos", "videos", "--output", "set", "--workers", "0"], "a whole number"),
        (["--videos", "videos", "--output", "set", "--device", "7"], "there is no GPU 7"),
        (["--videos", "videos", "--output", "foreign"], "was not written by this tool"),
        (["--videos", "videos", "--output", "other"], "was not written by this tool"),
        (["--videos", "videos", "--output", "captions.json"], "captions.json"),
        (["--videos", "videos", "--output", "set", "--captions", "no.json"], "no.json"),
        (["--videos", "videos", "--output", "set", "--captions", "strange.json"], "none of the"),
    ],
)
def test_refusals_come_before_any_work(
    place: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    Path("empty").mkdir()
    Path("bad.csv").write_text("a\n")
    Path("gone.csv").write_text("a,videos/none.mp4\n")
    Path("twice.csv").write_text("a,videos/v1.mp4\na,videos/v2.mp4\n")
    Path("latin.csv").write_bytes("é,videos/v1.mp4\n".encode("latin-1"))
    Path("foreign").mkdir()
    Path("foreign/dataset.json").write_text("{}")
    Path("other/experts").mkdir(parents=True)
    Path("strange.json").write_text(json.dumps({"cat": ["a cat sits"], "dog": ["a dog runs"]}))
    before = contents(".")
    try:
        code, answer = run(program, *arguments)
    except SystemExit as error:  # the parser's own
        code, answer = int(error.code or 0), capsys.readouterr().err
    errors = [line for line in answer.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(errors) == 1 and said in errors[0], answer
    assert contents(".") == before and not Path("set").exists()


def test_segments_cannot_change(place: Path, extracting: Call) -> None:
    assert extracting("--segments", "0.7", *SMALL)[0] == 0
    items = json.loads(Path("set/videos.json").read_text())
    assert items["v0_0_0.7"]["parent"] == "v0" and items["v0_0.7_1.4"]["start"] == 0.7
    assert set(features_in("set", "scene")) < set(items)
    code, said = extracting("--segments", "1", *SMALL)
    assert code == 2 and "--segments 0.7" in said


# --- Experts --------------------------------------------------------------------------------------


def brightness(chunks: Sequence[Chunk]) -> list[Seen]:
    """The mean of each frame, and a word about each that is lighter than grey."""
    seen = []
    for chunk in chunks:
        mean = chunk.values.mean((1, 2)) / 255
        light = [
            Words("light bars", time, time)
            for time, row in zip(chunk.times, mean, strict=True)
            if row[0] > 0.5
        ]
        seen.append(Seen(mean.astype(np.float32), tuple(light)))
    return seen


def words_alone(chunks: Sequence[Chunk]) -> list[Seen]:
    return [
        Seen(words=(Words("black and white", float(chunk.times[0]), 1.0),))
        if len(chunk.values) > 10000
        else Seen()
        for chunk in chunks
    ]


def fake_row(name: str, loaded: Loaded, **settings: Any) -> Row:
    facts = {"is_variable": False, "licence": "none", "weights": "none", **settings}
    return Row(name=name, what="for tests", load=lambda _: loaded, **facts)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = Frames(10, 24, square=True, count=4)
    rows = [
        fake_row("light", Loaded(brightness, frames, 3, {"model": "a"}, 5), gives_words=True),
        fake_row("lights", Loaded(brightness, frames, 3, {"model": "a"}, 3), is_variable=True),
        fake_row("told", Loaded(words_alone, Sound(1.0), 0), is_variable=True, gives_words=True),
    ]
    for row in rows:
        monkeypatch.setitem(table.ROWS, row.name, row)


def test_words_are_kept_and_get_the_vectors_of_captions(
    place: Path, extracting: Call, fakes: None
) -> None:
    code, said = extracting("--captions", "captions.json", "--experts", "light", "told")
    assert code == 0, said
    told = json.loads(Path("set/texts/told.json").read_text())
    assert set(told) == {f"v{n}" for n in range(COUNT)} - {"v3"}
    assert told["v0"] == [{"text": "black and white", "start": 0.0, "end": 1.0}]
    vectors = features_in("set", "told")
    assert set(vectors) == set(told) and vectors["v0"].shape[0] == 3
    light = json.loads(Path("set/texts/light.json").read_text())
    assert light and "v5" not in light
    description = json.loads(Path("set/dataset.json").read_text())
    assert set(description["experts"]) == {"light", "told"}
    assert description["experts"]["told"]["extractor"]["vectors"] == "words"
    before = contents("set")
    assert extracting("--captions", "captions.json")[0] == 0
    assert contents("set") == before


def test_experts_that_are_too_rare_are_left_out(place: Path, extracting: Call, fakes: None) -> None:
    """A list without any video that has an expert would be refused by the check."""
    for number in range(COUNT - 1):
        Path(f"videos/v{number}.mp4").unlink()
        write_media(Path(f"videos/v{number}.mp4"), [numbered(number, 64, 48)] * 5, 10)
    code, said = extracting("--captions", "captions.json", "--experts", "scene", "told", "audio")
    assert code == 0, said
    assert "expert told is left out" in said and "expert audio is left out" in said
    assert list(json.loads(Path("set/dataset.json").read_text())["experts"]) == ["scene"]
    assert json.loads(Path("set/texts/told.json").read_text())


def test_one_vector_is_the_mean_of_many(place: Path, extracting: Call, fakes: None) -> None:
    assert extracting("--experts", "light", "lights")[0] == 0
    one, many = features_in("set", "light"), features_in("set", "lights")
    assert one.keys() == many.keys() and many["v0"].shape == (14, 3)
    for name in one:
        np.testing.assert_allclose(np.ravel(one[name]), many[name].mean(0), atol=1e-6)


def test_chunks_of_many_videos_are_seen_together(fakes: None) -> None:
    """As on a GPU: batches over videos give what each chunk gives by itself."""
    running = load_experts(
        [table.wanted_expert("light"), table.wanted_expert("lights")], "x", 0, ""
    )
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (40, 4, 24, 24, 3), dtype=np.uint8)
    results = []
    for together in (False, True):
        experts = Experts(running, together)
        works = [Work(running) for _ in range(4)]
        for number, values in enumerate(frames):
            experts.see(works[number % 4], Piece(0, 0, values, np.arange(4.0)))
        assert any(work.unseen for work in works) == together
        experts.finish()
        for work in works:
            assert not work.unseen
            work.end = End(1.0, [(0.0, 1.0)])
        results.append([work.features() for work in works])
    for alone, batched in zip(*results, strict=True):
        for name in ("light", "lights"):
            np.testing.assert_allclose(alone[name].vectors[0], batched[name].vectors[0], atol=1e-6)


def test_values_that_are_not_finite_are_refused(
    place: Path, extracting: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(chunks: Sequence[Chunk]) -> list[Seen]:
        return [Seen(np.full((1, 2), np.inf, np.float32)) for _ in chunks]

    row = fake_row("endless", Loaded(endless, Frames(1, 24), 2))
    monkeypatch.setitem(table.ROWS, "endless", row)
    code, said = extracting("--experts", "endless")
    assert code == 2 and "not finite" in said


def test_another_model_under_the_same_name_sees_all_anew(
    place: Path, extracting: Call, fakes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracting("--experts", "light")
    frames = Frames(10, 24, square=True, count=4)
    other = fake_row("light", Loaded(brightness, frames, 3, {"model": "b"}), gives_words=True)
    monkeypatch.setitem(table.ROWS, "light", other)
    assert looked_at(extracting()[1]) == COUNT
    assert looked_at(extracting()[1]) == 0


def test_a_further_expert_sees_the_videos_of_earlier_commands(
    place: Path, run: Run, extracting: Call
) -> None:
    """Also one that takes another's name: no file ever holds the vectors of two."""
    Path("one").mkdir()
    shutil.move("videos/v1.mp4", "one")
    assert looked_at(extracting("--experts", "scene")[1]) == COUNT - 1
    more = ["--videos", "one", "--output", "set", "--experts"]
    assert looked_at(run(program, *more, "shape")[1]) == COUNT
    assert features_in("set", "shape").keys() == features_in("set", "scene").keys()
    Path("videos/v2.mp4").unlink()  # nobody can look at it again
    code, said = run(program, *more, "scene=shape")
    assert code == 0 and looked_at(said) == COUNT - 1
    seen, shape = features_in("set", "scene"), features_in("set", "shape")
    assert seen.keys() == shape.keys() - {"v2"} and len(seen) == COUNT - 2
    assert all(np.array_equal(seen[name], shape[name]) for name in seen)
    assert looked_at(run(program, *more[:-1])[1]) == 0


def test_one_file_is_seen_as_in_a_data_set(place: Path, extracting: Call) -> None:
    assert extracting("--experts", "scene", "audio", "motion")[0] == 0
    seen = features_of(Path("videos/v0.mp4"), ["scene=scene", "audio=audio"])
    np.testing.assert_array_equal(seen["scene"], np.ravel(features_in("set", "scene")["v0"]))
    np.testing.assert_array_equal(seen["audio"], features_in("set", "audio")["v0"])
    assert set(features_of(Path("videos/v5.mp4"), ["scene", "audio"])) == {"audio"}
    Path("text.mp4").write_text("no video")
    for path in ("text.mp4", "missing.mp4"):
        with pytest.raises(UserError, match=path):
            features_of(Path(path), ["scene"])


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 410), width=st.integers(1, 410), is_still=st.booleans())
@example(height=225, width=400, is_still=True)  # as 16:9 is decoded
@example(height=1, width=1, is_still=False)
def test_experts_look_at_frames_of_all_sizes(height: int, width: int, is_still: bool) -> None:
    rng = np.random.default_rng(height + width)
    frames = rng.integers(0, 255, (1 if is_still else 4, height, width, 3), dtype=np.uint8)
    chunk = Chunk(np.repeat(frames, 4, 0) if is_still else frames, np.arange(4))
    for row in builtin.ROWS:
        if row.name in ("appearance", "motion", "scene", "shape"):
            vectors = row.load(Settings()).function([chunk])[0].vectors
            assert vectors is not None and np.isfinite(vectors).all()


def test_experts_that_see_nothing_are_missing() -> None:
    """Never zeros: a still picture has no motion, silence has no sound."""
    rows = {row.name: row.load(Settings()) for row in builtin.ROWS}

    def count(name: str, values: np.ndarray) -> int:
        vectors = rows[name].function([Chunk(values, np.arange(len(values)))])[0].vectors
        assert vectors is not None and vectors.shape[1] == rows[name].size
        assert np.isfinite(vectors).all() and (not len(vectors) or vectors.any())
        return len(vectors)

    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 255, (1, 120, 160, 3), dtype=np.uint8), 20, 0)
    seen = {name: count(name, still) for name in ("appearance", "motion", "scene", "shape")}
    assert seen == {"appearance": 0, "motion": 0, "scene": 1, "shape": 1}
    assert count("shape", np.full((3, 120, 160, 3), 90, np.uint8)) == 0
    moving = np.stack([np.roll(still[0], 3 * step, 1) for step in range(20)])
    for frames in (moving, moving[:5], moving[:, :, :120], np.rot90(moving, axes=(1, 2))):
        assert count("motion", frames) == 1 and count("appearance", frames) == 1
    assert count("motion", moving[:1]) == 0
    assert count("audio", np.zeros(16000, np.float32)) == 0
    assert count("audio", tone(0.05, rate=16000)) == 0
    assert count("audio", tone(1.0, rate=16000)) == 6
