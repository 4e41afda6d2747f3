"""What a rankings page says of its run: facts and curves, from the run's folder."""

from datetime import datetime
from pathlib import Path

from data_loader.retrieval_set import RetrievalSet
from logger.page.data import Curve
from model.similarity import RetrievalModel
from trainer.runs.folder import RunFolder
from utils.config import Config

_CURVES = {
    "geometric mean, validation": "val_t2v_metrics_geometric_mean_R1-R5-R10",
    "loss, training": "loss",
}


def facts_of(
    config: Config,
    folder: RunFolder,
    net: RetrievalModel,
    retrieval: RetrievalSet,
    checkpoint: Path | None = None,
    epoch: int | None = None,
) -> dict[str, str]:
    """Tell what was evaluated: name of a fact -> fact, in the order in which a page shows them.

    Args:
        config: of the evaluation.
        folder: of the run.
        net, retrieval: the model, and what it was evaluated on.
        checkpoint: the model's weights; None: those that are being trained.
        epoch: whose weights these are.
    """
    seed = folder.read_metrics().get("seed", folder.facts.get("seed"))
    weights = checkpoint.name if checkpoint else "in training"
    facts = {
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "run": folder.place.as_posix(),
        "config": config.name,
        "seed": "" if seed is None else str(seed),
        "checkpoint": weights if epoch is None else f"{weights}, epoch {epoch}",
        "data set": str(config.get("data_loader.args.dataset_name", "")),
        "split": str(config.get("data_loader.args.split_name", "")),
        "queries": str(retrieval.protocol(net.test_caption_mode)),
        "videos": str(len(retrieval)),
        "experts": ", ".join(net.expert_dims),
    }
    return {name: fact for name, fact in facts.items() if fact}


def curves_of(folder: RunFolder) -> list[Curve]:
    """The curves of a run's training so far; none where only tests were made."""
    epochs = folder.read_metrics().get("epochs", [])
    return [
        Curve(title, [(e["epoch"], e[key]) for e in epochs if _is_point(e, key)])
        for title, key in _CURVES.items()
    ]


def _is_point(record: dict, key: str) -> bool:
    return isinstance(record.get("epoch"), int) and isinstance(record.get(key), int | float)
