"""Indexes for tests: of a model with random weights over the tiny set, and of random embeddings."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from misc.build_index.build import Wishes, build
from misc.search.index.changing import changing
from misc.search.index.manifest import Manifest
from misc.search.index.parts import Shape, VideoFacts
from misc.search.index.writing import write_part
from model.similarity import VideoEmbeddings
from tests.tiny_set import make_tiny_set, tiny_config
from trainer.build import build_loader, build_net
from trainer.checkpoints.checkpoint import save_checkpoint
from utils.config import Config


def make_checkpoint(
    folder: Path,
    change: Callable[[dict[str, Any]], None] | None = None,
    make_data: bool = True,
    **arch: object,
) -> Path:
    """Write a checkpoint of random weights over the tiny set, with its config beside it."""
    data = make_tiny_set(folder / "tiny") if make_data else folder / "tiny"
    values = tiny_config(data, folder / "saved")
    values["arch"]["args"] |= arch
    if change:
        change(values)
    config = Config.from_dict(values, "tiny")
    torch.manual_seed(0)
    net = build_net(config, build_loader(config, 0))
    path = folder / "trained_model.pth"
    state = {"arch": "CENet", "epoch": 1, "state_dict": net.state_dict()}
    save_checkpoint(path, state | {"config": config.stored()})
    path.with_name("config.json").write_text(json.dumps(config.stored()))
    return path


def make_index(folder: Path, **wishes: object) -> Path:
    """Build an index of the tiny set's test videos; returns its folder."""
    output = folder / "index"
    build(make_checkpoint(folder), Wishes(output=output, **wishes))
    return output


def random_videos(
    count: int, sizes: tuple[int, ...], missing: float = 0.3, seed: int = 0
) -> VideoEmbeddings:
    """Draw embeddings of length 1 with experts missing at random, zeros in their place."""
    rng = torch.Generator().manual_seed(seed)
    there = (torch.rand(count, len(sizes), generator=rng) >= missing).float()
    parts = [torch.nn.functional.normalize(torch.randn(count, n, generator=rng)) for n in sizes]
    return VideoEmbeddings(tuple(p * there[:, [m]] for m, p in enumerate(parts)), there)


def write_index(
    folder: Path,
    video: VideoEmbeddings,
    *,
    weighted: bool = True,
    facts: list[VideoFacts] | None = None,
    offsets: np.ndarray | None = None,
    videos: str | None = None,
) -> list[str]:
    """Write an index of embeddings without any model; returns the ids in the given order."""
    ids = [f"v{number}" for number in range(len(video))]
    names = tuple(f"e{number}" for number in range(video.availability.shape[1]))
    shape = Shape(names, tuple(e.shape[1] for e in video.embeddings), weighted)
    given = {id_: place for place, id_ in enumerate(ids)}
    assert len(given) == len(ids)
    asked: list[np.ndarray] = []

    def embed(places: np.ndarray) -> VideoEmbeddings:
        asked.append(places)
        return video[torch.from_numpy(places)]

    def hubness_of(_: VideoEmbeddings) -> np.ndarray:
        assert offsets is not None
        return offsets[asked[-1]]

    with changing(folder) as change:
        model, part = change.new("model"), change.new("part")
        write_part(
            *(part, shape, ids, facts or [VideoFacts()] * len(ids), video.availability.numpy()),
            *(embed, None if offsets is None else hubness_of),
        )
        manifest = Manifest("random", model.name, "none", shape, (part.name,), "random")
        change.commit(replace(manifest, video_folders=(videos,)))
    return ids
