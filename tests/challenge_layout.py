"""Writes a small copy of a challenge set: features first, queries of the test phase in a folder."""

from pathlib import Path
from typing import Any

import numpy as np

from misc.cvpr2020_challenge.sets import CONFIGS, TEST, VAL, config_path, phase_config
from tests.published_layout import Layout
from trainer.build import inputs_of
from utils.config import Config

NUM_TRAIN, NUM_VAL = 6, 3
SEARCHED = {VAL: 12, TEST: 15}
MOST_CAPTIONS = 3

# Of all five sets: sizes of the data stay as published, the model is made small.
SMALLER = {
    "arch.args.vlad_clusters.text": 1,
    "arch.args.ghost_clusters.text": 0,
    "experts.ce_shared_dim": 64,
    "data_loader.args.batch_size": 3,
    "optimizer.args.lr": 0.001,
    "trainer.epochs": 1,
    "trainer.tensorboard": "false",
}
OVERRIDES = "+".join(f"{key}@{value}" for key, value in SMALLER.items())


class ChallengeLayout(Layout):
    """A set of the challenge, with one to three captions for each video."""

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(root, Config.from_file(config_path(CONFIGS, name, VAL)))
        self.rng = np.random.default_rng(len(name))
        self.later = root / self.arguments["challenge_test_root_feat_folder"]
        counts = {"train": NUM_TRAIN, "val": NUM_VAL, **SEARCHED}
        self.parts = {part: [f"{part}-{n}" for n in range(count)] for part, count in counts.items()}
        self.ids = [key for part in self.parts.values() for key in part]
        self.captions = {key: int(self.rng.integers(1, MOST_CAPTIONS + 1)) for key in self.ids}

    def write(self) -> None:
        own = self.arguments["split_name"]
        self._list(self.description.split(own).train, self.parts["train"])
        self._list(self.description.split(own).val, self.parts["val"])
        self._list(self.description.split(VAL).val, self.parts[VAL])
        data = inputs_of(self.config)
        for expert in data.experts:
            self._expert(expert)
        now = [key for part, ids in self.parts.items() if part != TEST for key in ids]
        self._queries(now, data.text_size)
        self.features = self.later
        self._list(self.description.split(TEST).val, self.parts[TEST])
        self._queries(self.parts[TEST], data.text_size)

    def _queries(self, ids: list[str], size: int) -> None:
        """Text features and raw captions, in the folder that is being written."""
        file = self.description.text_entry(self.config["experts.text_feat"]).files[-1]
        table: dict[str, Any] = {
            key: [self._draw(3, size) for _ in range(self.captions[key])] for key in ids
        }
        self._table(file, table, self.features)
        words = {key: [[key, str(n)] for n in range(self.captions[key])] for key in ids}
        self._table(self.description.captions, words, self.features)

    def queries(self, phase: str) -> list[int]:
        """The place of the video of each query, one after the other."""
        arguments = phase_config(CONFIGS, self.description.name, phase, None)["data_loader.args"]
        fused = arguments["fuse_captions"]
        most = 1 if fused else arguments["num_test_captions"]
        return [
            place
            for place, key in enumerate(self.parts[phase])
            for _ in range(min(most, self.captions[key]))
        ]
