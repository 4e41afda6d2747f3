"""Puts a finished demo set together from its pieces of work."""

from pathlib import Path
from typing import Any

from misc.demo_set.clips import EXPERTS, join_features, standardise, write_expert
from misc.demo_set.plan import clip_id
from misc.demo_set.settings import Places, Settings
from misc.demo_set.words import word_vectors
from misc.demo_set.words.captions import captions_of
from utils.files import (
    make_folder,
    remove_abandoned,
    replacing,
    sync_folder,
    write_json,
)


def assemble(places: Places, settings: Settings) -> None:
    """Write all files but the videos; the descriptor comes last and makes the set complete."""
    folder = places.folder
    for path in files(places, settings):
        make_folder(path.parent)
    _write_features(places, settings)
    for name in word_vectors.TABLES:
        table = word_vectors.make_table(settings.seed, name)
        word_vectors.write_table(folder / _table_file(name), table)
    for name, numbers in settings.splits().items():
        with replacing(folder / _split_file(name), "w", encoding="utf-8") as handle:
            handle.writelines(f"{clip_id(number)}\n" for number in numbers)
    _write_captions(folder, settings)
    for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        remove_abandoned(inner, age=0)  # we are alone in the folder
    sync_folder(folder / "videos")
    write_json(places.descriptor, describe(settings))


def files(places: Places, settings: Settings) -> list[Path]:
    """Return all files of a finished set but its descriptor and its videos."""
    names = [
        *map(_expert_file, EXPERTS),
        *map(_table_file, word_vectors.TABLES),
        *map(_split_file, settings.splits()),
        "captions.json",
        "caption_kinds.json",
    ]
    return [places.folder / name for name in names]


def describe(settings: Settings) -> dict[str, Any]:
    """Describe the set as every data set is described: its files and their sizes."""
    experts: dict[str, dict[str, Any]] = {}
    for name, expert in EXPERTS.items():
        experts[name] = {"file": _expert_file(name), "size": expert.size}
        if expert.variable_length:
            experts[name]["variable_length"] = True
    return {
        "name": "demo",
        "experts": experts,
        "captions": "captions.json",
        "text_features": {
            name: {"word_vectors": _table_file(name), "size": word_vectors.SIZE}
            for name in word_vectors.TABLES
        },
        "splits": {
            "full-val": {"train": _split_file("train"), "val": _split_file("val")},
            "full-test": {"train": _split_file("train"), "val": _split_file("test")},
        },
        "made_by": settings.made_by,
    }


def _expert_file(name: str) -> str:
    return f"features/{name}.npz"


def _table_file(name: str) -> str:
    return f"word_vectors/{name}.bin"


def _split_file(name: str) -> str:
    return f"splits/{name}.txt"


def _write_features(places: Places, settings: Settings) -> None:
    training = {clip_id(number) for number in settings.splits()["train"]}
    paths = [places.chunk(place) for place in range(len(settings.chunks()))]
    for name, arrays in join_features(paths, EXPERTS).items():
        # Word vectors stay as they are, as those of the captions do.
        if not EXPERTS[name].word_vectors:
            standardise(arrays, training)
        write_expert(places.folder / _expert_file(name), arrays)


def _write_captions(folder: Path, settings: Settings) -> None:
    captions, kinds = {}, {}
    for number in range(settings.num_clips):
        captions[clip_id(number)], kinds[clip_id(number)] = captions_of(
            settings.seed,
            number,
            num_train=settings.num_train,
            training=number < settings.num_train,
        )
    write_json(folder / "captions.json", captions)
    write_json(folder / "caption_kinds.json", kinds)
