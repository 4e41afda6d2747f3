"""The command: reads the flags, encodes, writes the features and their record."""

import argparse
import itertools
import json
import logging
import re
from pathlib import Path
from typing import Any

from logger.log_file import open_log
from logger.progress import progress
from misc.text_embeddings.captions import Captions, captions_of_dataset, read_all
from misc.text_embeddings.encoders import KNOWN, make_job
from misc.text_embeddings.encoding import as_type, chunk_bounds, encode_chunk
from misc.text_embeddings.hugging_face import POOLINGS, SPECIAL_TOKENS
from misc.text_embeddings.output import Parts, check_name, is_complete, record_path
from misc.text_embeddings.record import readable
from misc.text_embeddings.settings import Settings
from misc.text_embeddings.tokens import Job
from misc.tools import tool_parser
from utils.command_line import Parser, select_device
from utils.errors import UserError
from utils.files import make_folder, write_json

logger = logging.getLogger(__name__)

TYPES = ("float32", "float16")
INTERRUPTED = "the same command goes on where it stopped"


def main(arguments: list[str] | None = None) -> None:
    """Turn raw captions into a file of text features, or go on with one that was begun."""
    args = _parser().parse_args(arguments)
    settings = Settings(**{name: getattr(args, name) for name in Settings.__dataclass_fields__})
    if args.output.suffix != ".npz":
        raise UserError(f'--output {args.output} must end in ".npz".')
    check_name(record_path(args.output))
    with open_log(None):
        device = select_device(args.device)
        source = args.captions or captions_of_dataset(
            args.dataset, args.data_dir, args.root_feat_folder
        )
        captions = read_all(source)
        job = make_job(settings, captions)
        record = {
            "made_by": "misc/prepare_text_embeddings.py",
            "encoder": job.record,
            "size": job.size,
            "dtype": args.dtype,
            "captions": captions.record(),
            "vectors": int(job.rows.sum()),
            "device": device.partition(":")[0],
            "batch_tokens": args.batch_tokens,
        }
        record = readable(record)
        if is_complete(args.output, record):
            print(f"{args.output} is already complete.")
        else:
            _make(args.output, captions, job, record, device)
        print(_summary(args.output, captions, job))


def _parser() -> Parser:
    parser = tool_parser("prepare_text_embeddings", f"Known encoders: {', '.join(KNOWN)}.")
    parser.add_argument(
        "--encoder",
        required=True,
        metavar="NAME|PATH",
        help="a known encoder, a folder of a Hugging Face model, its name on the hub, or a file "
        "of word vectors",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--captions", type=Path, metavar="FILE", help="raw captions (.json or a published .pkl)"
    )
    source.add_argument(
        "--dataset", metavar="NAME|FOLDER", help="data set whose captions are taken instead"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--data_dir", type=Path, help="folder of a published data set")
    parser.add_argument(
        "--root_feat_folder",
        default="",
        metavar="NAME",
        help="its folder of features, as in configs",
    )
    parser.add_argument("--weights", type=Path, metavar="PATH", help="weights of a known encoder")
    parser.add_argument("--dictionary", type=Path, metavar="FILE", help="the words of MIL-NCE")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the hub")
    parser.add_argument(
        "--pooling",
        help=f"a vector for each token, or one for each caption: {', '.join(POOLINGS)} "
        '(default: tokens; "max" for MIL-NCE)',
    )
    parser.add_argument(
        "--layer", type=int, help="hidden states to take: 0 the embeddings, -1 the last (default)"
    )
    parser.add_argument(
        "--special_tokens",
        choices=SPECIAL_TOKENS,
        help="whether the tokens that a model adds ([CLS], </s>) count as words (default: keep)",
    )
    parser.add_argument(
        "--max_length", type=_positive, metavar="N", help="tokens of a caption that are read"
    )
    parser.add_argument("--dtype", choices=TYPES, default="float32", help="type of the values")
    parser.add_argument("--device", metavar="0", help="id of the GPU to use (default: the CPU)")
    parser.add_argument(
        "--batch_tokens", type=_positive, default=8192, metavar="N", help="tokens of a batch"
    )
    return parser


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f'a whole number of at least 1 was expected, not "{text}"')
    return int(text)


def _make(path: Path, captions: Captions, job: Job, record: dict[str, Any], device: str) -> None:
    make_folder(path.parent)
    rows = job.rows
    bounds = chunk_bounds(rows, job.size)
    chunks = list(itertools.pairwise(bounds))
    shapes = [(int(rows[first:last].sum()), job.size) for first, last in chunks]
    parts = Parts(path, shapes, record["dtype"])
    with parts.opened(record):
        missing = parts.missing()
        if len(missing) < len(chunks):
            logger.info(
                "Going on: %d of %d chunks are there", len(chunks) - len(missing), len(chunks)
            )
        _encode(parts, [(number, *chunks[number]) for number in missing], job, record, device)
        parts.assemble(captions.ids, captions.counts, rows)
        write_json(record_path(path), record)
        parts.remove()


def _encode(
    parts: Parts,
    chunks: list[tuple[int, int, int]],
    job: Job,
    record: dict[str, Any],
    device: str,
) -> None:
    offsets = job.tokens.offsets
    total = sum(int(offsets[last] - offsets[first]) for _, first, last in chunks)
    job.module.to(device)
    with progress(None, total=total, description="tokens") as bar:
        for number, first, last in chunks:
            values = encode_chunk(job, first, last, device, record["batch_tokens"], bar.update)
            try:
                values = as_type(values, record["dtype"])
            except UserError:
                # Going on would end here again.
                parts.remove()
                raise
            parts.write(number, values)


def _summary(path: Path, captions: Captions, job: Job) -> str:
    entry = {"file": path.name, "size": job.size}
    return (
        f"{len(captions.texts)} captions of {len(captions.ids)} videos, {int(job.rows.sum())} "
        f"vectors of size {job.size}: {path} ({path.stat().st_size / 1e6:.1f} MB), described in "
        f"{record_path(path).name}.\n"
        f'For "text_features" of a dataset.json: "{path.stem}": {json.dumps(entry)}'
    )
