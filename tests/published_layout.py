"""Writes a small copy of a published data set's layout: its own file names, sizes and formats."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.sets.declared import Expert, aggregated
from data_loader.sets.description import DataDescription, ListEntry, find_description
from tests.every_format import write_hickle, write_pickle
from trainer.build import inputs_of
from utils.config import Config

NUM_TRAIN, NUM_HELD_OUT, CAPTIONS = 6, 3, 2


class Layout:
    """The files that training and testing with a config reads, in a folder."""

    def __init__(self, root: Path, config: Config) -> None:
        self.root, self.config = root, config
        self.arguments = config["data_loader.args"]
        self.description: DataDescription = find_description(self.arguments["dataset_name"])
        self.features = root / self.arguments.get("root_feat_folder", "")
        self.rng = np.random.default_rng(0)
        self.ids = [f"v{n}" for n in range(NUM_TRAIN + NUM_HELD_OUT)]

    def write(self) -> None:
        split_names = {c["data_loader.args.split_name"] for c in (self.config, self._test_config())}
        for name in split_names:
            split = self.description.split(name)
            self._list(split.train, self.ids[:NUM_TRAIN])
            self._list(split.val, self.ids[NUM_TRAIN:])
        data = inputs_of(self.config)
        for expert in data.experts:
            self._expert(expert)
        self._text(data.text_size)
        words = {key: [[key, "number", str(n)] for n in range(CAPTIONS)] for key in self.ids}
        self._table(self.description.captions, words, self.root)

    def _test_config(self) -> Config:
        return self.config.eval_config()

    def _list(self, entry: ListEntry, ids: list[str]) -> None:
        ending = self.description.ids_end_at or ""
        path = self.features / entry.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{key}{ending and ending + 'mp4'}\n" for key in ids))

    def _expert(self, expert: Expert) -> None:
        settings = self.arguments.get("feat_aggregation", {}).get(expert.name, {})
        entry = self.description.experts.get(expert.name)
        names = list(entry.files[:1]) if entry else aggregated(expert.name, settings)
        for name in names:
            size = expert.size // len(names)
            table: dict[str, Any] = {
                key: self._draw(int(self.rng.integers(1, 4)), size)
                if expert.variable_length
                else self._draw(size)
                for key in self.ids
            }
            table[self.ids[1]] = None  # missing
            self._table(name, table, self.features)

    def _text(self, size: int) -> None:
        entry = self.description.text_entry(self.config["experts.text_feat"])
        table = {key: [self._draw(3, size) for _ in range(CAPTIONS)] for key in self.ids}
        if not entry.parts:
            self._table(entry.files[0], table, self.features)
            return
        own = {key: key for key in self.ids}
        if entry.parts_key_mapping:
            own = {key: f"other-{key}" for key in self.ids}
            self._table(entry.parts_key_mapping, own, self.features)
        for number, name in enumerate(entry.parts):
            part = {own[key]: table[key] for key in self.ids[number :: len(entry.parts)]}
            self._table(name, part, self.features)

    def _table(self, name: str, table: dict[str, Any], folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".hickle":
            write_hickle(path, {key: value for key, value in table.items() if value is not None})
        elif any(value is None for value in table.values()):
            write_pickle(path, table)
        else:
            path.write_bytes(pickle.dumps(table, protocol=2))

    def _draw(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)
