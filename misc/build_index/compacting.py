"""Frees the space of removed videos, before it grows beyond that of those that stay.

A removed video keeps its row, so that removing one of a million is cheap. Once half of a part is
removed, the rest is written into a new part: so an index takes at most about twice the space that
it has to, and each video is moved a few times at most.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from misc.search.approximate import write_graphs
from misc.search.index.changing import IndexChange
from misc.search.index.folder import Index
from misc.search.index.manifest import Manifest
from misc.search.index.parts import VideoPart
from misc.search.index.writing import write_part
from model.similarity import VideoEmbeddings


def compacted(change: IndexChange, manifest: Manifest) -> Manifest:
    """Rewrite the parts of which half is removed; return what the index is then.

    An index of which nothing would stay keeps its rows.

    Raises:
        UserError: the folder cannot be written.
    """
    index = Index(change.folder, manifest)
    if not index.is_found.any():
        return manifest
    kept: list[tuple[str, str, str | None]] = []
    removed: list[int] = []
    first = 0
    folders = [*manifest.video_folders, *[None] * len(manifest.parts)]
    whose = zip(manifest.parts, manifest.sets, folders, pairwise(index.starts), strict=False)
    for name, data_set, folder, (start, end) in whose:
        stays = index.is_found[start:end]
        rows, gone = stays.nonzero()[:, 0] + start, (~stays).nonzero()[:, 0]
        if len(rows) > len(gone):
            removed += (gone + first).tolist()
            first += end - start
        else:
            first += len(rows)
            name = _rewritten(change, index, rows) if len(rows) else ""
        if name:
            kept.append((name, data_set, folder))
    names, sets, places = zip(*kept, strict=True)
    return replace(
        manifest, parts=names, removed=tuple(removed), data_sets=sets, video_folders=places
    )


def _rewritten(change: IndexChange, index: Index, rows: torch.Tensor) -> str:
    """Write chosen rows of an index into a new part; return its name."""
    folder, shape = change.new("part"), index.manifest.shape
    patterns = np.concatenate([np.tile(g.pattern, (len(g), 1)) for g in index.groups])
    last = rows[:0]

    def embed(places: np.ndarray) -> VideoEmbeddings:
        nonlocal last
        last = rows[torch.from_numpy(places)]
        return index.video(last)

    def hubness_of(_: VideoEmbeddings) -> np.ndarray:
        return index.offsets[last].numpy()

    write_part(
        folder,
        shape,
        [index.id_of(row) for row in rows.tolist()],
        [index.facts_of(row) for row in rows.tolist()],
        patterns[rows.numpy()],
        embed,
        hubness_of,
    )
    if index.manifest.approximate is not None:
        write_graphs(folder, VideoPart(folder, 0, shape))
    return folder.name
