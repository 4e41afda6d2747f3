"""Teachers with random embeddings, as arrays that a naive double loop can read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.teachers.teacher import TeacherShape, write_teacher


@dataclass
class RandomTeacher:
    """Embeddings by video, caption and expert; some videos lack some experts."""

    counts: list[int]
    sizes: dict[str, int]
    seed: int = 0
    has_weights: bool = True
    video: list[dict[str, np.ndarray]] = field(default_factory=list)
    text: list[list[dict[str, np.ndarray]]] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    available: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)

        def row() -> dict[str, np.ndarray]:
            return {
                name: rng.standard_normal(d).astype(np.float32) for name, d in self.sizes.items()
            }

        self.video = [row() for _ in self.counts]
        self.text = [[row() for _ in range(count)] for count in self.counts]
        shape = (len(self.counts), len(self.sizes))
        self.weights = [
            rng.dirichlet(np.ones(shape[1]), count).astype(np.float32) for count in self.counts
        ]
        self.available = (rng.random(shape) < 0.6).astype(np.float32)

    @property
    def ids(self) -> list[str]:
        return [f"v{number}" for number in range(len(self.counts))]

    def similarity(self, video: int, caption: int, other: int) -> float:
        """Similarity of a caption of one video with another video, the slow way."""
        total, weight = 0.0, 0.0
        for place, name in enumerate(self.sizes):
            product = float(self.text[video][caption][name] @ self.video[other][name])
            if not self.has_weights:
                total += product
            elif self.available[other, place]:
                total += self.weights[video][caption, place] * product
                weight += self.weights[video][caption, place]
        return total / weight if weight else total

    def write(self, path: Path, block: int = 3, **changes: Any) -> Path:
        """Write it in our format, `block` captions at a time."""
        texts = [np.concatenate(list(row.values())) for rows in self.text for row in rows]
        flat, weights = np.stack(texts), np.concatenate(self.weights)
        blocks = (
            (flat[at : at + block], weights[at : at + block] if self.has_weights else None)
            for at in range(0, len(flat), block)
        )
        shape = TeacherShape(
            self.ids, np.array(self.counts), list(self.sizes), list(self.sizes.values())
        )
        video = np.stack([np.concatenate(list(row.values())) for row in self.video])
        write_teacher(
            path, shape, video, self.available, blocks, self.has_weights, {"by": "test"}, **changes
        )
        return path

    def published(self) -> dict[str, Any]:
        """The published form."""
        return {
            key: {
                "vid_embds": dict(self.video[number]),
                "text_embds": {
                    name: np.stack([row[name] for row in self.text[number]]) for name in self.sizes
                },
            }
            for number, key in enumerate(self.ids)
        }
