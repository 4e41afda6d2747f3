"""Peculiarities of published data sets, on small sets in their layout."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_loader.loader import ExpertDataLoader
from data_loader.sets.declared import LoaderSettings
from utils.errors import UserError

HQ = "high-quality/structured-symlinks"
PLAIN = "structured-symlinks"
TEXT_SIZE = 768
FACE_SIZE = 4
FACE_FILES = {
    "MSVD": "aggregated_face_feats/face-avg.pickle",
    "MSRVTT": "aggregated_face_feats/facefeats-avg.pickle",
    "ActivityNet": "aggregated_facefeats_25fps_256px_stride1/face-avg.pickle",
    "DiDeMo": "aggregated_facefeats_25fps_256px_stride1/face-avg.pickle",
}


class PublishedSet:
    """A folder in the layout of a published set: one face feature a video, and captions."""

    def __init__(self, root: Path, name: str, seed: int = 0) -> None:
        self.root, self.name = root, name
        self._rng = np.random.default_rng(seed)

    def write(self, folder: str, file: str, value: Any) -> Path:
        path = self.root / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".txt"):
            path.write_text("\n".join(value) + "\n")
        else:
            path.write_bytes(pickle.dumps(value))
        return path

    def faces(self, folder: str, ids: list[str]) -> None:
        table = {key: self._rng.standard_normal(FACE_SIZE).astype(np.float32) for key in ids}
        self.write(folder, FACE_FILES[self.name], table)

    def text(self, ids: list[str], captions: int = 2) -> dict[str, list[np.ndarray]]:
        return {
            key: [
                self._rng.standard_normal((3, TEXT_SIZE)).astype(np.float32)
                for _ in range(captions)
            ]
            for key in ids
        }

    def raw(self, folder: str, ids: list[str], file: str = "raw-captions.pkl") -> None:
        self.write(folder, file, {key: [[key, "one"], [key, "two"]] for key in ids})

    def loader(self, **changes: Any) -> ExpertDataLoader:
        arguments = {
            "data_dir": str(self.root),
            "dataset_name": self.name,
            "batch_size": 2,
            "root_feat_folder": HQ,
            "max_tokens": {"text": 3},
            "modalities": ["face"],
            "text_feat": "openai",
            "face_dim": FACE_SIZE,
        }
        return ExpertDataLoader(LoaderSettings(**{**arguments, **changes}))


def first_captions(loader: ExpertDataLoader) -> dict[str, torch.Tensor]:
    """Video -> the words of its first query."""
    [block] = loader.retrieval.text_blocks(100)
    return dict(zip(loader.retrieval.video_ids, block.text[:, 0], strict=True))


@pytest.fixture
def msvd(tmp_path: Path) -> PublishedSet:
    """MSVD, with its text features in three files that number the videos."""
    made = PublishedSet(tmp_path, "MSVD")
    lists = {"train": ["a_1_2", "b_1_2"], "val": ["c_3_4"], "test": ["d_5_6", "e_5_6"]}
    ids = [key for keys in lists.values() for key in keys]
    made.number = {key: f"vid{at}" for at, key in enumerate(ids)}
    made.features = made.text(ids)
    made.faces(HQ, ids)
    made.raw(HQ, ids)
    for name, keys in lists.items():
        made.write(HQ, f"{name}_list.txt", keys)
        part = {made.number[key]: made.features[key] for key in keys}
        made.write(PLAIN, f"aggregated_text_feats/openai-caption-{name}.pkl", part)
    made.write(PLAIN, "dict_youtube_mapping.pkl", made.number)
    return made


def test_msvd_text_in_parts_with_ids_of_their_own(msvd: PublishedSet) -> None:
    loader = msvd.loader(split_name="official")
    found = first_captions(loader)
    assert list(found) == ["d_5_6", "e_5_6"]
    for key, words in found.items():
        np.testing.assert_array_equal(words.numpy(), msvd.features[key][0])
    assert loader.train.video_ids == ["a_1_2", "b_1_2"]
    assert list(first_captions(msvd.loader(split_name="dev"))) == ["c_3_4"]


def test_msvd_text_in_one_file_is_preferred_in_its_folder(msvd: PublishedSet) -> None:
    whole = msvd.text(list(msvd.number))
    msvd.write(HQ, "aggregated_text_feats/openai.pkl", whole)
    for key, words in first_captions(msvd.loader(split_name="official")).items():
        np.testing.assert_array_equal(words.numpy(), whole[key][0])


def test_msvd_lacks_a_part(msvd: PublishedSet) -> None:
    (msvd.root / PLAIN / "aggregated_text_feats/openai-caption-val.pkl").unlink()
    with pytest.raises(UserError) as error:
        msvd.loader(split_name="official")
    for file in ("openai.pkl", "openai-caption-val.pkl", "sync_experts.py --dataset MSVD"):
        assert file in str(error.value)


def test_msvd_lacks_the_mapping_or_a_video_of_it(msvd: PublishedSet) -> None:
    del msvd.number["e_5_6"]
    msvd.write(PLAIN, "dict_youtube_mapping.pkl", msvd.number)
    with pytest.raises(UserError, match=r'dict_youtube_mapping\.pkl.*"vid4"'):
        msvd.loader(split_name="official")
    (msvd.root / PLAIN / "dict_youtube_mapping.pkl").unlink()
    with pytest.raises(UserError, match=r"dict_youtube_mapping"):
        msvd.loader(split_name="official")


def test_a_changed_mapping_is_noticed(msvd: PublishedSet) -> None:
    first_captions(msvd.loader(split_name="official"))
    msvd.number["d_5_6"], msvd.number["e_5_6"] = msvd.number["e_5_6"], msvd.number["d_5_6"]
    msvd.write(PLAIN, "dict_youtube_mapping.pkl", dict(reversed(msvd.number.items())))
    found = first_captions(msvd.loader(split_name="official"))
    np.testing.assert_array_equal(found["d_5_6"].numpy(), msvd.features["e_5_6"][0])


def test_activity_net_text_in_two_files_with_captions_joined(tmp_path: Path) -> None:
    made = PublishedSet(tmp_path, "ActivityNet")
    train, val = ["v_a", "v_b"], ["v_c", "v_d"]
    made.faces(PLAIN, train + val)
    made.raw(PLAIN, train + val, "raw-captions-train-val_1.pkl")
    made.write(PLAIN, "train_list.txt", train)
    made.write(PLAIN, "val_1_list.txt", val)
    features = made.text(train + val)
    for name, keys in (("train", train), ("val1", val)):
        part = {key: features[key] for key in keys}
        made.write(PLAIN, f"aggregated_text_feats/openai-{name}.pkl", part)
    loader = made.loader(split_name="val1", fuse_captions=True, max_tokens={"text": 9})
    for key, words in first_captions(loader).items():
        np.testing.assert_array_equal(words[:6].numpy(), np.concatenate(features[key]))
        assert not words[6:].any()


def test_didemo_lists_name_files(tmp_path: Path) -> None:
    made = PublishedSet(tmp_path, "DiDeMo")
    ids = ["10@N1_a", "11@N1_b", "12@N2_c", "13@N2_d"]
    made.faces(HQ, ids)
    made.raw(HQ, ids)
    made.write(HQ, "train_list.txt", [f"{ids[0]}.mp4", f"{ids[1]}.mov"])
    made.write(HQ, "val_list.txt", [f"{ids[2]}.avi", f"{ids[3]}.mov.mp4"])
    features = made.text(ids)
    made.write(HQ, "aggregated_text_feats/openai-feats.pkl", features)
    loader = made.loader(split_name="val")
    assert loader.train.video_ids == ids[:2]
    assert loader.retrieval.video_ids == ids[2:]
    made.write(HQ, "val_list.txt", [f"{ids[2]}.avi", f"{ids[2]}.mov"])
    with pytest.raises(UserError, match=r'val_list\.txt.*"12@N2_c" twice'):
        made.loader(split_name="val")


def test_the_test_phase_of_a_challenge_reads_its_own_folder(tmp_path: Path) -> None:
    made = PublishedSet(tmp_path, "MSRVTT")
    first, second = "challenge-release-1", "challenge-release-2"
    train, val, test = ["a", "b", "c"], ["d"], ["e", "f"]
    made.faces(first, train + val + test)
    made.raw(first, train + val)
    made.raw(second, test)
    known, hidden = made.text(train + val), made.text(test)
    made.write(first, "aggregated_text_feats/openai.pickle", known)
    made.write(second, "aggregated_text_feats/openai.pickle", hidden)
    made.write(first, "train_list.txt", train)
    made.write(first, "public_server_val.txt", val)
    made.write(second, "public_server_test.txt", test)
    folders = {"root_feat_folder": first, "challenge_test_root_feat_folder": second}
    loader = made.loader(split_name="public_server_test", **folders)
    assert loader.train.video_ids == train
    assert loader.retrieval.video_ids == test
    assert loader.retrieval.captions == [["e one"], ["f one"]]
    for key, words in first_captions(loader).items():
        np.testing.assert_array_equal(words.numpy(), hidden[key][0])
    [block] = loader.retrieval.video_blocks(10)
    assert block.ind["face"].tolist() == [1, 1]
    loader = made.loader(split_name="public_server_val", **folders)
    np.testing.assert_array_equal(first_captions(loader)["d"].numpy(), known["d"][0])
    with pytest.raises(UserError, match=r"public_server_test\.txt"):
        made.loader(split_name="public_server_test", root_feat_folder=first)


def test_tokens_are_averaged_where_the_config_says_so(msvd: PublishedSet) -> None:
    rng = np.random.default_rng(1)
    tokens = {
        "d_5_6": rng.standard_normal((5, 300)).astype(np.float32),
        "e_5_6": float("nan"),
        "a_1_2": rng.standard_normal((1, 300)).astype(np.float32),
    }
    msvd.write(HQ, "aggregated_ocr_feats/ocr-w2v.pickle", tokens)
    settings = {"split_name": "official", "modalities": ["ocr"]}
    for temporal in ("avg", "vlad"):
        loader = msvd.loader(
            **settings,
            feat_aggregation={"ocr": {"temporal": temporal}},
            max_tokens={"text": 3, "ocr": 6},
        )
        [block] = loader.retrieval.video_blocks(10)
        assert block.ind["ocr"].tolist() == [1, 0]
        found = block.experts["ocr"].numpy()
        if temporal == "avg":
            expected = tokens["d_5_6"].mean(axis=0)
            np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-7)
        else:
            np.testing.assert_array_equal(found[0, :5], tokens["d_5_6"])
        assert not found[1].any()
    with pytest.raises(UserError, match="5 vectors"):
        msvd.loader(**settings, feat_aggregation={"ocr": {"temporal": "max"}})
