"""The programs that write, as the kill campaign runs them: on small data, to the same end always.

Each is prepared in a place of its own and run with that as its working directory, so that no path
in what it writes tells one place from another.
"""

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import test as test_program
import train as train_program
from data_loader.store.packed import read_packed
from misc import denoise_captions, make_teachers, prepare_text_embeddings, run_study, sync_experts
from misc.demo_set import __main__ as demo_set
from misc.extract_experts import __main__ as extract_experts
from misc.fetching.download import Patience
from tests.hostile_archives import file, packed
from tests.made_videos import numbered, tone, write_media
from tests.own_data import WORDS, OwnData
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from utils.config import Config

# What is not the same each time: names of runs and curves, logs, times.
_RUN = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(?:_\d+)?")
_DATE = re.compile(r"(<dt>date</dt><dd[^>]*>)\d{4}-\d\d-\d\d \d\d:\d\d")  # on a page
_PACKED = re.compile(r"-[0-9a-f]{12}\.packed$")
_CURVES = re.compile(r"events\.out\.tfevents\..*")
_TIMES = ("seconds", "steps_per_second")

RELEASE = "challenge-release-1"
CONFIG = "configs/tiny/train-ce.json"
CHECKPOINTS = "saved/models/tiny-train-ce"
_TRAIN = ("--config", CONFIG, "--resume", "auto", "--group_id", "g")


@dataclass(frozen=True)
class Program:
    """A program that writes.

    Attributes:
        name: for --program.
        main: its entry point.
        flags: its command line; it goes on where it was killed.
        prepare: writes its input into a folder.
        changes: of the tiny config's trainer section.
        weight: how often it is killed, compared with others.
    """

    name: str
    main: Callable[[list[str]], object]
    flags: tuple[str, ...]
    prepare: Callable[["Program", Path], object]
    changes: dict[str, Any] = field(default_factory=dict)
    weight: int = 2

    def digests(self, place: Path) -> dict[str, str]:
        """Tell the content of every file in a place, but for what differs each time."""
        found: dict[str, str] = {}
        names: dict[str, str] = {}
        for path in sorted(place.rglob("*")):
            name = path.relative_to(place).as_posix()
            if run := _RUN.search(name):
                # Runs are numbered within their folder.
                whole, above = name[: run.end()], name[: run.start()]
                number = sum(other.startswith(above) for other in names if other != whole)
                name = names.setdefault(whole, f"{above}run {number}") + name[run.end() :]
            name = _CURVES.sub("curves", name)
            name = _PACKED.sub(".packed", name)
            # Of one packed file there are not two.
            assert name not in found or name.endswith("curves"), f"{place} has {name} twice"
            found[name] = digest(path) if path.is_file() else "folder"
        return found


def digest(path: Path) -> str:
    """Return a hash of what a file says, whatever the time and the number of starts."""
    if path.suffix == ".pth":
        content: Any = list(_plain(torch.load(path, weights_only=True)))
    elif path.suffix == ".log" or _CURVES.fullmatch(path.name):
        content = "grows with each start"
    elif path.name in ("metrics.json", "summary.json"):
        content = list(_plain(json.loads(path.read_text())))
    elif path.name == "metrics.csv":
        rows = csv.DictReader(path.read_text().splitlines())
        content = [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    elif path.name == "run.json":
        content = {**json.loads(path.read_text()), "id": "", "place": ""}
    elif path.suffix == ".journal":
        content = "holds times"
    elif path.suffix == ".packed":
        # Its header tells the times of its sources.
        parts = read_packed(path)
        content = {n: array.tobytes() for n, array in parts.arrays.items()}, parts.facts
    else:
        content = _DATE.sub(r"\1", _RUN.sub("run", path.read_bytes().decode("latin-1")))
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _plain(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Walk through nested values; tensors as their bytes, bit for bit."""
    if isinstance(value, dict):
        for key, inner in sorted(value.items(), key=lambda item: str(item[0])):
            if key not in _TIMES:
                yield from _plain(inner, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _plain(inner, f"{name}.{place}")
    elif isinstance(value, torch.Tensor):
        yield name, (str(value.dtype), tuple(value.shape), value.numpy().tobytes())
    else:
        yield name, value


def write_config(program: Program, place: Path) -> None:
    """Write the tiny set and a config that draws dropout, in folders named from the place."""
    make_tiny_set(place / "set")
    values = tiny_config(Path("set"), Path("saved"))
    values["trainer"] |= {"epochs": 4, "tensorboard": False} | program.changes
    values["data_loader"]["args"]["text_dropout"] = 0.2
    (place / CONFIG).parent.mkdir(parents=True)
    write_json(place / CONFIG, values)


def trained(program: Program, place: Path) -> None:
    """Bring a trained run there, made once by the campaign (`place.parent / "trained"`)."""
    # Packed files are named by the place of what they were made from.
    without = shutil.ignore_patterns("*.packed")
    shutil.copytree(place.parent / "trained", place, dirs_exist_ok=True, ignore=without)


def with_teachers(program: Program, place: Path) -> None:
    trained(program, place)
    shutil.copy(place.parent / "a.teacher", place)


def own_data(program: Program, place: Path) -> None:
    OwnData(place, videos=60, held_out=20)


def open_data(arguments: list[str]) -> None:
    """Load a data set for the first time, which packs it."""
    config = Config.from_file(arguments[0])
    from trainer.build import build_loader

    build_loader(config, seed=0)


def word_captions(program: Program, place: Path) -> None:
    own_data(program, place)
    rng = np.random.default_rng(0)
    captions = {f"v{n}": [" ".join(rng.choice(WORDS, 5)) for _ in range(20)] for n in range(700)}
    write_json(place / "captions.json", captions)


def videos_and_captions(program: Program, place: Path) -> None:
    (place / "videos").mkdir()
    rng = np.random.default_rng(0)
    captions = {}
    for number in range(12):
        frames = [numbered(shown, 64, 48) for shown in range(8 * number, 8 * number + 24)]
        write_media(place / "videos" / f"v{number}.mp4", frames, 12, tone(2.0))
        captions[f"v{number}"] = [" ".join(rng.choice(WORDS, 5)) for _ in range(2)]
    (place / "videos" / "broken.mp4").write_bytes(b"\0" * 500)
    write_json(place / "captions.json", captions)


def sync(arguments: list[str]) -> None:
    """Fetch from the campaign's own server, whose address lies beside the place."""
    root = Path("../server").read_text()
    sync_experts.main([*arguments, "--root_url", root], Patience(sleep=lambda _: None))


def archive() -> tuple[str, bytes]:
    """The path of an archive on the server, and its content."""
    rng = np.random.default_rng(0)
    names = [f"data/MSVD/{RELEASE}/part{number}.pkl" for number in range(40)]
    members = [file(name, rng.bytes(60_000)) for name in names]
    return f"/{RELEASE}/{RELEASE}-MSVD-experts.tar.gz", packed(members)


def nothing(program: Program, place: Path) -> None:
    """Everything is made by the program."""


PROGRAMS = [
    Program("train", train_program.main, (*_TRAIN, "--group_seed", "0"), write_config, weight=4),
    Program(
        "train, best only",
        train_program.main,
        (*_TRAIN, "--group_seed", "0"),
        write_config,
        {"save_only_best": True, "checkpoint_minutes": 0},
        weight=4,
    ),
    Program(
        "train, seldom saved",
        train_program.main,
        (*_TRAIN, "--group_seed", "0"),
        write_config,
        {"save_only_best": True, "tensorboard": True},
    ),
    Program(
        "train, two seeds",
        train_program.main,
        (*_TRAIN, "--seeds", "0,1"),
        write_config,
        {"save_only_best": True, "checkpoint_minutes": 0, "epochs": 2},
        weight=4,
    ),
    Program(
        "test",
        test_program.main,
        ("--resume", CHECKPOINTS),
        trained,
    ),
    Program(
        "teachers",
        make_teachers.main,
        ("--resume", CHECKPOINTS, "--output", "made/a.teacher"),
        trained,
    ),
    Program(
        "published teachers",
        make_teachers.main,
        ("--resume", CHECKPOINTS, "--output", "made/a.pkl", "--published_format"),
        trained,
    ),
    Program(
        "denoise",
        denoise_captions.main,
        ("--config", CONFIG, "--teachers", "a.teacher", "--top_k", "6", "--output_dir", "made"),
        with_teachers,
    ),
    Program("pack", open_data, (CONFIG,), write_config),
    Program(
        "text",
        prepare_text_embeddings.main,
        ("--encoder", "words.bin", "--captions", "captions.json", "--output", "made/text.npz"),
        word_captions,
    ),
    Program("sync", sync, ("--dataset", "MSVD", "--release", RELEASE, "--data_dir", "."), nothing),
    Program(
        "demo_set",
        demo_set.main,
        ("--folder=demo", "--num_train=11", "--num_val=2", "--num_test=3", "--workers=2"),
        nothing,
        weight=1,
    ),
    Program(
        "extract",
        extract_experts.main,
        ("--videos=videos", "--output=made", "--captions=captions.json", "--workers=2"),
        videos_and_captions,
        weight=1,
    ),
    Program(
        "study",
        run_study.main,
        ("--configs", CONFIG, "--seeds", "0"),
        write_config,
        {"save_only_best": True, "checkpoint_minutes": 0, "epochs": 2},
        weight=1,
    ),
]
