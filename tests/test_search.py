"""An index is built of a model and a data set, searched by sentences, and changed."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import misc.build_index.__main__ as build_program
import misc.search.__main__ as search_program
import trainer
from misc.build_index import source
from misc.build_index.__main__ import main as build_main
from misc.search.__main__ import NO_MATCH
from misc.search.__main__ import main as search_main
from misc.search.hits import Hit, join_segments
from misc.search.index.changing import changing
from misc.search.index.folder import Index
from misc.search.index.manifest import FILE_NAME
from misc.search.index.parts import VideoFacts
from misc.search.searcher import NOT_WANTED, Searcher
from model.similarity import similarity
from tests.run_files import Run
from tests.search_index import make_checkpoint, make_index, random_videos, write_index
from tests.tiny_set import make_tiny_set
from trainer.build import build_loader
from trainer.evaluation.evaluate import compare
from utils.config import Config
from utils.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, its data, and an index of the test videos."""
    folder = tmp_path_factory.mktemp("search")
    make_index(folder)
    return folder


@pytest.fixture(scope="module")
def searcher(made: Path) -> Searcher:
    return Searcher.open(made / "index")


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """The same index in a folder of its own, to be changed."""
    return Path(shutil.copytree(made / "index", tmp_path / "index"))


def hit(video_id: str = "a", **values: object) -> Hit:
    return Hit(video_id, 0.5, 0.5, None, {}, {}, **{"parent": video_id, **values})  # type: ignore[arg-type]


def test_similarities_are_those_of_the_evaluation(made: Path, searcher: Searcher) -> None:
    config = Config.from_file(made / "config.json")
    net, _ = trainer.load_model(made / "trained_model.pth")
    retrieval = build_loader(config.eval_config(), 0).retrieval
    expected = compare(net, retrieval, torch.device("cpu")).sims.numpy()
    found = searcher.similarities([texts[0] for texts in retrieval.captions])
    columns = [searcher.video_ids.index(key) for key in retrieval.video_ids]
    np.testing.assert_allclose(found[:, columns], expected, atol=2e-6)


@pytest.mark.parametrize(
    "arch",
    [
        {"use_ce": "", "mimic_ce_dims": 1},
        {"use_ce": "", "freeze_weights": True},
        {"use_ce": "", "keep_missing_modalities": True},
        {"use_ce": "", "concat_mix_experts": True},
        {"use_ce": "", "concat_experts": True},
    ],
    ids=lambda arch: list(arch)[1],
)
def test_every_kind_of_model(tmp_path: Path, arch: dict[str, object]) -> None:
    path = make_checkpoint(tmp_path, **arch)
    build_main([str(path), "--output", str(tmp_path / "index")])
    searcher = Searcher.open(tmp_path / "index")
    retrieval = build_loader(Config.from_file(tmp_path / "config.json").eval_config(), 0).retrieval
    expected = compare(trainer.load_model(path)[0], retrieval, torch.device("cpu")).sims.numpy()
    columns = [searcher.video_ids.index(key) for key in retrieval.video_ids]
    captions = [texts[0] for texts in retrieval.captions]
    np.testing.assert_allclose(searcher.similarities(captions)[:, columns], expected, atol=2e-6)
    best = dict(zip(retrieval.video_ids, expected[0], strict=True))
    for found in searcher.search(captions[0], k=12):
        assert found.similarity == pytest.approx(best[found.video_id], abs=2e-6)
    if searcher.info.has_weights:
        assert searcher.search(captions[0], weights={"look": 0.5})
    else:
        with pytest.raises(UserError, match="share one embedding"):
            searcher.search(captions[0], weights={"look": 0.5})


def test_hits_say_why(searcher: Searcher) -> None:
    [first, *_] = hits = searcher.search("a red cat runs", k=50)
    assert len(hits) == len(searcher) == 12
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    matrix = searcher.similarities("a red cat runs")[0]
    for found in hits:
        place = searcher.video_ids.index(found.video_id)
        assert found.similarity == pytest.approx(matrix[place], abs=1e-6)
        assert sum(found.experts.values()) == pytest.approx(found.similarity, abs=1e-6)
        assert sum(found.weights.values()) == pytest.approx(1, abs=1e-6)
    lacking = [h for h in hits if "sound" not in h.experts]
    assert {h.video_id for h in lacking} == {"clip35", "clip40"}
    assert len(first.captions) == 3
    json.dumps(first.as_dict(), allow_nan=False)


def test_several_sentences_are_their_mean_and_what_is_not_wanted_counts_against(
    searcher: Searcher,
) -> None:
    one, two, no = searcher.similarities(["red cat", "old boat", "dog sings"])
    hits = searcher.search(["red cat", "old boat"], k=12, without=["dog sings"])
    for found in hits:
        place = searcher.video_ids.index(found.video_id)
        mean = (one[place] + two[place]) / 2
        assert found.similarity == pytest.approx(mean, abs=1e-6)
        offset = float(searcher.index.offsets[searcher.index.row_of[found.video_id]])
        assert found.score == pytest.approx(mean - offset - NOT_WANTED * no[place], abs=1e-6)


def test_weights_of_experts(searcher: Searcher) -> None:
    for found in searcher.search("red cat", k=12, weights={"sound": 0}):
        assert found.similarity == pytest.approx(found.similarities["look"], abs=1e-6)
    same = searcher.search("red cat", k=12)
    for found, plain in zip(
        searcher.search("red cat", k=12, weights={"sound": 3, "look": 3}), same, strict=True
    ):
        assert found.video_id == plain.video_id
        assert found.similarity == pytest.approx(plain.similarity, abs=1e-6)
    with pytest.raises(UserError, match=r'no expert "sond".*did you mean "sound"'):
        searcher.search("red cat", weights={"sond": 1})
    with pytest.raises(UserError, match="0 or more"):
        searcher.search("red cat", weights={"sound": float("nan")})


def test_more_like_a_video_leaves_itself_out(searcher: Searcher) -> None:
    hits = searcher.more_like("clip33", k=50)
    assert len(hits) == 11 and "clip33" not in {h.video_id for h in hits}
    video = searcher.index.video(torch.tensor([searcher.index.row_of["clip33"]]))
    for found in hits:
        other = searcher.index.video(torch.tensor([searcher.index.row_of[found.video_id]]))
        both = (video.availability * other.availability)[0]
        pairs = zip(video.embeddings, other.embeddings, strict=True)
        each = torch.stack([(a * b).sum() for a, b in pairs])
        assert found.similarity == pytest.approx(float((each * both).sum() / both.sum()), abs=1e-6)
    with pytest.raises(UserError, match='no video "nowhere"'):
        searcher.more_like("nowhere")


def test_only_some_videos(searcher: Searcher) -> None:
    found = searcher.search("red cat", among=["clip40", "clip33", "nowhere"])
    assert {h.video_id for h in found} == {"clip40", "clip33"}
    assert searcher.search("red cat", among=[]) == []


@pytest.mark.parametrize("query", ["", " \n", "xyzzy 漢字", [], "a" * 20_000])
def test_a_query_without_words_is_one_sentence(searcher: Searcher, query: str) -> None:
    with pytest.raises(UserError, match="query"):
        searcher.search(query)


@pytest.mark.parametrize("query", ["red </script><b>cat", "red\x00cat \ud800", "red " * 2000])
def test_any_text_with_a_word_is_answered(searcher: Searcher, query: str) -> None:
    assert len(searcher.search(query)) == 5


def test_an_index_that_moved_answers_the_same(
    searcher: Searcher, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    moved = Searcher.open(copied)
    assert moved.search("red cat runs") == searcher.search("red cat runs")


def test_hubness_and_threshold_come_from_training_and_validation(made: Path) -> None:
    manifest = Index(made / "index").manifest
    assert manifest.threshold is not None and manifest.calibration["captions"] == 8
    assert manifest.calibration["kept"] >= 0.9
    assert manifest.examples and manifest.data_set == "tiny"


def test_adding_replaces_and_removing_removes(
    made: Path, searcher: Searcher, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = made / "some.txt"
    videos.write_text("clip0\nclip33\n")
    dataset = str(made / "tiny")
    build_main(["--add", str(copied), "--dataset", dataset, "--videos", str(videos)])
    assert "Added 2 videos, 1 of them in place of older ones" in capsys.readouterr().out
    more = Searcher.open(copied)
    assert len(more) == 13 and "clip0" in more
    before = {h.video_id: h for h in searcher.search("red cat", k=50)}
    for found in more.search("red cat", k=50):
        if found.video_id in before:
            assert found.score == pytest.approx(before[found.video_id].score, abs=1e-6)
    build_main([str(copied), "--remove", "clip0", "clip33"])
    fewer = Searcher.open(copied)
    assert len(fewer) == 11 and "clip33" not in fewer
    assert not {"clip0", "clip33"} & {h.video_id for h in fewer.search("red cat", k=50)}
    assert fewer.similarities("red cat").shape == (1, 11)
    with pytest.raises(UserError, match="no video nowhere: nothing was removed"):
        build_main([str(copied), "--remove", "nowhere", "clip34"])
    assert "clip34" in Searcher.open(copied)


def test_the_space_of_removed_videos_is_freed(made: Path, copied: Path, run: Run) -> None:
    """Once half of what came together is removed; what stays is found as before."""
    dataset, sizes = str(made / "tiny"), []
    assert run(build_program, "--add", copied, "--dataset", dataset)[0] == 0
    before = {h.video_id: h for h in Searcher.open(copied).search("red cat", k=50)}
    ids = sorted(before)
    assert len(ids) == 44
    for count in (21, 1):
        gone, ids = ids[:count], ids[count:]
        code, said = run(build_program, copied, "--remove", *gone)
        assert code == 0 and ("Removed videos that still take space: 21;" in said) == (count == 21)
        sizes.append(sum(path.stat().st_size for path in copied.rglob("*") if path.is_file()))
        assert Index(copied).row_of.keys() == {*ids}
        after = Searcher.open(copied).search("red cat", k=50)
        assert {h.video_id for h in after} == {*ids}
        for found in after:
            assert found.score == pytest.approx(before[found.video_id].score, abs=1e-6)
            assert found.captions == before[found.video_id].captions
            assert found.experts.keys() == before[found.video_id].experts.keys()
    assert sizes[1] < sizes[0] and len(Index(copied)) == 22
    assert {path.name for path in copied.glob("part-*")} == {*Index(copied).manifest.parts}
    assert run(build_program, copied, "--remove", *ids)[0] == 0
    assert run(search_program, copied, "red cat") == (0, "No video.\n")


def test_whose_videos_they_are(made: Path, copied: Path, tmp_path: Path, run: Run) -> None:
    data = make_tiny_set(tmp_path / "mine", seed=5)
    told = json.loads((data / "dataset.json").read_text()) | {"name": "mine"}
    (data / "dataset.json").write_text(json.dumps(told))
    (tmp_path / "three.txt").write_text("clip0\nclip1\nclip2\n")
    told = json.loads((copied / FILE_NAME).read_text())
    del told["data_sets"]  # of an index that was built before these were kept
    (copied / FILE_NAME).write_text(json.dumps(told))
    code, said = run(
        build_program, "--add", copied, "--dataset", data, "--videos", tmp_path / "three.txt"
    )
    assert code == 0 and "15 videos of tiny and mine by" in said
    before = Index(copied).row_of.keys()
    assert run(build_program, copied, "--remove", "clip1")[0] == 0
    assert before - Index(copied).row_of.keys() == {"clip1"}
    assert Searcher.open(copied).info.data_set == "tiny and mine"
    code, said = run(build_program, copied, "--remove", "clip0", "clip2")
    assert code == 0 and "12 videos of tiny by" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dataset", "nope"], 'There is no data set "nope"'),
        (["--videos", "tests"], '--videos tests is no file (did you mean "test"?)'),
        (["--video_dir", "nowhere"], "There is no folder nowhere"),
        (["--output", "some.txt"], "some.txt"),
        (["--output", "."], "holds other files"),
        (["--weights", "some.txt"], "name it with --encoder"),
        (["--add", "nowhere", "--dataset", "{data}"], "There is no index in nowhere"),
        (["--add", "{index}"], "Say whose videos are to be added"),
        (["--add", "{index}", "--dataset", "nope"], 'There is no data set "nope"'),
        (["--add", "{index}", "--output", "x", "--no_text"], "no use for --output, --no_text"),
        (["--zero_shot", "--dataset", "{data}"], "--zero_shot has no use for --dataset"),
        (["--remove", "clip33"], "some.txt is a file: the folder of an index was expected"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_opened(
    made: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the data were opened")

    monkeypatch.setattr(source, "build_loader", opened)
    monkeypatch.setattr(source, "load_checkpoint", opened)
    monkeypatch.chdir(tmp_path)
    Path("some.txt").touch()
    given = [a.format(data=made / "tiny", index=made / "index") for a in arguments]
    first = {"--add": [], "--remove": ["some.txt"]}.get(given[0], [made / "trained_model.pth"])
    code, said = run(build_program, *first, *given)
    assert code == 2 and says in said
    assert [path.name for path in Path().iterdir()] == ["some.txt"]


def test_embeddings_of_another_model_are_refused(made: Path, copied: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", include_self=0)
    before = (copied / FILE_NAME).read_bytes()
    with pytest.raises(UserError, match="of another model than"):
        build_main([str(other), "--add", str(copied), "--dataset", str(made / "tiny")])
    assert (copied / FILE_NAME).read_bytes() == before
    build_main(
        [str(made / "trained_model.pth"), "--add", str(copied), "--dataset", str(made / "tiny")]
    )
    assert len(Searcher.open(copied)) == 44


def test_a_data_set_that_lacks_an_expert(made: Path, copied: Path, tmp_path: Path) -> None:
    data = make_tiny_set(tmp_path / "less", seed=5)
    told = json.loads((data / "dataset.json").read_text())
    del told["experts"]["sound"]
    (data / "dataset.json").write_text(json.dumps(told))
    build_main(["--add", str(copied), "--dataset", str(data)])
    for found in Searcher.open(copied).search("red cat", k=44):
        assert "sound" not in found.experts


@pytest.mark.parametrize("dies_at", ["model", "part", "commit"])
def test_an_index_that_was_not_finished_changes_nothing(
    copied: Path, searcher: Searcher, dies_at: str
) -> None:
    def change() -> None:
        with changing(copied) as change:
            change.new(dies_at if dies_at != "commit" else "part").joinpath("x").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        change()
    names = {path.name for path in copied.iterdir()}
    manifest = Index(copied).manifest
    assert names == {FILE_NAME, ".index-of-videos", manifest.model, *manifest.parts}
    # What a killed process leaves goes with the next change.
    (copied / ("part-" + "0" * 16)).mkdir()
    with changing(copied):
        pass
    assert {path.name for path in copied.iterdir()} == names
    assert Searcher.open(copied).search("red cat") == searcher.search("red cat")


def test_a_folder_of_something_else_is_left_alone(made: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files"):
        build_main([str(made / "trained_model.pth"), "--output", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_damage_is_one_sentence(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no index in"):
        Searcher.open(tmp_path / "nothing")
    manifest = Index(copied).manifest
    [part] = manifest.parts
    again = r"; build it anew with `python3 -m misc.build_index .*trained_model.pth --output .*`\."
    model = copied / manifest.model / "model.pth"
    whole = model.read_bytes()
    for data in (whole[:-900], b"", b"nonsense"):
        model.write_bytes(data)
        with pytest.raises(UserError, match=r"^The model of the index ((?!fetch).)*" + again):
            Searcher.open(copied).search("red cat")
    model.unlink()
    with pytest.raises(UserError, match=r"model.pth: it does not exist" + again):
        Searcher.open(copied).search("red cat")
    model.write_bytes(whole)
    path = copied / part / "half.packed"
    whole_part = path.read_bytes()
    path.write_bytes(whole_part[:-64])
    with pytest.raises(UserError, match=r"is damaged in part-.*build it anew"):
        Searcher.open(copied)
    path.write_bytes(whole_part)
    told = json.loads((copied / FILE_NAME).read_text())
    for key, value in (("model", "../../etc"), ("shape", 3), ("surprise", 1)):
        (copied / FILE_NAME).write_text(json.dumps(told | {key: value}))
        with pytest.raises(UserError, match="makes no sense"):
            Searcher.open(copied)
    text = told["text"]
    for key, value in [
        *(("removed", [10_000]), ("removed", ["a"]), ("data_sets", [3]), ("video_folders", [5])),
        *(("threshold", "x"), ("extractors", {"look": 3}), ("text", 3), ("text", {"towers": 3})),
        *(("text", text | {"max_tokens": "6"}), ("text", text | {"files": {"a": "../b"}})),
        *(("shape", told["shape"] | {"sizes": [9, 9]}), ("shape", {"experts": 1}), ("parts", [1])),
    ]:
        (copied / FILE_NAME).write_text(json.dumps(told | {key: value}))
        with pytest.raises(UserError, match=r"(damaged|cannot be used).*build it anew"):
            Searcher.open(copied).search("red cat")
    (copied / FILE_NAME).write_text(json.dumps(told | {"version": 99}))
    with pytest.raises(UserError, match="of version 99"):
        Searcher.open(copied)


def test_paths_stay_in_the_folder_of_videos(tmp_path: Path) -> None:
    paths = ["a.mp4", "deep/b.MP4", "../c.mp4", "/etc/d.mp4", "etc/shadow", None]
    facts = [VideoFacts(path=path) for path in paths]
    ids = write_index(tmp_path / "index", random_videos(6, (4,), 0.0), facts=facts, videos="/data")
    searcher = Searcher(Index(tmp_path / "index"), torch.device("cpu"))
    found = [searcher.path_of(key) for key in ids]
    assert found == [Path("/data/a.mp4"), Path("/data/deep/b.MP4"), None, None, None, None]


def test_neighbouring_segments_are_one_hit(tmp_path: Path) -> None:
    facts = [
        VideoFacts(parent=f"video{n // 4}", start=5.0 * (n % 4), end=5.0 * (n % 4) + 5)
        for n in range(40)
    ]
    video = random_videos(40, (4,), 0.0)
    write_index(tmp_path / "index", video, facts=facts)
    searcher = Searcher(Index(tmp_path / "index"), torch.device("cpu"))
    hits = searcher.more_like("v0", k=6)
    assert len(hits) == 6
    for one, other in pairwise(hits):
        assert one.score >= other.score
    for found in hits:
        same = [h for h in hits if h.parent == found.parent and h is not found]
        assert all(abs(h.start - found.end) > 1 and abs(found.start - h.end) > 1 for h in same)
    late = searcher.more_like("v0", k=40, between=(17, 18))
    assert late and all(h.start == 15 for h in late)
    assert {h.parent for h in searcher.more_like("v0", k=9, among=["video3"])} == {"video3"}
    assert searcher.more_like("v0", between=(70, 80)) == []


def test_joining_closes_gaps() -> None:
    parts = [(0, 5), (10, 15), (5, 10)]
    hits = [hit(f"s{a}", parent="v", start=float(a), end=float(b)) for a, b in parts]
    [joined] = join_segments(hits)
    assert (joined.video_id, joined.start, joined.end) == ("s0", 0, 15)
    apart = [hit("a", parent="v", start=0.0, end=5.0), hit("b", parent="w", start=5.0, end=9.0)]
    assert join_segments([*apart, hit("c")]) == [*apart, hit("c")]


# ---- the command lines ----


def test_the_command_line(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = str(made / "index")
    search_main([index, "red cat runs", "-k", "3", "--experts", "sound=2,look=0.5"])
    out = capsys.readouterr().out
    assert "  1. " in out and "  3. " in out and "why: " in out and "  4. " not in out
    search_main([index, "red cat", "--not", "dog", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert len(told) == 5 and {"video_id", "similarity", "experts", "start"} <= told[0].keys()
    search_main([index, "red cat", "--threshold", "9"])
    assert capsys.readouterr().out == "No video reaches the threshold.\n"
    search_main([index, "--like", "clip33", "-k", "1"])
    assert "  1. " in capsys.readouterr().out


def test_no_confident_match_is_said(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads((copied / FILE_NAME).read_text())
    (copied / FILE_NAME).write_text(json.dumps(told | {"threshold": 50.0}))
    search_main([str(copied), "red cat"])
    assert capsys.readouterr().out.startswith(NO_MATCH)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "what to search for"),
        (["red", "--like", "clip33"], "Search for one thing"),
        (["red", "--threshold", "nan"], "no score such as"),
        (["--not", "red", "--like", "clip33"], "--not goes with a sentence"),
        (["red", "-k", "0"], "no number of 1 or more"),
        (["red", "--experts", "sound"], "no weight of an expert"),
        (["red", "--experts", "sound=-1"], "no weight of an expert"),
        (["red", "--between", "soon"], "no range of seconds"),
        (["red", "--between", "9-3"], "has no length"),
        (["red", "--between", "3-9"], "no segments, so that no time can be asked for: build one"),
        (["red", "--among", "ids.txt"], "has none of these videos: clip33.mp4, nowhere"),
        (["red", "--serve", "--video", "a.mp4"], "to begin with, not --video."),
        (["--serve", "--between", "3-9", "--json"], "not --between, --json."),
        (["red", "cat", "--serve"], "one sentence, not 2: put it in quotes"),
        (["red", "--like", "clip33", "--serve"], "Search for one thing"),
        (["xyzzy", "--serve", "--port", "0"], "no word that the index knows"),
        (["red", "--experts", "sond=2", "--serve"], 'did you mean "sound"'),
        (["red", "-k", "90", "--serve"], "The page shows 1 to 50 videos"),
        (["red", "--experts", "sound=2", "--picture", "a.webp"], "begin with, not --experts."),
        (["--serve", "--picture", "a.webp"], "two tasks"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    made: Path,
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ids.txt").write_text("clip33.mp4\nnowhere\n")
    try:
        search_main([str(made / "index"), *arguments])
    except UserError as error:
        assert says in str(error)
    except SystemExit as stop:
        assert stop.code == 2
        assert says in capsys.readouterr().err
    else:
        raise AssertionError("it was accepted")


# ---- models ----


def test_a_caption_ranks_the_same_with_and_without_padding(made: Path) -> None:
    net, config = trainer.load_model(made / "trained_model.pth")
    assert not net.training and config["data_loader.args.max_tokens.text"] == 6
    words = torch.randn(1, 1, 3, 12, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(words, (0, 0, 0, 3))
    with torch.inference_mode():
        short, full = net.encode_text(words), net.encode_text(padded)
    for one, other in zip(short.embeddings, full.embeddings, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(short.weights, full.weights)
    with pytest.raises(ValueError, match="7 tokens were given to a model of 6"):
        net.encode_text(torch.zeros(1, 1, 7, 12))


def test_encoding_videos_gives_what_the_index_holds(made: Path, searcher: Searcher) -> None:
    config = Config.from_file(made / "config.json")
    retrieval = build_loader(config.eval_config(), 0).retrieval
    [block] = retrieval.video_blocks(100)
    video = searcher.encode_video(block.experts, block.ind)
    text = searcher.encode_text("red cat")
    expected = similarity(text, video)[0].numpy()
    found = searcher.similarities("red cat")[0]
    columns = [searcher.video_ids.index(key) for key in retrieval.video_ids]
    np.testing.assert_allclose(found[columns], expected, atol=1e-6)
