"""Ranks training captions by their teachers, and writes which of them stay."""

import pickle
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.formats.read import read_plain_mapping
from data_loader.retrieval_set import RetrievalSet
from data_loader.teachers.teacher import Teacher
from logger.progress import progress
from misc.teachtext import MASKS_FOLDER
from model.loss import aggregate_teachers
from model.ranks import ranks_in_rows
from model.similarity import similarity
from trainer.build import build_loader, open_teachers
from trainer.distillation import text_side, video_side
from utils.config import Config
from utils.errors import UserError, printable
from utils.files import make_folder, replacing, write_json

CAPTIONS_PER_BLOCK = 1024
TRUE_KIND = "true"


@dataclass(frozen=True)
class Ranked:
    """All training captions and the rank of their own video for the teachers.

    Attributes:
        video_ids: V training videos.
        videos: (Q,) place of each caption's video.
        captions: (Q,) which of the video's captions.
        ranks: (Q,) float64, 1-based, ties count the mean of the tied places.
    """

    video_ids: list[str]
    videos: np.ndarray
    captions: np.ndarray
    ranks: np.ndarray

    def masks(self, top_k: int) -> dict[str, np.ndarray]:
        """Return video -> (captions,) float32, 1 for captions that rank within the top K."""
        kept = (self.ranks <= top_k).astype(np.float32)
        ends = np.cumsum(np.bincount(self.videos, minlength=len(self.video_ids)))
        return dict(zip(self.video_ids, np.split(kept, ends[:-1]), strict=True))


def denoise(config: Config, args: Namespace, device: str) -> None:
    """Write which training captions stay, and say which fall.

    Args:
        config: of the data set and its teachers.
        args: the flags of misc/denoise_captions.py.
        device: where captions are ranked.

    Raises:
        UserError: data, teachers or the kinds of captions cannot be used.
    """
    loader = build_loader(config, seed=0, device=device)
    queries = loader.training_queries()
    ranked = rank_captions(queries, open_teachers(config, loader), args.aggregate, device)
    kinds = _kinds_of(Path(args.kinds), ranked) if args.kinds else None
    report = {
        "top_k": args.top_k,
        "aggregate": args.aggregate,
        "teachers": config["distil_params.teachers"],
        "split": config["data_loader.args.split_name"],
        **counts_of(ranked, args.top_k),
        "examples": examples(ranked, queries, args.top_k, args.examples),
    }
    if kinds is not None:
        report["against_kinds"] = against_kinds(ranked.ranks > args.top_k, kinds)
    folder = Path(args.output_dir) if args.output_dir else loader.feature_folder / MASKS_FOLDER
    _write(ranked.masks(args.top_k), report, folder, args.name or f"denoise-less{args.top_k}")


@torch.inference_mode()
def rank_captions(
    queries: RetrievalSet,
    teachers: Sequence[Teacher],
    aggregate: str = "mean",
    device: torch.device | str = "cpu",
) -> Ranked:
    """Rank each training caption's own video among all training videos, block by block."""
    videos, places = np.nonzero(queries.caption_indices >= 0)
    captions = queries.caption_indices[videos, places]
    everything = np.arange(len(queries))
    sides = [video_side(teacher, everything).to(device) for teacher in teachers]
    ranks = []
    starts = range(0, len(videos), CAPTIONS_PER_BLOCK)
    for start in progress(starts, description="ranking captions"):
        block = slice(start, start + CAPTIONS_PER_BLOCK)
        sims = aggregate_teachers(
            torch.stack(
                [
                    similarity(text_side(teacher, videos[block], captions[block]).to(device), side)
                    for teacher, side in zip(teachers, sides, strict=True)
                ]
            ),
            aggregate,
        )
        if not torch.isfinite(sims).all():
            raise UserError("A teacher has embeddings that are not finite: make it again.")
        own = torch.as_tensor(videos[block], device=sims.device).unsqueeze(1)
        ranks.append(ranks_in_rows(sims, sims.gather(1, own)).cpu().numpy())
    return Ranked(queries.video_ids, videos, captions, np.concatenate(ranks))


def _write(masks: dict[str, np.ndarray], report: dict[str, Any], folder: Path, name: str) -> None:
    kept_ids = [key for key, mask in masks.items() if mask.any()]
    if len(kept_ids) < 2:
        raise UserError(
            f"Only {len(kept_ids)} videos keep a caption within the top {report['top_k']}: choose "
            "a larger --top_k, or better teachers."
        )
    make_folder(folder)
    masks_path, list_path = folder / f"{name}.pkl", folder / f"{name}.txt"
    with replacing(masks_path) as handle:
        pickle.dump(masks, handle, protocol=4)
    with replacing(list_path, "w", encoding="utf-8") as handle:
        handle.writelines(f"{key}\n" for key in kept_ids)
    write_json(folder / f"{name}.json", report)
    _print(report)
    print(f"\ncaption_masks  {masks_path}\ntraining_file  {list_path}")
    print(f"report         {folder / f'{name}.json'}")


def counts_of(ranked: Ranked, top_k: int) -> dict[str, Any]:
    """How many captions and videos fall."""
    falls = ranked.ranks > top_k
    keeps = np.zeros(len(ranked.video_ids), dtype=bool)
    keeps[ranked.videos[~falls]] = True
    return {
        "captions": len(falls),
        "captions_left_out": int(falls.sum()),
        "videos": len(keeps),
        "videos_left_out": int((~keeps).sum()),
        "median_rank": float(np.median(ranked.ranks)),
    }


def examples(
    ranked: Ranked, queries: RetrievalSet, top_k: int, number: int
) -> list[dict[str, Any]]:
    """The captions that fall deepest, with their ranks."""
    texts = queries.captions
    worst = np.argsort(-ranked.ranks, kind="stable")[: max(0, number)]
    found = []
    for at in worst[ranked.ranks[worst] > top_k]:
        video, caption = int(ranked.videos[at]), int(ranked.captions[at])
        found.append(
            {
                "video": ranked.video_ids[video],
                "caption": caption,
                # Published sets have text features of captions whose texts they lack.
                "text": texts[video][caption] if caption < len(texts[video]) else "",
                "rank": float(ranked.ranks[at]),
            }
        )
    return found


def against_kinds(falls: np.ndarray, kinds: np.ndarray) -> dict[str, Any]:
    """Compare what falls (Q,) bool with what each caption is known to be (Q,) text.

    A caption of any other kind than "true" is noise and ought to fall.
    """
    noise = kinds != TRUE_KIND
    found = int((falls & noise).sum())
    totals, fallen = Counter(kinds.tolist()), Counter(kinds[falls].tolist())
    return {
        "precision": found / int(falls.sum()) if falls.any() else None,
        "recall": found / int(noise.sum()) if noise.any() else None,
        "by_kind": {
            kind: {"captions": count, "left_out": fallen[kind]}
            for kind, count in sorted(totals.items())
        },
    }


def _kinds_of(path: Path, ranked: Ranked) -> np.ndarray:
    table = read_plain_mapping(path, "caption kinds")
    kinds = []
    for video, caption in zip(ranked.videos, ranked.captions, strict=True):
        known = table.get(ranked.video_ids[video])
        if not isinstance(known, list) or caption >= len(known):
            raise UserError(
                f"{path} does not say what caption {caption} of the video "
                f'"{ranked.video_ids[video]}" is: a list of kinds, one for each caption, was '
                "expected."
            )
        kinds.append(str(known[caption]))
    return np.array(kinds)


def _print(report: dict[str, Any]) -> None:
    for what in ("captions", "videos"):
        total, out = report[what], report[f"{what}_left_out"]
        print(f"{out} of {total} training {what} are left out ({100 * out / total:.1f}%).")
    for example in report["examples"]:
        line = f"  rank {example['rank']:.0f}  {example['video']}  {example['text']}"
        print(printable(line))
    if "against_kinds" in report:
        found = report["against_kinds"]
        for kind, count in found["by_kind"].items():
            print(f"{printable(kind)}: {count['left_out']} of {count['captions']} are left out.")
        print(
            f"Of noise, precision {_share(found['precision'])}, recall {_share(found['recall'])}."
        )


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
