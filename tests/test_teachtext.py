"""TeachText from end to end, by the real programs: teachers, a student, denoising."""

import json
import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import train as train_program
from data_loader.store.packed import read_packed
from data_loader.teachers.teacher import open_teacher
from misc import denoise_captions, make_teachers
from misc.teachtext import denoising
from model.ranks import ranks_in_rows
from model.similarity import similarity
from tests.run_files import Run
from tests.teacher_data import RandomTeacher
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from trainer.build import build_loader, build_loss, build_net, build_optimiser_of
from trainer.checkpoints.checkpoint import load_checkpoint
from trainer.distillation import Distillation, text_side, video_side
from trainer.evaluation.evaluate import embed_videos
from trainer.session import seed_everything
from trainer.step import TrainingStep
from utils.command_line import run_main
from utils.config import Config

VIDEOS, CAPTIONS = 24, 3  # of the tiny set's training list


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_set(tmp_path_factory.mktemp("tiny-teachtext"))


def write_config(folder: Path, name: str, data: Path, changes: dict | None = None) -> Path:
    """A config named `tiny-<name>` that trains on the tiny set; its runs lie in `folder/saved`."""
    (folder / "tiny").mkdir(exist_ok=True)
    values = tiny_config(data, folder / "saved")
    del values["visualizer"]
    values["trainer"]["tensorboard"] = False
    return write_json(folder / "tiny" / f"{name}.json", values | (changes or {}))


def models_of(folder: Path, name: str) -> Path:
    """Folder with the checkpoints of the only run of an experiment."""
    [config] = (folder / "saved" / "models" / f"tiny-{name}").rglob("config.json")
    return config.parent


def metrics_of(folder: Path, name: str) -> dict:
    [path] = (folder / "saved" / "log" / f"tiny-{name}").rglob("metrics.json")
    return json.loads(path.read_text())


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture(scope="session")
def teachers(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Configs of two trained models: CE, and MoEE with experts of their own sizes."""
    folder = tmp_path_factory.mktemp("taught")
    arch = tiny_config(tiny_set, folder)["arch"]
    moee = {"arch": {"type": "CENet", "args": arch["args"] | {"use_ce": ""}}}
    found = {}
    for name, changes in (("ce", {}), ("moee", moee)):
        found[name] = write_config(folder, name, tiny_set, changes)
        assert run_main(train_program.main, ["--config", str(found[name])]) == 0
    return found


def checkpoint_of(config: Path) -> Path:
    return models_of(config.parents[1], config.stem) / "trained_model.pth"


@pytest.fixture(scope="session")
def teacher_files(
    teachers: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Teachers made of the two models, in our format."""
    folder = tmp_path_factory.mktemp("teacher-files")
    for name, config in teachers.items():
        arguments = ["--resume", checkpoint_of(config), "--output", folder / f"{name}.teacher"]
        assert run_main(make_teachers.main, [str(a) for a in arguments]) == 0
    return {name: folder / f"{name}.teacher" for name in teachers}


def distilling(*teachers: Path, **more: object) -> dict:
    params = {"base_path": "", "teachers": [str(path) for path in teachers], **more}
    return {"distil_loss": True, "distil_params": params}


def test_teachers_student_denoising_and_a_denoised_student(
    run: Run, tiny_set: Path, teachers: dict[str, Path], tmp_path: Path
) -> None:
    files = []
    for name, config in teachers.items():
        code, output = run(make_teachers, "--config", config, "--resume", checkpoint_of(config))
        files.append(tiny_set / "teachers" / f"tiny-{name}.teacher")
        assert code == 0 and str(files[-1]) in output

    names = {"teachers": ["tiny-ce.teacher", "tiny-moee.teacher"], "base_path": "teachers/"}
    student = {"distil_loss": True, "distil_params": names}
    config = write_config(tmp_path, "student", tiny_set, student)
    code, output = run(train_program, "--config", config, "--train_single_epoch")
    assert code == 0, output
    [epoch] = metrics_of(tmp_path, "student")["epochs"]
    assert 0 < epoch["distil_loss"] < epoch["loss"]

    kinds = {f"clip{n}": ["true"] * CAPTIONS for n in range(VIDEOS)}
    kinds["clip3"][1] = "wrong"
    code, output = run(
        *(denoise_captions, "--config", config, "--top_k", 6, "--name", "few"),
        *("--kinds", write_json(tmp_path / "kinds.json", kinds), "--examples", 2),
    )
    assert code == 0, output
    assert "left out" in output and "precision" in output
    folder = tiny_set / "denoising_masks"
    masks = pickle.loads((folder / "few.pkl").read_bytes())
    kept = (folder / "few.txt").read_text().split()
    assert list(masks) == list(kinds) and all(len(mask) == CAPTIONS for mask in masks.values())
    assert kept == [key for key, mask in masks.items() if mask.any()]
    report = json.loads((folder / "few.json").read_text())
    left_out = sum(int((mask == 0).sum()) for mask in masks.values())
    assert 0 < left_out < VIDEOS * CAPTIONS and report["captions_left_out"] == left_out
    assert report["videos_left_out"] == VIDEOS - len(kept)
    assert len(report["examples"]) == 2
    assert report["against_kinds"]["by_kind"]["wrong"]["captions"] == 1

    denoised = {"caption_masks": "denoising_masks/few.pkl"}
    denoised["training_file"] = "denoising_masks/few.txt"
    config = write_config(tmp_path, "denoised", tiny_set, student | denoised)
    code, output = run(train_program, "--config", config, "--train_single_epoch")
    assert code == 0, output
    loader = build_loader(Config.from_file(config), seed=0)
    assert loader.train.video_ids == kept
    for epoch in range(5):
        videos = np.arange(len(kept))
        for video, caption in zip(videos, loader.train.draw_captions(epoch, videos), strict=True):
            assert masks[kept[video]][caption] == 1


@pytest.mark.parametrize("name", ["ce", "moee"])
@pytest.mark.parametrize("keep_missing", [False, True])
def test_a_teacher_has_the_similarities_of_its_model(
    run: Run, teachers: dict[str, Path], tmp_path: Path, name: str, keep_missing: bool
) -> None:
    """Also where the expert `sound` is missing, as it is for every fifth video."""
    path = tmp_path / "a.teacher"
    checkpoint = checkpoint_of(teachers[name])
    arguments = ["--config", teachers[name], "--resume", checkpoint, "--output", path]
    config = Config.from_file(teachers[name])
    if keep_missing:
        arguments += ["--custom_args", "arch.args.keep_missing_modalities@true"]
        config = config.merged({"arch": {"args": {"keep_missing_modalities": True}}})
    assert run(make_teachers, *arguments)[0] == 0

    loader = build_loader(config, seed=0)
    net = build_net(config, loader).eval()
    net.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
    queries = loader.training_queries()
    cpu = torch.device("cpu")
    [block] = queries.text_blocks(len(queries))
    with torch.inference_mode():
        text = net.encode_text(block.text, block.text_token_mask)
        expected = similarity(text, embed_videos(net, queries, cpu))

    teacher = loader.teacher(str(path))
    videos = np.repeat(np.arange(VIDEOS), CAPTIONS)
    captions = np.tile(np.arange(CAPTIONS), VIDEOS)
    side = text_side(teacher, videos, captions)
    assert (side.weights is None) == keep_missing
    found = similarity(side, video_side(teacher, np.arange(VIDEOS)))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert (video_side(teacher, np.arange(VIDEOS)).availability == 0).any()
    facts = read_packed(path).facts["made_by"]
    assert facts["experiment"].startswith(f"tiny-{name}") and len(facts["checkpoint_sha256"]) == 64


def test_the_published_format_agrees_where_no_expert_is_missing(
    run: Run,
    tiny_set: Path,
    teachers: dict[str, Path],
    teacher_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    config, checkpoint = teachers["ce"], checkpoint_of(teachers["ce"])
    for output, flags in (("a.teacher", []), ("a.pkl", ["--published_format"])):
        arguments = ["--resume", checkpoint, "--output", tmp_path / output, *flags]
        assert run(make_teachers, "--config", config, *arguments)[0] == 0
    content = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert list(content) == [f"clip{n}" for n in range(VIDEOS)]
    assert content["clip1"]["text_embds"]["look"].shape == (CAPTIONS, 8)
    assert json.loads((tmp_path / "a.json").read_text())["experiment"] == "tiny-ce"

    loader = build_loader(Config.from_file(config), seed=0)
    both = [loader.teacher(str(tmp_path / name)) for name in ("a.teacher", "a.pkl")]
    ours, published = Distillation(both).teacher_similarities(np.arange(VIDEOS), np.full(VIDEOS, 2))
    whole = video_side(both[0], np.arange(VIDEOS)).availability.all(dim=1)
    assert 0 < int(whole.sum()) < VIDEOS
    torch.testing.assert_close(ours[:, whole], published[:, whole], atol=1e-6, rtol=0)
    assert not torch.allclose(ours[:, ~whole], published[:, ~whole], atol=1e-3)


def test_half_precision_and_the_newest_run_of_a_folder(
    run: Run, teachers: dict[str, Path], tmp_path: Path
) -> None:
    runs = models_of(teachers["ce"].parents[1], "ce").parent
    for name, flags in (("whole", []), ("half", ["--float16"])):
        code, output = run(make_teachers, "--resume", runs, "--output", tmp_path / name, *flags)
        assert code == 0 and str(checkpoint_of(teachers["ce"])) in output
    assert open_teacher(tmp_path / "half", []).arrays["text"].dtype == np.float16
    whole, half = (open_teacher(tmp_path / n, []).arrays["text"] for n in ("whole", "half"))
    np.testing.assert_allclose(whole, half, atol=1e-3)


def test_a_teacher_is_made_of_a_finished_run(
    run: Run, tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, "ce", tiny_set)
    models = tmp_path / "saved" / "models" / "tiny-ce"
    step, calls = TrainingStep.__call__, []

    def stopped(self: TrainingStep, *arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 5:  # in the second epoch of three batches each
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    def stop() -> Path:
        calls.clear()
        before = {*models.glob("*")}
        with monkeypatch.context() as patches:
            patches.setattr(TrainingStep, "__call__", stopped)
            assert run(train_program, "--config", config)[0] == 143
        [made] = {*models.glob("*")} - before
        return made

    unfinished = stop()
    flags = ("--output", tmp_path / "t.teacher")
    code, output = run(make_teachers, "--resume", models, *flags)
    assert code == 2 and "is finished" in output and not (tmp_path / "t.teacher").exists()
    # Who names the run itself has chosen.
    code, output = run(make_teachers, "--resume", unfinished, *flags)
    assert code == 0 and f"Made from {unfinished / 'trained_model.pth'}." in output

    assert run(train_program, "--config", config)[0] == 0
    [finished] = {*models.iterdir()} - {unfinished}
    newer = stop()
    code, output = run(make_teachers, "--resume", models, *flags)
    assert code == 0 and f"Made from {finished / 'trained_model.pth'}." in output
    assert f"passed over: {newer}\n" in output and newer.name > finished.name


def test_a_killed_student_resumes_to_the_same_weights(
    run: Run,
    tiny_set: Path,
    teacher_files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of the aggregates this is the one that draws.
    student = distilling(*teacher_files.values(), aggregate="random")
    whole = write_config(tmp_path, "whole", tiny_set, student)
    assert run(train_program, "--config", whole)[0] == 0

    original, calls = Distillation.loss, []

    def killed(self: Distillation, *arguments: object) -> torch.Tensor:
        calls.append(arguments)
        if len(calls) > 7:  # in the third epoch of three batches each
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Distillation, "loss", killed)
    config = write_config(tmp_path, "killed", tiny_set, student)
    assert run(train_program, "--config", config)[0] == 130
    monkeypatch.undo()
    models = models_of(tmp_path, "killed")
    code, output = run(train_program, "--resume", models / "checkpoint-epoch2.pth")
    assert code == 0, output
    expected = weights(models_of(tmp_path, "whole") / "checkpoint-epoch3.pth")
    found = weights(models / "checkpoint-epoch3.pth")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_teachers_change_what_is_learnt(
    run: Run,
    tiny_set: Path,
    teachers: dict[str, Path],
    teacher_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    alone = metrics_of(teachers["ce"].parents[1], "ce")["epochs"][0]
    for on in (False, True):
        changes = distilling(teacher_files["moee"]) | {"distil_loss": on}
        config = write_config(tmp_path, f"student-{on}", tiny_set, changes)
        assert run(train_program, "--config", config, "--train_single_epoch")[0] == 0
        [epoch] = metrics_of(tmp_path, f"student-{on}")["epochs"]
        assert (epoch["loss"] == alone["loss"]) != on and ("distil_loss" in epoch) == on


def test_a_training_takes_the_steps_of_a_naive_loop(
    run: Run, tiny_set: Path, tmp_path: Path
) -> None:
    """RAdam, three teachers in the published format, and their similarities by double loops."""
    of = [RandomTeacher([CAPTIONS] * VIDEOS, {"a": 4}, seed, False) for seed in range(3)]
    files = [tmp_path / f"{n}.pkl" for n in range(3)]
    for teacher, file in zip(of, files, strict=True):
        content = {f"clip{n}": v for n, v in enumerate(teacher.published().values())}
        file.write_bytes(pickle.dumps(content))
    radam = {"optimizer": {"type": "RAdam", "args": {"lr": 0.01, "weight_decay": 1e-3}}}
    path = write_config(tmp_path, "student", tiny_set, distilling(*files) | radam)
    assert run(train_program, "--config", path, "--train_single_epoch")[0] == 0

    config = Config.from_file(path)
    seed_everything(0)
    loader = build_loader(config, seed=0)
    net = build_net(config, loader).train()
    ranking, optimiser = build_loss(config), build_optimiser_of(config, net)
    losses = []
    for batch in loader.train.batches(epoch=1):
        drawn = zip(batch.video_indices.tolist(), batch.caption_indices.tolist(), strict=True)
        target = [
            [np.mean([t.similarity(v, c, o) for t in of]) for o in batch.video_indices.tolist()]
            for v, c in drawn
        ]
        output = net(batch.experts, batch.ind, batch.text)
        sims = output["cross_view_conf_matrix"]
        gap = (sims - torch.tensor(target, dtype=torch.float32)).abs()
        loss = ranking(sims) + torch.where(gap < 1, 0.5 * gap**2, gap - 0.5).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    [epoch] = metrics_of(tmp_path, "student")["epochs"]
    assert epoch["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    found = weights(models_of(tmp_path, "student") / "trained_model.pth")
    for name, value in net.state_dict().items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_ranks_are_those_of_the_whole_matrix(
    teachers: dict[str, Path], teacher_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = build_loader(Config.from_file(teachers["ce"]), seed=0)
    teacher = loader.teacher(str(teacher_files["ce"]))
    monkeypatch.setattr(denoising, "CAPTIONS_PER_BLOCK", 7)
    ranked = denoising.rank_captions(loader.training_queries(), [teacher])
    side = text_side(teacher, ranked.videos, ranked.captions)
    sims = similarity(side, video_side(teacher, np.arange(VIDEOS)))
    own = sims[np.arange(len(sims)), ranked.videos]
    expected = ranks_in_rows(sims, own.unsqueeze(1))
    np.testing.assert_array_equal(ranked.ranks, expected)
    by_sorting = [(row > value).sum() + 1 for row, value in zip(sims, own, strict=True)]
    np.testing.assert_array_equal(ranked.ranks, by_sorting)


def test_precision_and_recall_of_what_is_left_out() -> None:
    falls = np.array([True, True, False, False, True])
    kinds = np.array(["wrong", "true", "generic", "true", "generic"])
    found = denoising.against_kinds(falls, kinds)
    assert found["precision"] == pytest.approx(2 / 3) and found["recall"] == pytest.approx(2 / 3)
    assert found["by_kind"]["generic"] == {"captions": 2, "left_out": 1}
    nothing = denoising.against_kinds(falls & False, np.array(["true"] * 5))
    assert nothing["precision"] is None and nothing["recall"] is None


# --- Wrong input ---------------------------------------------------------------------------------


def test_wrong_teachers_end_a_training_with_one_sentence(
    run: Run, tiny_set: Path, teacher_files: dict[str, Path], tmp_path: Path
) -> None:
    file = teacher_files["ce"]
    cut = tmp_path / "cut.teacher"
    cut.write_bytes(file.read_bytes()[:-100])
    changes = {
        "no": distilling(tmp_path / "no.teacher"),
        "cut": distilling(cut),
        "unknown": distilling(file, aggregate="meen"),
        "empty": {"distil_loss": True},
    }
    sentences = {
        "no": "make_teachers",
        "cut": "is truncated",
        "unknown": '"mean"',
        "empty": "distil_params",
    }
    for name, sentence in sentences.items():
        config = write_config(tmp_path, name, tiny_set, changes[name])
        code, output = run(train_program, "--config", config)
        assert code == 2 and sentence in output and "Traceback" not in output, name
    assert not list((tmp_path / "saved").rglob("*.pth"))


def test_a_teacher_of_other_captions_is_refused(
    run: Run, teacher_files: dict[str, Path], tmp_path: Path
) -> None:
    data = make_tiny_set(tmp_path / "other")
    captions = json.loads((data / "captions.json").read_text())
    captions["clip5"].append("a cat runs")
    write_json(data / "captions.json", captions)
    config = write_config(tmp_path, "student", data, distilling(teacher_files["ce"]))
    code, output = run(train_program, "--config", config)
    assert code == 2 and '3 captions of the video "clip5"' in output


@pytest.mark.parametrize("flags", [[], ["--published_format"]])
def test_a_model_that_diverged_makes_no_teacher(
    run: Run, teachers: dict[str, Path], tmp_path: Path, flags: list[str]
) -> None:
    content = load_checkpoint(checkpoint_of(teachers["ce"]))
    next(iter(content["state_dict"].values())).fill_(torch.nan)
    torch.save(content, tmp_path / "nan.pth")
    arguments = ["--resume", tmp_path / "nan.pth", "--output", tmp_path / "out" / "a.pkl", *flags]
    code, output = run(make_teachers, "--config", teachers["ce"], *arguments)
    assert code == 2 and "not finite" in output and "Traceback" not in output
    assert not list((tmp_path / "out").iterdir())


def test_wrong_command_lines_get_one_sentence(
    run: Run,
    tiny_set: Path,
    teachers: dict[str, Path],
    teacher_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    config, checkpoint = teachers["ce"], checkpoint_of(teachers["ce"])
    fused = write_config(tmp_path, "fused", tiny_set)
    values = json.loads(fused.read_text())
    values["data_loader"]["args"]["fuse_captions"] = True
    write_json(fused, values)
    bad_kinds = write_json(tmp_path / "kinds.json", {"clip0": ["true"]})
    teacher = teacher_files["ce"]
    base = ["--config", config, "--resume", checkpoint]
    top = ["--config", config, "--top_k", 5, "--output_dir", tmp_path / "masks"]
    cases = [
        (make_teachers, ["--config", config, "--resume", tmp_path / "no.pth"], "no.pth"),
        (make_teachers, ["--config", config, "--resume", tmp_path], "no trained_model.pth"),
        (make_teachers, ["--config", teachers["moee"], "--resume", checkpoint], "does not fit"),
        (make_teachers, [*base, "--published_format", "--output", tmp_path / "a.x"], ".pkl"),
        (make_teachers, [*base, "--output", config / "x.teacher"], "Cannot create"),
        (denoise_captions, [*top[:2], "--top_k", 0], "--top_k"),
        (denoise_captions, top, "distil_params.teachers"),
        (denoise_captions, [*top, "--teachers", tmp_path / "no.teacher"], "no.teacher"),
        (denoise_captions, ["--config", fused, "--top_k", 5], "fuse_captions"),
        (denoise_captions, [*top, "--teachers", teacher, "--kinds", bad_kinds], "caption 1"),
    ]
    for program, arguments, sentence in cases:
        code, output = run(program, *arguments)
        assert code == 2, (arguments, output)
        assert sentence in output and "Traceback" not in output, (arguments, output)
    assert not (tmp_path / "masks").exists()


def test_the_report_of_denoising_counts_captions_and_videos_and_halves_between_ranks() -> None:
    ranked = denoising.Ranked(
        ["a", "b"], np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([1.0, 2, 7, 9])
    )
    assert denoising.counts_of(ranked, top_k=5) == {
        "captions": 4,
        "captions_left_out": 2,
        "videos": 2,
        "videos_left_out": 1,
        "median_rank": 4.5,
    }
