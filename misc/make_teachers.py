"""Make a teacher of a trained model: its embeddings of all training videos and captions.

python3 -m misc.make_teachers --resume data/saved/models/demo-train-full-ce

Name the file under `distil_params.teachers` of a student's config (see `data_loader.teachers.files`
for what it holds). Student and teacher may use different experts and text features; what counts is
that the data set has the same training videos with the same captions.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: the rooms lie in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import misc  # noqa: F401 (see there: Ctrl-C while the rest loads)

import hashlib
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from data_loader.loader import ExpertDataLoader
from data_loader.retrieval_set import RetrievalSet
from data_loader.teachers.files import TeacherShape, write_teacher
from data_loader.teachers.published import PublishedVideo, write_published_teacher
from logger.log_file import open_log
from logger.progress import progress
from misc.make_data_set import make_data_set
from misc.tools import tool_parser
from model.similarity import TextEmbeddings, VideoEmbeddings
from trainer.build import build_loader, build_net
from trainer.checkpoint import load_checkpoint, load_weights
from trainer.evaluation import QUERIES_PER_BLOCK, embed_videos
from trainer.finding import find_checkpoint
from trainer.session import config_of_checkpoint
from utils.command_line import Parser, run_main, select_device
from utils.config import Config
from utils.errors import UserError
from utils.files import make_folder, write_json

SUFFIX, PUBLISHED_SUFFIX = ".teacher", ".pkl"
FOLDER = "teachers"


def main(arguments: list[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    with open_log(None):
        checkpoint_path = find_checkpoint(Path(args.resume))
        if args.config:
            config = Config.from_file(args.config, args.custom_args)
        else:
            config = config_of_checkpoint(checkpoint_path, args.custom_args)
        # A teacher knows all training captions, whichever of them its own training left out.
        config = config.merged({"caption_masks": None, "training_file": None})
        make_data_set(config.values)
        device = torch.device(select_device(args.device))
        output = make_teacher(config, checkpoint_path, args, device)
    print(f"Made from {checkpoint_path}.")
    print(f"The teacher is {output} ({output.stat().st_size / 1e6:.1f} MB).")
    print(f'Name it in a student\'s config: "distil_params": {{"teachers": ["{output}"]}}.')


def make_teacher(
    config: Config, checkpoint_path: Path, args: Namespace, device: torch.device
) -> Path:
    """Embed the training set of a config with a trained model; returns the file.

    Raises:
        UserError: the checkpoint does not fit the config, or the file cannot be written.
    """
    checkpoint = load_checkpoint(checkpoint_path, leave_out=("optimizer",))
    loader = build_loader(config, seed=0, device=str(device))
    net = build_net(config, loader)
    load_weights(net, checkpoint["state_dict"], checkpoint_path)
    net.to(device).eval()
    output = _output(config, loader, args)
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
        if args.published_format:
            write_published_teacher(output, published_videos(net, queries, device))
            write_json(output.with_suffix(".json"), made_by)
        else:
            dtype = np.dtype("<f2" if args.float16 else "<f4")
            _write(output, net, queries, device, made_by, dtype)
    return output


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


def _output(config: Config, loader: ExpertDataLoader, args: Namespace) -> Path:
    if args.output:
        output = Path(args.output)
    else:
        suffix = PUBLISHED_SUFFIX if args.published_format else SUFFIX
        output = loader.feature_folder / FOLDER / f"{config.name}{suffix}"
    if args.published_format and output.suffix not in (".pkl", ".pickle"):
        raise UserError(f"A teacher in the published format is a .pkl file, not {output.name}.")
    make_folder(output.parent)
    return output


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _parser() -> Parser:
    parser = tool_parser("make_teachers")
    parser.add_argument(
        "--resume",
        metavar="PATH",
        required=True,
        help="the trained model, its run's folder, or an experiment's: the newest that is finished",
    )
    parser.add_argument(
        "--config", metavar="PATH", help="config file; without it, that beside --resume"
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        help=f"the file (default: {FOLDER}/<experiment>{SUFFIX} in the data set's folder)",
    )
    parser.add_argument("--device", metavar="0", help="id of the GPU to use (default: the CPU)")
    parser.add_argument(
        "--custom_args", metavar="KEY@VALUE+...", help="values to replace in the config"
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--float16", action="store_true", help="store half precision: half the size"
    )
    precision.add_argument(
        "--published_format",
        action="store_true",
        help="write the pickle that the published system reads; not exact where experts are "
        "missing",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
