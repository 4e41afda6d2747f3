"""Predictions for a challenge: the best videos of each query as CSV, in place of metrics.

Whoever holds the challenge knows which video is the right one, and measures.
"""

import logging

import numpy as np
import torch
from torch import nn

from data_loader.description import Counts
from data_loader.errors import UserError
from data_loader.retrieval_set import RetrievalSet
from logger.predictions import VIDEOS_PER_QUERY
from model.ranks import find_best
from trainer.evaluation import compare

_log = logging.getLogger(__name__)


@torch.inference_mode()
def predict(net: nn.Module, retrieval: RetrievalSet, device: torch.device) -> np.ndarray:
    """Find the ten most similar videos of each query that exists.

    Returns:
        (queries, 10) int64 places in the list of videos, the most similar first (of equals the
        first in the list); the queries in the order of videos, then captions.

    Raises:
        UserError: there are fewer than ten videos, queries are means over captions, or the model
            gives NaN.
    """
    if len(retrieval) < VIDEOS_PER_QUERY:
        raise UserError(
            f"A challenge asks for the {VIDEOS_PER_QUERY} best videos of each query, and this "
            f"retrieval set has {len(retrieval)}: set challenge_mode to false for metrics."
        )
    compared = compare(net, retrieval, device)
    if compared.averaged:
        raise UserError(
            "A challenge asks for a row for each caption, and this model averages a video's "
            'captions: set arch.args.test_caption_mode to "indep".'
        )
    masks = torch.from_numpy(np.asarray(retrieval.query_masks))
    try:
        return find_best(compared.blocks, masks, VIDEOS_PER_QUERY).numpy()
    except ValueError as error:
        raise UserError(f"The model cannot predict: {error}") from error


def counts_of(retrieval: RetrievalSet) -> Counts:
    """Count what a retrieval set holds."""
    return Counts(len(retrieval), int(np.count_nonzero(retrieval.query_masks)))


def warn_of_other_counts(found: Counts, expected: Counts | None, what: str) -> None:
    """Say it where a retrieval set is not as large as the published one is."""
    if expected is not None and found != expected:
        _log.warning(
            "%s has %s here, but %s as published: predictions for it do not fit the challenge; "
            "look at its list of videos and at data_loader.args.num_test_captions.",
            what,
            found,
            expected,
        )
