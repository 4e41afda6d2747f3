"""What training and validation captions tell an index: hubs, and when a match is confident.

Nothing here sees a query of a test. Q captions, N videos of the index.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_loader.loader import ExpertDataLoader
from data_loader.store.packed import Part, read_packed, write_packed
from misc.build_index.source import Trained
from misc.search.index.folder import Index
from misc.search.index.manifest import anew
from model.hubness import INVERTED_SOFTMAX, NEAREST, HubnessMeter, Rule
from model.similarity import TextEmbeddings, VideoEmbeddings, similarity, similarity_to
from trainer.evaluation.correction import (
    DEFAULT,
    CorrectionSettings,
    Searched,
    choose_rules,
    embed_bank,
)
from trainer.evaluation.evaluate import compare
from utils.errors import BadContent, UserError

_log = logging.getLogger(__name__)

BANK_FILE = "bank.packed"
# One number for each video: rules that look at the query as well have no place in an index.
KINDS = (NEAREST, INVERTED_SOFTMAX)
# Of captions whose video can be found so many are answered with confidence.
KEPT = 0.9
_VIDEOS_AT_ONCE = 2048


@dataclass(frozen=True)
class Hubs:
    """How hubs are corrected: what is taken off the similarities of a video.

    Attributes:
        rule: chosen on the validation split.
        bank: training captions, with float16 embeddings, as they are stored: videos that are added
            later are measured by the same numbers.
    """

    rule: Rule
    bank: TextEmbeddings

    @torch.inference_mode()
    def __call__(self, video: VideoEmbeddings) -> np.ndarray:
        """Return (n,) float32 for embedded videos."""
        video = video.to(torch.device("cpu"))
        measured = HubnessMeter([self.rule]).of_bank_blocks([similarity_to(video)(self.bank)])
        return measured.offsets(self.rule).numpy().astype(np.float32)

    def write(self, folder: Path) -> None:
        """Write the bank into the folder of an index's model."""
        arrays = {
            f"embedding{place}": Part.of(values.half().numpy())
            for place, values in enumerate(self.bank.embeddings)
        }
        if self.bank.weights is not None:
            arrays["weights"] = Part.of(self.bank.weights.numpy())
        write_packed(folder / BANK_FILE, arrays, {"embeddings": len(self.bank.embeddings)})

    @classmethod
    def read(cls, folder: Path, rule: dict[str, Any]) -> "Hubs":
        """Read the bank of an index.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            packed = read_packed(folder / BANK_FILE)
            count = packed.facts["embeddings"]
            embeddings = [torch.from_numpy(packed.arrays[f"embedding{n}"]) for n in range(count)]
            weights = packed.arrays.get("weights")
            return cls(Rule(**rule), stored(embeddings, weights))
        except (OSError, BadContent, KeyError, TypeError) as error:
            raise UserError(
                f"The bank of the index {folder.parent} is missing or damaged: "
                f"{anew(folder.parent)}."
            ) from error


def measure_hubs(source: Trained, loader: ExpertDataLoader) -> Hubs | None:
    """Measure hubs by training captions, corrected as is best for the validation split.

    None where no correction finds more there.
    """
    settings = CorrectionSettings(KINDS, seed=source.config.get("seed", 0))
    bank = embed_bank(source.net, loader, settings, source.device)
    rule = DEFAULT
    if not set(loader.retrieval.video_ids) <= set(loader.train.video_ids):
        compared = compare(source.net, loader.retrieval, source.device)
        searched = Searched(source.net, loader.retrieval, bank, source.device, compared)
        rule, _ = choose_rules(searched, KINDS)
    if not rule.kind:
        _log.info("No correction of hubs finds more on the validation split: there is none.")
        return None
    return Hubs(rule, stored(bank.text.embeddings, bank.text.weights))


def stored(embeddings: Sequence[Tensor], weights: np.ndarray | Tensor | None) -> TextEmbeddings:
    """Return captions as an index holds them: rounded to float16."""
    rounded = tuple(values.cpu().half().float() for values in embeddings)
    return TextEmbeddings(rounded, None if weights is None else torch.as_tensor(weights).cpu())


@dataclass(frozen=True)
class Calibration:
    """From which score on a match is confident: one that `KEPT` of true matches reach.

    Attributes:
        threshold: the score.
        captions: how many validation captions chose it.
        kept: share of them whose best match reaches it while their own video can be found.
        refused: share of them whose best match stays below while it cannot.
    """

    threshold: float
    captions: int
    kept: float
    refused: float

    def __str__(self) -> str:
        return (
            f"a match is confident from {self.threshold:.3f} on: so {100 * self.kept:.0f} % of "
            f"{self.captions} validation captions are answered where their video is there, and "
            f"{100 * self.refused:.0f} % are not where it is not"
        )


@torch.inference_mode()
def calibrate(
    index: Index,
    text: TextEmbeddings,
    ids: list[str],
    own: VideoEmbeddings,
    hubness_of: Callable[[VideoEmbeddings], np.ndarray] | None,
) -> Calibration | None:
    """Choose the score that most captions reach whose video is there, and measure who else does.

    Each caption searches the index twice: with its own video in it, and without.

    Args:
        index: to be searched.
        text: Q validation captions.
        ids: Q ids of their videos.
        own: Q times the video of a caption.
        hubness_of: what is taken off the similarities of videos; None: nothing.
    """
    others = torch.full((len(text),), -torch.inf)
    rows = torch.tensor([index.row_of.get(key, -1) for key in ids])
    for group in index.groups:
        for start in range(0, len(group), _VIDEOS_AT_ONCE):
            video = group.embeddings(slice(start, start + _VIDEOS_AT_ONCE), index.manifest.shape)
            first = group.first + start
            scores = similarity_to(video)(text) - index.offsets[first : first + len(video)]
            scores[:, ~index.is_found[first : first + len(video)]] = -torch.inf
            inside = ((rows >= first) & (rows < first + len(video))).nonzero()[:, 0]
            scores[inside, rows[inside] - first] = -torch.inf
            others = torch.maximum(others, scores.max(dim=1).values)
    each = (slice(query, query + 1) for query in range(len(text)))
    own_scores = torch.stack([similarity(text[one], own[one])[0, 0] for one in each])
    if hubness_of is not None:
        own_scores = own_scores - torch.from_numpy(hubness_of(own))
    without = others[others.isfinite()].sort().values
    if not len(without):
        return None
    answered = torch.maximum(own_scores, others).sort().values
    threshold = float(answered[int((1 - KEPT) * len(answered))])
    return Calibration(
        threshold,
        len(answered),
        float((answered >= threshold).float().mean()),
        float((without < threshold).float().mean()),
    )
