"""Builds an index of a trained model and a data set; adds videos to it, and removes some."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.loader import ExpertDataLoader
from data_loader.sets.declared import DeclaredInputs, ModelInputs
from data_loader.sets.description import DataDescription, find_description
from logger.progress import progress
from misc.build_index.encoder import check_encoder, text_side
from misc.build_index.hubs import CALIBRATED_CAPTIONS, KINDS, Calibration, Hubs, calibrate, stored
from misc.build_index.videos import ALL, Place, Videos
from misc.make_data_set import make_data_set
from misc.search.index import Index, IndexChange, Manifest, Shape, changing, write_part
from misc.search.model_folder import ModelFolder, write_model
from misc.search.queries import QueryEncoder, TextSide
from misc.text_embeddings.job import Settings
from model.similarity import RetrievalModel, VideoEmbeddings
from trainer.build import build_loader, build_net
from trainer.checkpoints.checkpoint import NOT_TESTED, load_checkpoint
from trainer.correction import (
    DEFAULT,
    CorrectionSettings,
    Searched,
    choose_rules,
    embed_bank,
)
from trainer.evaluation import compare, embed_videos, evaluating
from trainer.load import net_of
from trainer.runs.finding import config_of_checkpoint, find_checkpoint
from utils.command_line import version
from utils.config import Config
from utils.errors import UserError, listed, short
from utils.files import files_below

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
        device: where to compute.
    """

    output: Path | None = None
    data_set: str | None = None
    videos: str | None = None
    video_folder: Path | None = None
    encoder: Settings | None = None
    has_text: bool = True
    corrects: bool = True
    device: str = "cpu"


@dataclass(frozen=True)
class Model:
    """A model, from a checkpoint or from an index.

    Attributes:
        net: in evaluation mode, on its device.
        config: of its training.
        inputs: sizes of experts and captions.
        epoch: of the checkpoint.
    """

    net: RetrievalModel
    config: Config
    inputs: ModelInputs
    epoch: int | None = None

    @property
    def fingerprint(self) -> str:
        """What tells this model from any other: a hash of its weights and of how they are used."""
        found = hashlib.sha256(repr(sorted(self.net.expert_dims.items())).encode())
        arch = {key: self.config["arch"][key] for key in sorted(self.config["arch"])}
        found.update(repr((arch, self.inputs.max_text_tokens)).encode())
        for name, value in sorted(self.net.state_dict().items()):
            found.update(name.encode())
            found.update(value.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def splits(self) -> tuple[str, str]:
        """Names of the splits of validation and of test."""
        key = "data_loader.args.split_name"
        return self.config[key], self.config.eval_config()[key]

    def embed(self, videos: Videos, places: np.ndarray, device: torch.device) -> VideoEmbeddings:
        """Embed some videos of a data set; the embeddings lie on the CPU."""
        experts, ind = videos.gather(places)
        with torch.inference_mode(), evaluating(self.net):
            video = self.net.encode_video(
                {name: x.to(device) for name, x in experts.items()},
                {name: x.to(device) for name, x in ind.items()},
            )
        return video.to(torch.device("cpu"))


def build(source: Path, wishes: Wishes) -> str:
    """Build an index of a run or a checkpoint; returns what there is then, in words.

    Raises:
        UserError: the model, its data or its text encoder cannot be used, or the folder holds
            something else.
    """
    checkpoint = find_checkpoint(source)
    config = config_of_checkpoint(checkpoint)
    make_data_set(config.values)
    device = torch.device(wishes.device)
    loader = build_loader(config, seed=0, device=wishes.device)
    inputs = DeclaredInputs(loader.experts, loader.text_size, loader.max_text_tokens)
    content = load_checkpoint(checkpoint, NOT_TESTED, needs_config=False)
    net = net_of(content, checkpoint, config, inputs, device)
    model = Model(net, config, inputs, content["epoch"])
    description, asked = _data_set(wishes, loader.description)
    videos = Videos(Place.of(description, config), config, inputs, asked, model.splits())
    output = wishes.output or INDEX_FOLDER / config.name
    with changing(output) as change:
        folder = change.new("model")
        write_model(folder, net, config, inputs, model.epoch)
        manifest = Manifest(
            name=config.name,
            model=folder.name,
            fingerprint=model.fingerprint,
            shape=_shape(model, videos, device),
            parts=(),
            data_set=description.name,
            video_folder=_text(videos.video_folder(wishes.video_folder, config)),
            model_kind=config.name,
            made_by={
                "checkpoint": str(checkpoint),
                "epoch": model.epoch,
                "version": version(),
                "videos": asked,
            },
        )
        side = _text(None)
        if wishes.has_text:
            own = Place.of(loader.description, config)
            side = text_side(own, config["experts.text_feat"], inputs, folder, wishes.encoder)
        if side is not None:
            manifest = replace(manifest, text=asdict(side))
            _check_text(net, side, folder, loader, device)
        hubs = _hubs(model, loader, device) if wishes.corrects else None
        if hubs is not None:
            hubs.write(folder)
            manifest = replace(manifest, hubness=asdict(hubs.rule), correction=str(hubs.rule))
        manifest = _with_part(change, manifest, model, videos, wishes, hubs)
        calibration = _calibrated(change, manifest, model, loader, hubs, device)
        if calibration is not None:
            manifest = replace(
                manifest, threshold=calibration.threshold, calibration=asdict(calibration)
            )
        change.commit(manifest)
    return _summary(output, manifest, calibration)


def add(source: Path | None, output: Path, wishes: Wishes) -> str:
    """Add videos to an index; those that it has already are replaced.

    Args:
        source: a run or checkpoint, which must be of the index's own model; None: that one.
        output: folder of the index.
        wishes: which videos.

    Raises:
        UserError: the index is of another model, or the videos cannot be used.
    """
    device = torch.device(wishes.device)
    with changing(output) as change:
        before = change.before
        if before is None:
            raise UserError(f"There is no index in {output} to which videos could be added.")
        stored_model = ModelFolder(output / before.model, device)
        model = Model(stored_model.net, stored_model.config, stored_model.inputs)
        if source is not None:
            _check_same_model(source, model, before)
        name = wishes.data_set or model.config["data_loader.args.dataset_name"]
        description = find_description(name, None if wishes.data_set else _data_dir(model.config))
        videos = Videos(
            Place.of(description, model.config),
            model.config,
            model.inputs,
            wishes.videos or ALL,
            model.splits(),
        )
        hubs = Hubs.read(output / before.model, before.hubness) if before.hubness else None
        index = Index(output)
        replaced = [index.row_of[key] for key in videos.ids if key in index.row_of]
        manifest = replace(before, removed=tuple(sorted({*before.removed, *replaced})))
        manifest = _with_part(change, manifest, model, videos, wishes, hubs)
        change.commit(manifest)
    also = f", {len(replaced)} of them in place of older ones" if replaced else ""
    return f"Added {len(videos)} videos{also}.\n{_summary(output, manifest)}"


def remove(output: Path, ids: Sequence[str]) -> str:
    """Remove videos from an index.

    Raises:
        UserError: it has none of that id; nothing is removed then.
    """
    with changing(output) as change:
        if change.before is None:
            raise UserError(f"There is no index in {output}.")
        index = Index(output)
        unknown = [short(key) for key in ids if key not in index.row_of]
        if unknown:
            raise UserError(
                f"The index {output} has no video {listed(unknown)}: nothing was removed."
            )
        gone = {index.row_of[key] for key in ids}
        manifest = replace(change.before, removed=tuple(sorted({*change.before.removed, *gone})))
        change.commit(manifest)
    return f"Removed {len(gone)} videos.\n{_summary(output, manifest)}"


# Parts of it -------------------------------------------------------------------------------------


def _data_set(wishes: Wishes, own: DataDescription) -> tuple[DataDescription, str]:
    """Return the data set whose videos are wanted, and which of them."""
    if wishes.data_set is None:
        return own, wishes.videos or "test"
    return find_description(wishes.data_set), wishes.videos or ALL


def _data_dir(config: Config) -> str | None:
    found: str | None = config.get("data_loader.args.data_dir")
    return found


def _text(path: Path | None) -> Any:
    return None if path is None else str(path)


def _shape(model: Model, videos: Videos, device: torch.device) -> Shape:
    """Find out what the model's embeddings look like, by one video and one caption."""
    video = model.embed(videos, np.array([0]), device)
    width = 1 if model.inputs.max_text_tokens == 1 else model.inputs.max_text_tokens
    with torch.inference_mode(), evaluating(model.net):
        caption = torch.zeros(1, 1, width, model.inputs.text_size, device=device)
        text = model.net.encode_text(caption, torch.ones(1, 1, device=device))
    sizes = tuple(embedding.shape[1] for embedding in video.embeddings)
    return Shape(tuple(model.net.expert_dims), sizes, text.weights is not None)


def _check_text(
    net: RetrievalModel,
    side: TextSide,
    folder: Path,
    loader: ExpertDataLoader,
    device: torch.device,
) -> None:
    encoder = QueryEncoder(net, side, folder, device)
    check_encoder(encoder.features, loader.retrieval, side, loader.retrieval.captions)


def _hubs(model: Model, loader: ExpertDataLoader, device: torch.device) -> Hubs | None:
    """Measure hubs by training captions, corrected as is best for the validation split."""
    settings = CorrectionSettings(KINDS, seed=model.config.get("seed", 0))
    bank = embed_bank(model.net, loader, settings, device)
    if set(loader.retrieval.video_ids) <= set(loader.train.video_ids):
        rule = DEFAULT
    else:
        compared = compare(model.net, loader.retrieval, device)
        searched = Searched(model.net, loader.retrieval, bank, device, compared)
        rule, _ = choose_rules(searched, KINDS)
    if not rule.kind:
        _log.info("No correction of hubs finds more on the validation split: there is none.")
        return None
    return Hubs(rule, stored(list(bank.text.embeddings), bank.text.weights))


def _with_part(
    change: IndexChange,
    manifest: Manifest,
    model: Model,
    videos: Videos,
    wishes: Wishes,
    hubs: Hubs | None,
) -> Manifest:
    """Embed videos into a new part of the index, and return what the index is then."""
    device = torch.device(wishes.device)
    folder = change.new("part")
    base = None if manifest.video_folder is None else Path(manifest.video_folder)
    facts = videos.facts(base)
    with progress(None, total=len(videos), description="embedding videos") as bar:

        def embed(places: np.ndarray) -> VideoEmbeddings:
            bar.update(len(places))
            return model.embed(videos, places, device)

        availability = videos.availability
        write_part(folder, manifest.shape, videos.ids, facts, availability, embed, hubs)
    captions = [fact.captions[0] for fact in facts if fact.captions]
    return replace(
        manifest,
        parts=(*manifest.parts, folder.name),
        examples=manifest.examples
        or tuple(captions[:: max(1, len(captions) // _EXAMPLES)][:_EXAMPLES]),
    )


def _calibrated(
    change: IndexChange,
    manifest: Manifest,
    model: Model,
    loader: ExpertDataLoader,
    hubs: Hubs | None,
    device: torch.device,
) -> Calibration | None:
    """Calibrate when a match is confident, by captions of the validation split."""
    retrieval = loader.retrieval
    if model.net.test_caption_mode == "avg" or manifest.text is None:
        return None
    exists = np.flatnonzero(np.asarray(retrieval.query_masks).reshape(-1))
    step = max(1, -(-len(exists) // CALIBRATED_CAPTIONS))
    chosen = exists[::step]
    owners = chosen // retrieval.query_masks.shape[1]
    with torch.inference_mode(), evaluating(model.net):
        features, tokens = retrieval.queries(chosen)
        text = model.net.encode_text(features.to(device), tokens.to(device))
        video = embed_videos(model.net, retrieval, device).to(torch.device("cpu"))
    ids = [retrieval.video_ids[owner] for owner in owners]
    own = video[torch.from_numpy(owners)]
    text = text.to(torch.device("cpu"))
    return calibrate(Index(change.folder, manifest), text, ids, own, hubs)


def _check_same_model(source: Path, model: Model, before: Manifest) -> None:
    checkpoint = find_checkpoint(source)
    config = config_of_checkpoint(checkpoint)
    content = load_checkpoint(checkpoint, NOT_TESTED, needs_config=False)
    try:
        net = build_net(config, model.inputs)
        net.load_state_dict(content["state_dict"])
        found = Model(net, config, model.inputs).fingerprint
    except (UserError, RuntimeError):
        found = ""
    if found != before.fingerprint:
        raise UserError(
            f"The index is of another model than {checkpoint} ({before.made_by.get('checkpoint')}):"
            " what the two embed cannot be compared; build another index."
        )


def _summary(output: Path, manifest: Manifest, calibration: Calibration | None = None) -> str:
    index = Index(output)
    count = int(index.is_found.sum())
    size = sum(path.stat().st_size for path in files_below(output))
    patterns = len({group.pattern for group in index.groups})
    kinds = f"{patterns} pattern{'s' if patterns != 1 else ''} of experts"
    lines = [
        f"{count} videos of {manifest.data_set} by {manifest.model_kind}, {kinds}, "
        f"{size / 1e6:.1f} MB: {output}",
        f"Hubness correction: {manifest.correction}.",
    ]
    if calibration is not None:
        lines.append(f"Calibrated: {calibration}.")
    query = manifest.examples[0] if manifest.examples else "a sentence"
    if manifest.text is not None:
        lines.append(f'Search it: python3 -m misc.search {output} "{query}"')
    return "\n".join(lines)
