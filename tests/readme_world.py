"""A small world in which the commands of the guides run: configs, a demo of few clips, own files.

What a reader has is there under the names that the guides use; the configs are the project's, but
for small sizes and one epoch. The rest is made by the commands themselves.
"""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np

from misc.demo_set.make import make_demo_set
from tests.conftest import ROOT
from tests.tiny_set import write_json

CLIPS = {"num_train": 24, "num_val": 6, "num_test": 8}


def make_world(folder: Path) -> Path:
    """Make all that the guides take for granted; returns the folder."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name in ("demo", "own"):
        path = folder / "configs" / name / "base.json"
        values = json.loads(path.read_text())
        if name == "demo":
            values["data_set_maker"]["args"] |= CLIPS
        values["experts"]["ce_shared_dim"] = 16
        values["arch"]["args"]["vlad_clusters"]["text"] = 2
        values["data_loader"]["args"]["batch_size"] = 12
        values["trainer"]["epochs"] = 1
        write_json(path, values)
    make_demo_set(folder / "data" / "demo", workers=1, **CLIPS)
    own_files(folder, folder / "data" / "demo")
    return folder


def own_files(folder: Path, demo: Path) -> None:
    """A user's videos with captions and features of his own, and a config for the demo."""
    captions = json.loads((demo / "captions.json").read_text())
    videos = sorted((demo / "videos").glob("*.mp4"))
    (folder / "my_videos").mkdir()
    for video in videos:
        shutil.copy(video, folder / "my_videos")
    own = {video.stem: captions[video.stem] for video in videos}
    write_json(folder / "captions.json", own)
    rows = [f'{video},"{text}"' for video, texts in own.items() for text in texts]
    (folder / "captions.csv").write_text("\n".join(["video,caption", *rows]) + "\n")

    rng = np.random.default_rng(0)
    (folder / "clip_frames").mkdir()
    for video in own:
        frames = rng.standard_normal((3, 8)).astype(np.float32)
        np.save(folder / "clip_frames" / f"{video}.npy", frames)
    with h5py.File(folder / "vggish.h5", "w") as file:
        for video in own:
            file[video] = rng.standard_normal((2, 4)).astype(np.float32)
    words = sorted({word for texts in own.values() for text in texts for word in text.split()})
    vectors = (f"{word} {rng.random():.3f} {rng.random():.3f}" for word in words)
    (folder / "vectors.txt").write_text("\n".join(vectors) + "\n")

    inputs = {"modalities": ["appearance", "motion"], "text_feat": "w2v-small"}
    write_json(
        folder / "my-clips.json",
        {
            "inherit_from": "configs/own/train-ce.json",
            "experts": inputs,
            "data_loader": {"args": {"dataset_name": "data/demo", "split_name": "full-val"}},
            "eval_settings": {"data_loader": {"args": {"split_name": "full-test"}}},
        },
    )
