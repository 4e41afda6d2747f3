"""Embeds all training videos and captions with a trained model, as a teacher holds them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data_loader.loader import ExpertDataLoader
from data_loader.retrieval_set import RetrievalSet
from data_loader.teachers.published import PublishedVideo, write_published_teacher
from data_loader.teachers.teacher import TeacherShape, write_teacher
from logger.progress import progress
from misc.teachtext import PUBLISHED_SUFFIX, SUFFIX, TEACHERS_FOLDER
from model.similarity import TextEmbeddings, VideoEmbeddings
from trainer.build import build_loader, build_net
from trainer.checkpoints.checkpoint import NOT_TESTED, load_checkpoint, load_weights
from trainer.evaluation.evaluate import QUERIES_PER_BLOCK, embed_videos
from utils.config import Config
from utils.errors import UserError
from utils.files import make_folder, write_json


def make_teacher(
    config: Config,
    checkpoint_path: Path,
    device_name: str,
    output: str | None,
    float16: bool,
    published_format: bool,
) -> Path:
    """Embed the training set of a config with a trained model; returns the file.

    Args:
        config: of the model and its data set.
        checkpoint_path: of the model.
        device_name: where it runs.
        output: the file; None for the usual place in the data set's folder.
        float16: whether numbers are stored in half precision.
        published_format: whether it is the pickle that the published system reads.

    Raises:
        UserError: the checkpoint does not fit the config, or the file cannot be written.
    """
    checkpoint = load_checkpoint(checkpoint_path, NOT_TESTED)
    device = torch.device(device_name)
    loader = build_loader(config, seed=0, device=device_name)
    net = build_net(config, loader)
    load_weights(net, checkpoint["state_dict"], checkpoint_path)
    net.to(device).eval()
    path = _output(config, loader, output, published_format)
    made_by = {
        "experiment": config.name,
        "checkpoint": checkpoint_path.name,
        "checkpoint_sha256": _sha256(checkpoint_path),
        "epoch": checkpoint["epoch"],
        "seed": checkpoint.get("seed"),
        "split": config["data_loader.args.split_name"],
        "text_feat": config["experts.text_feat"],
    }
    queries = loader.training_queries()
    with torch.inference_mode():
        if published_format:
            write_published_teacher(path, published_videos(net, queries, device))
            write_json(path.with_suffix(".json"), made_by)
        else:
            dtype = np.dtype("<f2" if float16 else "<f4")
            _write(path, net, queries, device, made_by, dtype)
    return path


def _write(
    output: Path,
    net: nn.Module,
    queries: RetrievalSet,
    device: torch.device,
    made_by: dict[str, Any],
    dtype: np.dtype,
) -> None:
    video = embed_videos(net, queries, device)
    first = next(text_embeddings(net, queries, device, QUERIES_PER_BLOCK))
    sizes = [embedding.shape[1] for embedding in video.embeddings]
    shape = TeacherShape(
        ids=queries.video_ids,
        caption_counts=(queries.caption_indices >= 0).sum(axis=1),
        experts=_names(net, len(sizes)),
        sizes=sizes,
    )
    blocks = text_embeddings(net, queries, device, QUERIES_PER_BLOCK)
    write_teacher(
        output,
        shape,
        _joined(video),
        video.availability.cpu().numpy(),
        ((_joined(block), _numpy(block.weights)) for block in blocks),
        first.weights is not None,
        made_by,
        dtype,
    )


def text_embeddings(
    net: nn.Module, queries: RetrievalSet, device: torch.device, block_size: int
) -> Iterator[TextEmbeddings]:
    """Embed all captions that exist, those of a few videos at a time (about `block_size`)."""
    videos = max(1, block_size // queries.caption_indices.shape[1])
    total = -(-len(queries) // videos)
    batches = queries.text_blocks(videos)
    for batch in progress(batches, total=total, description="embedding captions"):
        text = net.encode_text(batch.text.to(device), batch.text_token_mask.to(device))
        exists = batch.query_masks.flatten().bool().to(device)
        weights = None if text.weights is None else text.weights[exists]
        yield TextEmbeddings(tuple(e[exists] for e in text.embeddings), weights)


def published_videos(
    net: nn.Module, queries: RetrievalSet, device: torch.device
) -> Iterator[tuple[str, PublishedVideo]]:
    """Give the videos as a published file holds them.

    The mixture weights are folded into the captions' embeddings and a missing expert's video
    embedding is zeros, so that the sum of inner products is the model's similarity wherever a
    video has all of its experts. (Where some are missing, it is too small: see our own format.)
    """
    video = embed_videos(net, queries, device).to(torch.device("cpu"))
    names = _names(net, len(video.embeddings))
    counts = (queries.caption_indices >= 0).sum(axis=1)
    row = 0
    for block in text_embeddings(net, queries, device, QUERIES_PER_BLOCK):
        texts = _weighted(block)
        start = 0
        while start < len(block):
            stop = start + counts[row]
            # A missing expert counts in the sum without weights, as it does in the model.
            present = video.availability[row] if block.weights is not None else [1.0] * len(names)
            yield (
                queries.video_ids[row],
                {
                    "vid_embds": {
                        name: _numpy(embedding[row] * present[place])
                        for place, (name, embedding) in enumerate(
                            zip(names, video.embeddings, strict=True)
                        )
                    },
                    "text_embds": {
                        name: text[start:stop] for name, text in zip(names, texts, strict=True)
                    },
                },
            )
            start, row = stop, row + 1


def _weighted(block: TextEmbeddings) -> list[np.ndarray]:
    if block.weights is None:
        return [_numpy(embedding) for embedding in block.embeddings]
    return [
        _numpy(embedding * weight.unsqueeze(1))
        for embedding, weight in zip(block.embeddings, block.weights.unbind(1), strict=True)
    ]


def _joined(side: TextEmbeddings | VideoEmbeddings) -> np.ndarray:
    return _numpy(torch.cat(side.embeddings, dim=1))


def _numpy(values: torch.Tensor | None) -> np.ndarray | None:
    if values is None:
        return None
    if not torch.isfinite(values).all():
        raise UserError(
            "The model gives embeddings that are not finite: its training has diverged; train it "
            "again with a lower optimizer.args.lr."
        )
    return values.cpu().numpy()


def _names(net: nn.Module, count: int) -> list[str]:
    """Names of the model's embeddings: its experts, or one name for a joint embedding."""
    names = list(getattr(net, "expert_dims", ()))
    return names if len(names) == count else [f"joint{place}" for place in range(count)]


def _output(
    config: Config, loader: ExpertDataLoader, output: str | None, published_format: bool
) -> Path:
    suffix = PUBLISHED_SUFFIX if published_format else SUFFIX
    path = loader.feature_folder / TEACHERS_FOLDER / f"{config.name}{suffix}"
    if output:
        path = Path(output)
    if published_format and path.suffix not in (".pkl", ".pickle"):
        raise UserError(f"A teacher in the published format is a .pkl file, not {path.name}.")
    make_folder(path.parent)
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
