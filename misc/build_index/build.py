"""Builds an index of a trained model and a data set; adds videos to it, and removes some."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.loader import ExpertDataLoader
from data_loader.sets.description import find_description
from logger.progress import progress
from misc.build_index.compacting import compacted
from misc.build_index.encoder import check_encoder, text_side
from misc.build_index.facts import facts_of
from misc.build_index.hubs import Calibration, Hubs, calibrate, measure_hubs
from misc.build_index.source import Source, Trained, extractors_of
from misc.build_index.videos import ALL, Place, Videos, check_list
from misc.build_index.zero_shot import ZeroShot
from misc.search.approximate import recall, write_graphs
from misc.search.index.changing import IndexChange, changing, check_place
from misc.search.index.folder import Index
from misc.search.index.manifest import Manifest
from misc.search.index.parts import VideoPart
from misc.search.index.writing import write_part
from misc.search.model_folder import ModelFolder
from misc.search.queries import QueryEncoder, TextSide
from misc.text_embeddings.job import Settings
from model.similarity import VideoEmbeddings
from trainer.runs.finding import config_of_checkpoint, find_checkpoint
from utils.command_line import version
from utils.errors import UserError, listed, short
from utils.files import files_below, is_there

_log = logging.getLogger(__name__)

INDEX_FOLDER = Path("data/index")
_EXAMPLES = 8


@dataclass(frozen=True)
class Wishes:
    """What a command line asks for.

    Attributes:
        output: folder of the index; None: `data/index/<experiment>`.
        data_set: a published name or a folder; None: that of the training.
        videos: a list's name or a file; None: those of the test split of the training's data set,
            all of another one.
        video_folder: where the videos lie; None: where config or data set say.
        encoder: the text encoder; None: what the data set records.
        has_text: whether sentences are to be answered.
        corrects: whether hubs are corrected.
        approximate: whether there are graphs for a faster search, which misses some videos.
        device: where to compute.
    """

    output: Path | None = None
    data_set: str | None = None
    videos: str | None = None
    video_folder: Path | None = None
    encoder: Settings | None = None
    has_text: bool = True
    corrects: bool = True
    approximate: bool = False
    device: str = "cpu"


def build(path: Path, wishes: Wishes) -> str:
    """Build an index of a run or a checkpoint; returns what there is then, in words.

    Raises:
        UserError: the model, its data or its text encoder cannot be used, or the folder holds
            something else.
    """
    # All that can be refused before data are opened, which may take minutes.
    asked = wishes.videos or ("test" if wishes.data_set is None else ALL)
    _check(wishes, asked)
    other = None if wishes.data_set is None else find_description(wishes.data_set)
    checkpoint = find_checkpoint(path)
    config = config_of_checkpoint(checkpoint)
    output = wishes.output or INDEX_FOLDER / config.name
    check_place(output)
    source, loader = Trained.of_checkpoint(checkpoint, config, torch.device(wishes.device))
    videos = source.videos(other or loader.description, asked)
    made_by = {"checkpoint": str(source.checkpoint), "epoch": source.epoch, "videos": asked}
    with changing(output) as change:
        folder = change.new("model")
        source.write(folder)
        manifest = _manifest(source, videos, folder, made_by)
        side = _text_side(source, loader, folder, wishes) if wishes.has_text else None
        if side is not None:
            manifest = replace(manifest, text=asdict(side))
        hubs = measure_hubs(source, loader) if wishes.corrects else None
        if hubs is not None:
            hubs.write(folder)
            manifest = replace(manifest, hubness=asdict(hubs.rule), correction=str(hubs.rule))
        manifest = _with_part(change, manifest, source, videos, wishes, hubs)
        manifest, calibration = _measured(change, manifest, source, loader, hubs)
        change.commit(manifest)
    return _summary(output, manifest, calibration)


def build_zero_shot(path: Path, wishes: Wishes) -> str:
    """Build an index straight from a data set, without any training; returns what there is then.

    Raises:
        UserError: nothing of the data set can be compared with a sentence, or as `build`.
    """
    asked = wishes.videos or ALL
    _check(wishes, asked)
    description = find_description(str(path))
    output = wishes.output or INDEX_FOLDER / description.name
    check_place(output)
    source = ZeroShot.of(description, wishes.encoder, wishes.device)
    videos = source.videos(description, asked)
    with changing(output) as change:
        folder = change.new("model")
        source.write(folder)
        made_by = {"videos": asked}
        manifest = replace(_manifest(source, videos, folder, made_by), text=source.text)
        manifest = _with_part(change, manifest, source, videos, wishes, None)
        change.commit(manifest)
    return _summary(output, manifest)


def add(path: Path | None, output: Path, wishes: Wishes) -> str:
    """Add videos to an index; those that it has already are replaced.

    Args:
        path: a run or checkpoint, which must be of the index's own model; None: that one.
        output: folder of the index.
        wishes: which videos.

    Raises:
        UserError: the index is of another model, or the videos cannot be used.
    """
    asked = wishes.videos or ALL
    _check(wishes, asked)
    if wishes.data_set is None:
        raise UserError("Say whose videos are to be added: --dataset NAME or folder.")
    description = find_description(wishes.data_set)
    Manifest.read(output)  # or a folder would be made for nothing
    with changing(output) as change:
        before = Manifest.read(output)
        source = _source_of(output, before, wishes.device)
        if path is not None and not (isinstance(source, Trained) and source.is_same_as(path)):
            raise UserError(
                f"The index {output} is of another model than {path} "
                f"({before.made_by.get('checkpoint', before.model_kind)}): what the two embed "
                "cannot be compared; build another index."
            )
        videos = source.videos(description, asked)
        hubs = Hubs.read(output / before.model, before.hubness) if before.hubness else None
        known = Index(output).row_of
        replaced = [known[key] for key in videos.ids if key in known]
        manifest = replace(before, removed=tuple(sorted({*before.removed, *replaced})))
        has_graphs = replace(wishes, approximate=before.approximate is not None)
        manifest = _with_part(change, manifest, source, videos, has_graphs, hubs)
        manifest = compacted(change, manifest)
        change.commit(manifest)
    also = f", {len(replaced)} of them in place of older ones" if replaced else ""
    return f"Added {len(videos)} videos{also}.\n{_summary(output, manifest)}"


def remove(output: Path, ids: Sequence[str]) -> str:
    """Remove videos from an index.

    Raises:
        UserError: it has none of that id; nothing is removed then.
    """
    Manifest.read(output)  # or a folder would be made for nothing
    with changing(output) as change:
        before, known = Manifest.read(output), Index(output).row_of
        unknown = [short(key) for key in ids if key not in known]
        if unknown:
            raise UserError(
                f"The index {output} has no video {listed(unknown)}: nothing was removed."
            )
        gone = {known[key] for key in ids}
        manifest = replace(before, removed=tuple(sorted({*before.removed, *gone})))
        manifest = compacted(change, manifest)
        change.commit(manifest)
    return f"Removed {len(gone)} videos.\n{_summary(output, manifest)}"


# Parts of it -------------------------------------------------------------------------------------


def _check(wishes: Wishes, asked: str) -> None:
    """Refuse what is not there, before anything is loaded."""
    check_list(asked)
    folder = wishes.video_folder
    if folder is not None and not is_there(folder, Path.is_dir):
        raise UserError(f"There is no folder {folder}, where the videos are said to lie.")


def _source_of(output: Path, manifest: Manifest, device: str) -> Source:
    folder = output / manifest.model
    if manifest.text is not None and "towers" in manifest.text:
        return ZeroShot.of_index(manifest, folder, device)
    place = torch.device(device)
    return Trained.of_index(ModelFolder(folder, place), place)


def _manifest(source: Source, videos: Videos, folder: Path, made_by: dict[str, Any]) -> Manifest:
    shape, description = source.shape, videos.place.description
    return Manifest(
        name=source.name,
        model=folder.name,
        fingerprint=source.fingerprint,
        shape=shape,
        parts=(),
        data_set=description.name,
        model_kind=source.kind,
        extractors=extractors_of(description, shape.experts),
        made_by={"version": version(), **made_by},
    )


def _text_side(
    source: Trained, loader: ExpertDataLoader, folder: Path, wishes: Wishes
) -> TextSide | None:
    place = Place.of(loader.description, source.config["data_loader.args"])
    name = source.config["experts.text_feat"]
    average = source.config["experts"].get("text_agg") == "avg"
    texts = [text for captions in loader.retrieval.captions for text in captions]
    side = text_side(place, name, source.inputs, average, texts, folder, wishes.encoder)
    if side is not None:
        encoder = QueryEncoder(source.net, side, folder, source.device)
        check_encoder(encoder.features, loader.retrieval, side)
    return side


def _with_part(
    change: IndexChange,
    manifest: Manifest,
    source: Source,
    videos: Videos,
    wishes: Wishes,
    hubs: Hubs | None,
) -> Manifest:
    """Embed videos into a new part of the index, and return what the index is then."""
    folder = change.new("part")
    usual = _usual_videos(source)
    base, facts = facts_of(videos.place.store, videos.ids, wishes.video_folder, usual)
    with progress(None, total=len(videos), description="embedding videos") as bar:

        def embed(places: np.ndarray) -> VideoEmbeddings:
            bar.update(len(places))
            return source.embed(videos, places)

        write_part(folder, manifest.shape, videos.ids, facts, videos.availability, embed, hubs)
    if wishes.approximate:
        count = write_graphs(folder, VideoPart(folder, 0, manifest.shape))
        _log.info("%d patterns of experts have a graph; the others have few videos.", count)
    captions = [fact.captions[0] for fact in facts if fact.captions]
    some = captions[:: max(1, len(captions) // _EXAMPLES)][:_EXAMPLES]
    return replace(
        manifest,
        parts=(*manifest.parts, folder.name),
        data_sets=(*manifest.sets, videos.place.description.name),
        video_folders=(*manifest.video_folders, None if base is None else str(base)),
        examples=manifest.examples or tuple(some),
        approximate=manifest.approximate or ({} if wishes.approximate else None),
    )


def _usual_videos(source: Source) -> Path | None:
    folder = None
    if isinstance(source, Trained):
        folder = source.config.get("visualizer.args.src_video_dir")
    return Path(folder) if folder else None


def _measured(
    change: IndexChange,
    manifest: Manifest,
    source: Trained,
    loader: ExpertDataLoader,
    hubs: Hubs | None,
) -> tuple[Manifest, Calibration | None]:
    """Calibrate, by validation captions, when a match is confident and what graphs miss."""
    asked = source.validation(loader)
    if asked is None:
        return manifest, None
    index = Index(change.folder, manifest)
    calibration = calibrate(index, *asked, hubs)
    if calibration is not None:
        manifest = replace(
            manifest, threshold=calibration.threshold, calibration=asdict(calibration)
        )
    if manifest.approximate is not None:
        manifest = replace(manifest, approximate=recall(index, asked[0]))
    return manifest, calibration


def _summary(output: Path, manifest: Manifest, calibration: Calibration | None = None) -> str:
    index = Index(output)
    count = int(index.is_found.sum())
    size = sum(path.stat().st_size for path in files_below(output))
    patterns = len({group.pattern for group in index.groups})
    kinds = f"{patterns} pattern{'s' if patterns != 1 else ''} of experts"
    lines = [
        f"{count} videos of {manifest.whose} by {manifest.model_kind}, {kinds}, "
        f"{size / 1e6:.1f} MB: {output}",
        f"Hubness correction: {manifest.correction}.",
    ]
    if manifest.removed:
        lines.append(
            f"Removed videos that still take space: {len(manifest.removed)}; it is freed once half "
            "of those that were added together are removed."
        )
    if calibration is not None:
        lines.append(f"Calibrated: {calibration}.")
    if manifest.approximate:
        lines.append(
            "Approximate: of the {k} best of {queries} validation captions it finds "
            "{recall:.3f}.".format(**manifest.approximate)
        )
    query = manifest.examples[0] if manifest.examples else "a sentence"
    if manifest.text is not None:
        lines.append(f"Search it: python3 -m misc.search {output} {json.dumps(query)}")
    return "\n".join(lines)
