"""Hubness correction of a test: its bank is of the training set, its rules of the validation set.

Neither sees the queries of the test. See `model.hubness` for what is corrected, and how.

Axes: Q queries (captions), N videos, B bank items.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_loader.batches import item_uniform
from data_loader.loader import ExpertDataLoader
from data_loader.retrieval_set import RetrievalSet
from model.hubness import (
    KINDS,
    NEAREST,
    Correction,
    HubnessMeter,
    Rule,
    choose,
    rank_corrected_captions,
    rank_corrected_videos,
    rules,
)
from model.ranks import Ranks
from model.similarity import RetrievalModel, TextEmbeddings, VideoEmbeddings, similarity_to
from trainer.evaluation.evaluate import (
    BLOCK_VALUES,
    QUERIES_PER_BLOCK,
    Compared,
    Evaluation,
    Queries,
    compare,
    embed_videos,
    evaluating,
    similarity_blocks,
)

_log = logging.getLogger(__name__)

BANK_SIZE = 5000
# Where there is no validation split to choose on.
DEFAULT = Rule(NEAREST, k=64, alpha=0.5)
# Blocks of the bank are of 512 captions and less.
_WIDE = BLOCK_VALUES // QUERIES_PER_BLOCK
_VIDEO_STREAM, _CAPTION_STREAM = 201, 202


@dataclass(frozen=True)
class Bank:
    """Training captions and training videos, as a model embeds them."""

    text: TextEmbeddings
    video: VideoEmbeddings


@dataclass(frozen=True)
class CorrectionSettings:
    """The config's `correction` section.

    Attributes:
        kinds: the kinds of rules to choose from, see `model.hubness`.
        bank_size: the most training videos, and the most of their captions, that are compared.
        seed: decides which.
    """

    kinds: Sequence[str] = KINDS
    bank_size: int = BANK_SIZE
    seed: int = 0


@torch.inference_mode()
def embed_bank(
    net: RetrievalModel,
    loader: ExpertDataLoader,
    settings: CorrectionSettings,
    device: torch.device,
) -> Bank:
    """Embed a sample of the training videos and of their captions."""
    ids, size = loader.train.video_ids, settings.bank_size
    chosen = _sample(len(ids), size, settings.seed, _VIDEO_STREAM)
    training = loader.training_queries([ids[place] for place in chosen])
    exists = np.flatnonzero(np.asarray(training.query_masks).reshape(-1))
    captions = exists[_sample(len(exists), size, settings.seed, _CAPTION_STREAM)]
    texts = []
    with evaluating(net):
        for start in range(0, len(captions), QUERIES_PER_BLOCK):
            text, tokens = training.queries(captions[start : start + QUERIES_PER_BLOCK])
            texts.append(net.encode_text(text.to(device), tokens.to(device)))
        return Bank(TextEmbeddings.cat(texts), embed_videos(net, training, device))


def _sample(count: int, size: int, seed: int, stream: int) -> np.ndarray:
    """Return at most `size` of the numbers below `count`, in their order."""
    drawn = item_uniform(seed, 0, np.arange(count), stream)
    return np.sort(np.argsort(drawn, kind="stable")[:size])


@dataclass(frozen=True)
class Searched:
    """A retrieval set as a model compares it, beside a bank.

    Attributes:
        compared: the queries beside the videos.
    """

    net: RetrievalModel
    retrieval: RetrievalSet
    bank: Bank
    device: torch.device
    compared: Compared

    @torch.inference_mode()
    def correction(self, t2v: Sequence[Rule], v2t: Sequence[Rule]) -> Correction:
        """Measure the hubness that rules of either direction need; the first ones are in force."""
        with evaluating(self.net):
            videos = HubnessMeter(t2v).of_bank_blocks(self._bank_captions_to_videos())
            captions = HubnessMeter(v2t).of_candidate_blocks(self._captions_to_bank_videos())
        return Correction(t2v[0], v2t[0], videos, captions)

    def _bank_captions_to_videos(self) -> Iterator[Tensor]:
        similarity_of = similarity_to(self.compared.video)
        exists = torch.ones(len(self.bank.text), dtype=torch.bool)
        yield from similarity_blocks(
            [(exists, self.bank.text)], similarity_of, max(len(self.retrieval), _WIDE)
        )

    def _captions_to_bank_videos(self) -> Iterator[Tensor]:
        exists_Q = self.compared.masks.bool().flatten()
        start = 0
        for block in similarity_blocks(
            Queries(self.net, self.retrieval, self.device).blocks(),
            similarity_to(self.bank.video),
            len(self.bank.video),
            self.retrieval.query_masks.shape[1],
            self.compared.averaged,
        ):
            exists_q = exists_Q[start : start + len(block)].to(block.device)
            start += len(block)
            yield block[exists_q]


def choose_rules(validation: Searched, kinds: Sequence[str]) -> tuple[Rule, Rule]:
    """Choose each direction's rule by how well the queries of a validation split are answered."""
    candidates = rules(kinds)
    measured = validation.correction(candidates, candidates)
    where = (validation.compared.blocks, validation.compared.masks)

    def score_t2v(rule: Rule) -> float:
        return _score(rank_corrected_videos(*where, rule, measured.videos))

    def score_v2t(rule: Rule) -> float:
        return _score(rank_corrected_captions(*where, rule, measured.captions))

    return choose(candidates, score_t2v), choose(candidates, score_v2t)


def _score(ranks: Tensor) -> float:
    """Return a score of ranks that says more of a few hundred queries than a recall does.

    The mean logarithm moves with every rank, and with the first ones most.
    """
    return -ranks.log().mean().item()


def correct(
    net: RetrievalModel,
    loader: ExpertDataLoader,
    validation: RetrievalSet | None,
    evaluation: Evaluation,
    settings: CorrectionSettings,
    device: torch.device,
) -> tuple[Ranks, dict[str, str]]:
    """Rank the retrieval set of a test anew, its hubs corrected.

    Args:
        net: the model.
        loader: of the test: its retrieval set, and the training set for the bank.
        validation: on which the rules are chosen; None: those that are good in general are taken.
        evaluation: of the test.
        settings: see there.
        device: of the model.

    Returns:
        The corrected ranks, and what was done in words.
    """
    bank = embed_bank(net, loader, settings, device)
    tested = set(loader.retrieval.video_ids)
    if validation is None or not tested.isdisjoint(validation.video_ids):
        # To choose by the videos that are reported would flatter the numbers.
        t2v, v2t, how = DEFAULT, DEFAULT, "by default, as no other videos validate"
    else:
        searched = Searched(net, validation, bank, device, compare(net, validation, device))
        (t2v, v2t), how = choose_rules(searched, settings.kinds), "on the validation split"
    test = Searched(net, loader.retrieval, bank, device, evaluation)
    ranks = test.correction([t2v], [v2t]).ranks(evaluation.blocks, evaluation.masks)
    return ranks, {"t2v": str(t2v), "v2t": str(v2t), "chosen": how}
