"""Makes a data set of its own: a few videos with random experts that their captions speak of."""

import json
from pathlib import Path

import numpy as np

WORDS = ["cat", "dog", "car", "boat", "runs", "jumps", "sings", "sleeps", "red", "blue", "old"]
WORD_SIZE = 12
SPLITS = {"train": range(24), "val": range(24, 32), "test": range(32, 44)}


def make_tiny_set(folder: Path, seed: int = 0) -> Path:
    """Write `dataset.json`, features, captions and word vectors; returns the folder.

    `look` is there for every video, `sound` (variable length) for most of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    vectors = {word: rng.standard_normal(WORD_SIZE).astype("<f4") for word in WORDS}
    write_word_vectors(folder / "words.bin", vectors)
    ids = [f"clip{n}" for n in range(44)]
    captions = {i: [" ".join(rng.choice(WORDS, 3)) for _ in range(3)] for i in ids}
    meaning = {i: np.mean([vectors[w] for w in " ".join(captions[i]).split()], axis=0) for i in ids}

    def noisy(video: str, shape: tuple[int, ...]) -> np.ndarray:
        return meaning[video] + 0.3 * rng.standard_normal((*shape, WORD_SIZE))

    look = np.stack([noisy(i, ()) for i in ids]).astype(np.float32)
    np.savez(folder / "look.npz", ids=np.array(ids), feats=look)
    heard = [i for n, i in enumerate(ids) if n % 5]
    sounds = [noisy(i, (int(rng.integers(1, 6)),)).astype(np.float32) for i in heard]
    offsets = np.cumsum([0] + [len(s) for s in sounds])
    np.savez(
        folder / "sound.npz", ids=np.array(heard), feats=np.concatenate(sounds), offsets=offsets
    )
    write_json(folder / "captions.json", captions)
    write_json(folder / "splits.json", {k: [ids[n] for n in v] for k, v in SPLITS.items()})
    write_json(folder / "dataset.json", description())
    return folder


def description() -> dict:
    def split(name: str) -> dict:
        return {"file": "splits.json", "key": name}

    return {
        "name": "tiny",
        "experts": {
            "look": {"file": "look.npz", "size": WORD_SIZE},
            "sound": {"file": "sound.npz", "size": WORD_SIZE, "variable_length": True},
        },
        "captions": "captions.json",
        "text_features": {"words": {"word_vectors": "words.bin", "size": WORD_SIZE}},
        "splits": {
            "full-val": {"train": split("train"), "val": split("val")},
            "full-test": {"train": split("train"), "val": split("test")},
        },
    }


def tiny_config(data: Path, save_dir: Path) -> dict:
    """A config that trains on the tiny set in a second."""
    return {
        "seed": 0,
        "arch": {
            "type": "CENet",
            "args": {"use_ce": "pairwise", "vlad_clusters": {"text": 2, "sound": 2}},
        },
        "experts": {
            "modalities": ["look", "sound"],
            "text_feat": "words",
            "text_agg": "vlad",
            "ce_shared_dim": 8,
        },
        "data_loader": {
            "type": "ExpertDataLoader",
            "args": {
                "dataset_name": str(data),
                "split_name": "full-val",
                "batch_size": 8,
                "max_tokens": {"text": 6, "sound": 4},
                "num_test_captions": 1,
            },
        },
        "loss": {"type": "MaxMarginRankingLoss", "args": {"margin": 0.2}},
        "optimizer": {"type": "Ranger", "args": {"lr": 0.01}},
        "lr_scheduler": {"type": "StepLR", "args": {"step_size": 1, "gamma": 0.95}},
        "metrics": ["t2v_metrics", "v2t_metrics"],
        "trainer": {
            "epochs": 3,
            "monitor": "max val_t2v_metrics_geometric_mean_R1-R5-R10",
            "save_dir": str(save_dir),
            "save_only_best": False,
            "save_period": 1,
        },
        "eval_settings": {"data_loader": {"args": {"split_name": "full-test"}}},
        "visualizer": {"type": "Visualizer", "args": {"num_samples": 5}},
    }


def write_word_vectors(path: Path, vectors: dict[str, np.ndarray]) -> None:
    """The binary word2vec format."""
    with path.open("wb") as handle:
        handle.write(f"{len(vectors)} {WORD_SIZE}\n".encode())
        for word, vector in vectors.items():
            handle.write(word.encode() + b" " + vector.astype("<f4").tobytes() + b"\n")


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
