"""Batches and retrieval sets: compared with the published system's arrays and with slow twins."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loader import loader as loader_module
from data_loader.batches import item_uniform
from data_loader.loader import ExpertDataLoader
from data_loader.sets.declared import LoaderSettings
from data_loader.store.feature_store import gather_rows, gather_tokens
from tests.conftest import SHARED
from tests.own_data import OwnData
from trainer.build import build_loader
from utils.config import Config
from utils.errors import UserError

CE_EXPERTS = [
    *("audio", "face", "i3d.i3d.0", "imagenet.resnext101_32x48d.0", "imagenet.senet154.0"),
    *("ocr", "r2p1d.r2p1d-ig65m.0", "scene.densenet161.0", "speech"),
]
TEACHTEXT = {
    "modalities": [
        *("scene.densenet161.0", "speech", "audio", "r2p1d.r2p1d-ig65m-kinetics.0"),
        *("imagenet.senet154.0", "r2p1d.r2p1d-ig65m.0", "imagenet.resnext101_32x48d.0"),
    ],
    "text_feat": "gpt2-xl-finetune",
}


def padded(values: np.ndarray | None, width: int, size: int) -> np.ndarray:
    """Cut or zero-pad (tokens, size) by a double loop."""
    result = np.zeros((width, size), dtype=np.float32)
    for row in range(0 if values is None else min(width, len(values))):
        for column in range(size):
            result[row, column] = values[row, column]
    return result


# --- Gathering -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    width=st.integers(1, 5),
    drop=st.booleans(),
    half=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_gathering_tokens(counts: list[int], width: int, drop: bool, half: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs = [rng.standard_normal((count, 2)).astype("f2" if half else "f4") for count in counts]
    values = torch.from_numpy(np.concatenate(runs))
    starts = np.cumsum([0, *counts[:-1]])
    order = rng.permutation(len(counts))
    keep = rng.random((len(counts), max(*counts, 1))) < 0.5 if drop else None
    chosen = None if keep is None else keep[order]
    found, tokens = gather_tokens(values, starts[order], np.array(counts)[order], width, chosen)
    assert found.dtype == torch.float32
    for place, run in enumerate(order):
        rows = runs[run] if keep is None else runs[run][keep[run, : counts[run]]]
        np.testing.assert_array_equal(found[place].numpy(), padded(rows, width, 2))
        assert tokens[place] == min(len(rows), width)


def test_gathering_rows() -> None:
    values = torch.arange(6, dtype=torch.float16).view(3, 2)
    found = gather_rows(values, np.array([2, -1, 0, 2]))
    assert found.tolist() == [[4, 5], [0, 0], [0, 1], [4, 5]]
    assert gather_rows(values[:0], np.array([-1])).tolist() == [[0, 0]]


# --- One's own data ------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> OwnData:
    return OwnData(tmp_path)


def test_experts_are_in_sorted_order_with_their_sizes(own: OwnData) -> None:
    loader = own.loader()
    assert [tuple(vars(expert).values()) for expert in loader.experts] == [
        ("fixed", False, 4, 1),
        ("tokens", True, 3, 4),
    ]
    assert (loader.text_size, loader.max_text_tokens) == (6, 5)
    assert [e.name for e in own.loader(drop_feats="fixed").experts] == ["tokens"]


def test_collated_batches_against_loops(own: OwnData) -> None:
    train = own.loader().train
    assert train.video_ids == own.train_ids
    videos = np.array([5, 0, 3, 1])
    captions = np.array([len(own.captions[own.ids[v]]) - 1 for v in videos])
    batch = train.collate(videos, captions)
    for row, (video, caption) in enumerate(zip(videos, captions, strict=True)):
        key = own.ids[video]
        fixed, tokens, words = own.fixed[key], own.tokens[key], own.text[key][caption]
        expected = np.zeros(4) if fixed is None else fixed
        np.testing.assert_array_equal(batch.experts["fixed"][row].numpy(), expected)
        np.testing.assert_array_equal(batch.experts["tokens"][row].numpy(), padded(tokens, 4, 3))
        np.testing.assert_array_equal(batch.text[row, 0].numpy(), padded(words, 5, 6))
        assert batch.ind["fixed"][row] == (fixed is not None)
        assert batch.ind["tokens"][row] == (tokens is not None)
        assert batch.text_token_mask[row, 0] == min(5, len(words))
    for tensor in (*batch.experts.values(), *batch.ind.values(), batch.text, batch.text_token_mask):
        assert tensor.dtype == torch.float32
    assert batch.video_indices.tolist() == videos.tolist()
    assert batch.caption_indices.tolist() == captions.tolist()


def test_an_epoch_visits_every_video_once_in_a_new_order(own: OwnData) -> None:
    train = own.loader(batch_size=4).train
    orders = []
    for epoch in range(3):
        batches = list(train.batches(epoch))
        assert [len(batch.video_indices) for batch in batches] == [4, 3]
        assert len(train) == 2
        orders.append(torch.cat([batch.video_indices for batch in batches]).tolist())
        assert sorted(orders[-1]) == list(range(7))
    assert orders[0] != orders[1] != orders[2]
    assert len(list(train.batches(0, limit=1))) == 1
    assert len(list(train.batches(0, limit=9))) == 2


def test_one_video_over_is_left_out_and_said_once(
    own: OwnData, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        train = own.loader(batch_size=3).train
    assert [len(batch.video_indices) for batch in train.batches(0)] == [3, 3]
    assert len(train) == 2
    list(train.batches(1))
    assert sum("left out" in record.getMessage() for record in caplog.records) == 1


def test_captions_are_drawn_by_video_and_epoch_alone(own: OwnData) -> None:
    train = own.loader(seed=3).train
    other = own.loader(seed=3, batch_size=5).train
    for epoch in (0, 4):
        drawn = {}
        for loader in (train, other):
            for batch in loader.batches(epoch):
                for video, caption in zip(batch.video_indices, batch.caption_indices, strict=True):
                    count = len(own.captions[own.ids[video]])
                    uniform = item_uniform(3, epoch, np.array([int(video)]), 0)[0]
                    assert int(caption) == int(uniform * count)
                    assert drawn.setdefault(int(video), int(caption)) == int(caption)


def test_captions_are_drawn_uniformly(own: OwnData) -> None:
    train = own.loader().train
    videos = np.arange(7)
    counts = [np.zeros(len(own.captions[key])) for key in own.train_ids]
    for epoch in range(600):
        for video, caption in zip(videos, train.draw_captions(epoch, videos), strict=True):
            counts[video][caption] += 1
    for video in videos:
        expected = 600 / len(counts[video])
        assert np.abs(counts[video] - expected).max() < 5 * np.sqrt(expected)


def test_masks_limit_the_captions_drawn(own: OwnData, tmp_path: Path) -> None:
    masks = {key: np.zeros(len(own.captions[key])) for key in own.train_ids}
    for mask in masks.values():
        mask[-1] = 1.0
    (tmp_path / "masks.pkl").write_bytes(pickle.dumps(masks))
    (tmp_path / "few.txt").write_text("\n".join(own.train_ids[:5]))
    train = own.loader(caption_masks="masks.pkl", training_file="few.txt", batch_size=5).train
    assert train.video_ids == own.train_ids[:5]
    for epoch in range(5):
        for batch in train.batches(epoch):
            for video, caption in zip(batch.video_indices, batch.caption_indices, strict=True):
                assert int(caption) == len(own.captions[own.ids[video]]) - 1
    masks[own.train_ids[2]][:] = 0
    (tmp_path / "masks.pkl").write_bytes(pickle.dumps(masks))
    with pytest.raises(UserError, match=r'masks\.pkl.*"v2"'):
        own.loader(caption_masks="masks.pkl")
    del masks[own.train_ids[1]]
    (tmp_path / "masks.pkl").write_bytes(pickle.dumps(masks))
    with pytest.raises(UserError, match=r'0 entries.*"v1"'):
        own.loader(caption_masks="masks.pkl")


def test_restricted_captions(own: OwnData) -> None:
    loader = own.loader(restrict_train_captions=1, num_test_captions=9)
    assert all((batch.caption_indices == 0).all() for batch in loader.train.batches(0))
    assert loader.retrieval.query_masks.sum() == sum(len(own.captions[k]) for k in own.val_ids)


def test_fused_captions_against_stacking(own: OwnData) -> None:
    loader = own.loader(
        fuse_captions=True, num_test_captions=5, max_tokens={"tokens": 4, "text": 9}
    )
    batch = loader.train.collate(np.arange(7), np.zeros(7))
    for row, key in enumerate(own.train_ids):
        words = np.concatenate(own.text[key])
        np.testing.assert_array_equal(batch.text[row, 0].numpy(), padded(words, 9, 6))
    assert loader.retrieval.query_masks.shape == (4, 1)
    assert loader.retrieval.captions == [[" ".join(own.captions[key])] for key in own.val_ids]


def test_averaged_words(own: OwnData) -> None:
    loader = own.loader(text_agg="avg")
    assert loader.max_text_tokens == 1
    batch = loader.train.collate(np.arange(7), np.zeros(7))
    assert batch.text.shape == (7, 1, 1, 6)
    for row, key in enumerate(own.train_ids):
        mean = own.text[key][0].mean(axis=0)
        np.testing.assert_allclose(batch.text[row, 0, 0].numpy(), mean, atol=1e-6)
        assert batch.text_token_mask[row, 0] == 1


def test_text_dropout(own: OwnData) -> None:
    wide = {"tokens": 4, "text": 8}
    without = own.loader(max_tokens=wide).train
    kept = total = 0
    train = own.loader(max_tokens=wide, text_dropout=1.0).train
    for epoch in range(60):
        for batch in train.batches(epoch):
            full = without.collate(batch.video_indices.numpy(), batch.caption_indices.numpy())
            for row in range(len(batch.video_indices)):
                words = full.text[row, 0, : int(full.text_token_mask[row, 0])]
                left = batch.text[row, 0, : int(batch.text_token_mask[row, 0])]
                assert len(left) >= 1
                places = [(words == word).all(dim=1).nonzero()[0, 0].item() for word in left]
                assert places == sorted(set(places))
                if len(words) > 4:
                    kept, total = kept + len(left), total + len(words)
    assert 0.44 < kept / total < 0.58
    rare = own.loader(max_tokens=wide, text_dropout=0.2).train
    changed = [
        not torch.equal(a.text, b.text)
        for epoch in range(20)
        for a, b in zip(rare.batches(epoch), without.batches(epoch), strict=True)
    ]
    assert 0 < sum(changed) < len(changed)


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_the_retrieval_set_does_not_depend_on_the_block_size(own: OwnData, block: int) -> None:
    retrieval = own.loader(num_test_captions=3).retrieval
    assert retrieval.video_ids == own.val_ids
    assert len(retrieval) == 4
    expected_captions = [own.captions[key][:3] for key in own.val_ids]
    assert retrieval.captions == expected_captions
    seen = 0
    for videos, texts in zip(
        retrieval.video_blocks(block), retrieval.text_blocks(block), strict=True
    ):
        assert len(videos.ind["tokens"]) == len(texts.text)
        for row in range(len(texts.text)):
            key = own.val_ids[seen]
            expected = padded(own.tokens[key], 4, 3)
            np.testing.assert_array_equal(videos.experts["tokens"][row].numpy(), expected)
            assert videos.ind["tokens"][row] == (own.tokens[key] is not None)
            for number in range(3):
                words = own.text[key][number] if number < len(own.text[key]) else None
                found = texts.text[row, number].numpy()
                np.testing.assert_array_equal(found, padded(words, 5, 6))
                exists = words is not None
                assert texts.query_masks[row, number] == exists
                assert retrieval.query_masks[seen, number] == exists
                count = min(5, len(words)) if exists else 0
                assert texts.text_token_mask[row, number] == count
            seen += 1
    assert seen == 4


@pytest.mark.parametrize("has_room", [True, False])
def test_a_loader_moves_to_another_device(
    own: OwnData, has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "fits_on", lambda device, tensors: has_room)
    loader = own.loader()
    loader.move_to("meta")
    gathered = loader.train.collate(np.arange(4), np.zeros(4))
    assert gathered.text.device.type == ("meta" if has_room else "cpu")
    [batch, *_] = loader.train.batches(0)
    [videos] = loader.retrieval.video_blocks(100)
    text, _ = loader.retrieval.queries(np.arange(2))
    for tensor in (batch.text, *batch.experts.values(), *videos.experts.values(), text):
        assert tensor.device.type == "meta"


def test_the_log_counts_videos_missing_and_tokens(
    own: OwnData, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        own.loader()
    counts = [len(own.tokens[key]) for key in own.train_ids if own.tokens[key] is not None]
    missing = 7 - len(counts)
    line = (
        f"train: tokens: 7 videos, {missing} missing, tokens {min(counts)} / "
        f"{np.mean(counts):.1f} / {max(counts)} (min/mean/max), cut to 4"
    )
    assert line in caplog.text
    assert "retrieval: text: 4 videos" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": {"text": 5}}, r'max_tokens": {"tokens": 6}}}}'),
        ({"max_tokens": {"tokens": 5}}, r'max_tokens": {"text": 7}}}}'),
        ({"modalities": ["fixd"]}, r'"fixd" \(did you mean "fixed"\?\)'),
        ({"modalities": []}, "No expert is left"),
        ({"drop_feats": "fixed,tokens"}, "No expert is left"),
        ({"drop_feats": "fixe"}, r'"fixe" \(did you mean "fixed"\?\)'),
        ({"text_feat": "wrods"}, r'did you mean "words"'),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"split_name": "vla"}, 'did you mean "val"'),
        ({"text_dim": 7}, r"text_dim 7.*size 6"),
        ({"training_file": "none.txt"}, r"none\.txt"),
    ],
)
def test_wrong_values(own: OwnData, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        own.loader(**changes)


def test_videos_without_captions_are_named(own: OwnData) -> None:
    del own.text["v10"], own.captions["v10"]
    own.write()
    with pytest.raises(UserError, match=r'"val".*no captions.*"v10"'):
        own.loader()


def test_captions_whose_ids_are_written_otherwise_are_named(own: OwnData) -> None:
    own.text = {f"{key}.mp4": value for key, value in own.text.items()}
    own.write()
    with pytest.raises(UserError, match=r'7 videos.*"v0" from "v0\.mp4"'):
        own.loader()
    with pytest.raises(UserError, match=r"raw captions.*letter case"):
        own.text = {key.removesuffix(".mp4"): value for key, value in own.text.items()}
        own.captions = {key.upper(): value for key, value in own.captions.items()}
        own.write()
        own.loader()


def renamed(table: dict[str, Any], ids: list[str]) -> dict[str, Any]:
    return {f"{key}.avi" if key in ids else key: value for key, value in table.items()}


@pytest.mark.parametrize("role", ["train", "retrieval"])
def test_videos_without_any_expert_are_refused(own: OwnData, role: str) -> None:
    ids = own.train_ids if role == "train" else own.val_ids
    own.fixed, own.tokens = renamed(own.fixed, ids), renamed(own.tokens, ids)
    own.write()
    split = rf'videos of the split "val" \({role}\)'
    message = rf"None of the {len(ids)} {split} .*fixed, tokens.*ending"
    with pytest.raises(UserError, match=message):
        own.loader()
    # Nor does it help that another video has one.
    own.fixed = {"x": np.ones(4, "f4")}
    own.write()
    with pytest.raises(UserError, match=r"fixed: .*ids"):
        own.loader(modalities=["fixed"])


def test_one_expert_whose_ids_are_written_otherwise_is_a_warning(
    own: OwnData, caplog: pytest.LogCaptureFixture
) -> None:
    own.tokens = renamed(own.tokens, own.ids)
    own.write()
    own.loader()
    there = sum(own.tokens[f"{key}.avi"] is not None for key in own.train_ids)
    differ = rf'{there} of them differ.*ending, "v\d" from "v\d\.avi"'
    expected = f'train: no video has "tokens"; {differ}'
    assert [record for record in caplog.records if re.match(expected, record.getMessage())]


def test_masks_that_are_none(own: OwnData, tmp_path: Path) -> None:
    for value in ("text", {"a": 1}, [[1], [1, 0]]):
        masks = dict.fromkeys(own.train_ids, value)
        (tmp_path / "masks.pkl").write_bytes(pickle.dumps(masks))
        with pytest.raises(UserError, match=r'masks\.pkl.*"v0"'):
            own.loader(caption_masks="masks.pkl")


# --- By which captions a retrieval set is searched ------------------------------------------------


def told(loader: ExpertDataLoader, mode: str = "indep") -> tuple[Any, ...]:
    protocol = loader.retrieval.protocol(mode)
    return protocol.name, protocol.queries, protocol.captions, str(protocol)


def test_a_set_of_ones_own_is_searched_by_all_captions(own: OwnData) -> None:
    counts = [len(own.captions[key]) for key in own.val_ids]
    loader = own.loader()
    assert loader.retrieval.captions == [own.captions[key] for key in own.val_ids]
    assert loader.retrieval.caption_indices.shape == (4, max(counts))
    total = sum(counts)
    each = f"{total} queries of {total} captions, each caption by itself"
    assert told(loader) == ("each", total, total, each)
    assert told(own.loader(num_test_captions=20)) == ("each", total, total, each)
    mean = f"4 queries of {total} captions, each the mean over the captions of a video"
    assert told(loader, "avg") == ("mean", 4, total, mean)


def test_the_first_captions_alone(own: OwnData) -> None:
    counts = np.array([len(own.captions[key]) for key in own.val_ids])
    assert counts.max() > 2
    total = counts.sum()
    first = f"4 queries of {total} captions, the first caption of each video"
    # The mean of one caption is no mean.
    for mode in ("indep", "avg"):
        assert told(own.loader(num_test_captions=1), mode) == ("first", 4, total, first)
    two = np.minimum(counts, 2).sum()
    name, queries, _, text = told(own.loader(num_test_captions=2))
    assert (name, queries) == ("first", two)
    assert text.endswith("captions, the first 2 captions of each video, each by itself")
    name, queries, _, text = told(own.loader(num_test_captions=2), "avg")
    assert (name, queries) == ("mean", 4)
    assert text.endswith("each the mean over the first 2 captions of a video")


def test_given_and_fused_captions(own: OwnData, tmp_path: Path) -> None:
    total = sum(len(own.captions[key]) for key in own.val_ids)
    wide = {"tokens": 4, "text": 9}
    fused = f"4 queries of {total} captions, the captions of each video joined to one"
    loader = own.loader(fuse_captions=True, max_tokens=wide)
    assert told(loader) == ("each", 4, total, fused)
    assert loader.retrieval.protocol().fused
    (tmp_path / "i.json").write_text(json.dumps(dict.fromkeys(own.val_ids, 0)))
    own.description["splits"]["val"]["test_caption_index"] = "i.json"
    own.write()
    given = f"4 queries of {total} captions, for each video the one that the split names"
    for mode in ("indep", "avg"):
        assert told(own.loader(), mode) == ("given", 4, total, given)


def test_text_features_of_other_captions_are_refused(own: OwnData) -> None:
    own.captions["v10"].append("one more")
    own.write()
    with pytest.raises(UserError, match=r'raw captions.*"v10"'):
        own.loader()


def test_a_truncated_feature_file_is_named(own: OwnData, tmp_path: Path) -> None:
    for name in ("tokens.npz", "text.pkl", "words.bin"):
        path = tmp_path / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=name):
            own.loader(text_feat="words" if name == "words.bin" else "file")
        path.write_bytes(whole)


# --- The published system's arrays ---------------------------------------------------------------


@pytest.fixture(scope="module")
def arrays(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "tiny_msrvtt_retrieval.npz") as values:
        return dict(values)


def open_loader(values: dict[str, Any]) -> ExpertDataLoader:
    """Load by the door of a training: values of a config, by the names of their keys alone."""
    files = {key: values.pop(key) for key in ("caption_masks", "training_file") if key in values}
    names = ("modalities", "text_feat", "text_agg", "face_dim", "text_dim")
    experts = {key: values.pop(key) for key in names if key in values}
    data_loader = {"type": "ExpertDataLoader", "args": values}
    return build_loader(
        Config.from_dict({"experts": experts, "data_loader": data_loader} | files), 0
    )


@pytest.fixture(scope="module")
def published(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    configs = json.loads((SHARED / "reference" / "resolved_configs.json").read_text())
    arguments = configs["configs/msrvtt/train-full-ce.json"]["data_loader"]["args"]
    cache = str(tmp_path_factory.mktemp("cache"))

    def make(binarise: tuple[str, ...] = (), **changes: Any) -> ExpertDataLoader:
        aggregation = json.loads(json.dumps(arguments["feat_aggregation"]))
        for name in binarise:
            aggregation[name]["binarise"] = True
        defaults = {
            **arguments,
            "data_dir": str(golden / "tiny_msrvtt" / "data" / "MSRVTT"),
            "feat_aggregation": aggregation,
            "batch_size": 8,
            "modalities": CE_EXPERTS[::-1],
            "text_feat": "openai",
            "face_dim": 512,
            "cache_dir": cache,
        }
        return open_loader(defaults | changes)

    return make


def drawn(loader: ExpertDataLoader, count: int, masks: Any = None) -> tuple[Any, Any]:
    """Draw captions as the published loader does with numpy's seed 7."""
    state = np.random.RandomState(7)
    captions = []
    for video_id in loader.train.video_ids[:count]:
        mask = np.ones(20) if masks is None else masks[video_id]
        weights = None if masks is None else mask / mask.sum()
        captions.append(state.choice(len(mask), size=1, p=weights)[0])
        state.random_sample()
    return np.arange(count), np.array(captions)


def check(
    arrays: dict[str, np.ndarray], prefix: str, found: dict[str, Any], atol: float = 0.0
) -> None:
    """Compare with the published arrays, whose missing experts are NaN where ours are zeros."""
    compared = 0
    for name, value in found.items():
        if f"{prefix}.{name}" in arrays:
            expected = np.nan_to_num(arrays[f"{prefix}.{name}"], nan=0.0)
            assert expected.shape == tuple(value.shape)
            np.testing.assert_allclose(np.asarray(value), expected, rtol=0, atol=atol)
            compared += 1
    assert compared >= 2


def flat(batch: Any, retrieval: Any = None) -> dict[str, Any]:
    """Name the parts of batches as the published arrays are named."""
    result = {f"experts.{name}": value for name, value in batch.experts.items()}
    result |= {f"ind.{name}": value for name, value in batch.ind.items()}
    text = batch
    if retrieval is not None:
        text = next(retrieval.text_blocks(len(retrieval)))
        result["query_masks"] = retrieval.query_masks
    return {**result, "text": text.text, "text_token_mask": text.text_token_mask}


def whole(retrieval: Any) -> dict[str, Any]:
    return flat(next(retrieval.video_blocks(len(retrieval))), retrieval)


@pytest.mark.parametrize(
    ("prefix", "changes"),
    [
        ("val_1cap", {}),
        ("test_18cap", {"split_name": "full-test", "num_test_captions": 18}),
        ("jsfusion", {"split_name": "jsfusion"}),
        ("fuse", {"fuse_captions": True}),
    ],
)
def test_published_retrieval_sets(
    published: Any, arrays: dict[str, np.ndarray], prefix: str, changes: Any
) -> None:
    loader = published(**changes)
    found = whole(loader.retrieval)
    check(arrays, prefix, found)
    if prefix == "test_18cap":
        np.testing.assert_array_equal(found["text"][10:12], arrays["test_18cap.text_videos10_12"])


def test_published_averages(published: Any, arrays: dict[str, np.ndarray]) -> None:
    loader = published(text_agg="avg")
    found = whole(loader.retrieval)["text"]
    # The published mean of float16 words is rounded to float16.
    np.testing.assert_allclose(found, arrays["text_avg.text"], rtol=0, atol=2e-3)
    batch = flat(loader.train.collate(*drawn(loader, 3)))
    check(arrays, "collate.text_avg_seed7", batch, atol=2e-3)


@pytest.mark.parametrize(
    ("prefix", "count", "changes"),
    [
        ("ce_seed7", 8, {}),
        ("fuse_captions_seed7", 3, {"fuse_captions": True}),
        ("binarise_seed7", 3, {"binarise": ("audio", "ocr")}),
        ("teachtext_seed7", 4, TEACHTEXT),
    ],
)
def test_published_batches(
    published: Any, arrays: dict[str, np.ndarray], prefix: str, count: int, changes: Any
) -> None:
    loader = published(**changes)
    videos, captions = drawn(loader, count)
    batch = loader.train.collate(videos, captions * (not changes.get("fuse_captions", False)))
    check(arrays, f"collate.{prefix}", flat(batch))
    assert list(batch.experts) == sorted(batch.experts)


def test_published_text_dropout(published: Any, arrays: dict[str, np.ndarray]) -> None:
    loader = published()
    videos, captions = drawn(loader, 4)
    keep = np.zeros((4, 50), dtype=bool)
    # The words that the published loader kept, as its arrays show.
    captions = np.array([15, 7, 8, 11])
    for row, words in enumerate([[1], [0, 1], [0, 1], [0, 1, 3]]):
        keep[row, words] = True
    batch = loader.train.collate(videos, captions, keep)
    check(arrays, "collate.text_dropout1_seed7", flat(batch))


def test_published_denoising(golden: Path, published: Any, arrays: dict[str, np.ndarray]) -> None:
    files = {
        "caption_masks": "denoising_masks/denoise-less80.pkl",
        "training_file": "denoising_masks/denoise-less80.txt",
    }
    loader = published(**TEACHTEXT, **files)
    assert len(loader.train.video_ids) == 32
    folder = golden / "tiny_msrvtt/data/MSRVTT/high-quality/structured-symlinks"
    masks = pickle.loads((folder / files["caption_masks"]).read_bytes())
    batch = loader.train.collate(*drawn(loader, 4, masks))
    check(arrays, "collate.denoise_seed7", flat(batch))
    for epoch in range(3):
        for batch in loader.train.batches(epoch):
            for video, caption in zip(batch.video_indices, batch.caption_indices, strict=True):
                assert masks[loader.train.video_ids[video]][caption] > 0


def test_published_binarised_retrieval_set(published: Any, arrays: dict[str, np.ndarray]) -> None:
    found = whole(published(binarise=("ocr",)).retrieval)["experts.ocr"].sum(dim=(1, 2))
    expected = np.nan_to_num(arrays["binarise.experts.ocr_sum"], nan=0.0)
    # The published code leaves the tokens of its very last video as they are.
    np.testing.assert_array_equal(found[:-1], expected[:-1])
    assert found[-1] == 49 * 300


def test_a_published_set_is_searched_by_one_caption_unless_told(published: Any) -> None:
    retrieval = published(num_test_captions=None).retrieval
    assert retrieval.caption_indices.shape == (len(retrieval), 1)
    assert not retrieval.caption_indices.any()
    protocol = retrieval.protocol()
    assert (protocol.name, protocol.first) == ("first", 1)
    assert protocol.queries == len(retrieval) < protocol.captions


def test_published_restriction_and_zeros(published: Any) -> None:
    loader = published(restrict_train_captions=1, num_test_captions=20)
    assert all((batch.caption_indices == 0).all() for batch in loader.train.batches(1))
    assert loader.retrieval.query_masks.shape == (12, 20)
    zeros, plain = (
        whole(published(use_zeros_for_missing=value).retrieval) for value in (True, False)
    )
    for name, value in zeros.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(plain[name]))
    assert (zeros["experts.face"][zeros["ind.face"] == 0] == 0).all()


def test_published_split_of_miech(published: Any) -> None:
    names = ["antoine-rgb", "flow", "audio", "face"]
    loader = published(
        split_name="miech", modalities=names, face_dim=128, text_feat="w2v", text_dim=300
    )
    assert [(expert.name, expert.size) for expert in loader.experts] == [
        ("antoine-rgb", 2048),
        ("audio", 128),
        ("face", 128),
        ("flow", 1024),
    ]
    with pytest.raises(UserError, match=r'"face".*\(1, 128\).*size 512'):
        published(split_name="miech", modalities=names, text_feat="w2v")


# --- Real data -----------------------------------------------------------------------------------


def test_real_clips_with_a_descriptor(tmp_path: Path) -> None:
    root = SHARED / "data" / "vine"
    if not root.is_dir():
        pytest.skip("the folder of real clips is not here")
    lists = {key: {"file": "splits.json", "key": key} for key in ("train", "val", "test")}
    description = {
        "name": "vine",
        "root": str(root),
        "experts": {
            "motion": {"file": "motion.npz", "size": 512},
            "audio_tags": {"file": "audio_tags.npz", "size": 527},
        },
        "captions": "captions.json",
        "text_features": {
            "w2v": {"word_vectors": "../word_vectors/captions-w2v-300d.bin", "size": 300}
        },
        "splits": {name: {"train": lists["train"], "val": lists[name]} for name in ("val", "test")},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    settings = LoaderSettings(
        dataset_name=str(tmp_path),
        split_name="test",
        batch_size=64,
        max_tokens={"text": 30},
        modalities=["motion", "audio_tags"],
        text_feat="w2v",
        num_test_captions=5,
        cache_dir=str(tmp_path / "cache"),
    )
    loader = ExpertDataLoader(settings)
    assert [(e.name, e.size) for e in loader.experts] == [("audio_tags", 527), ("motion", 512)]
    batches = list(loader.train.batches(0))
    assert sum(len(batch.video_indices) for batch in batches) == 998
    assert sum(int(batch.ind["motion"].sum()) for batch in batches) == 588
    captions = json.loads((root / "captions.json").read_text())
    assert loader.retrieval.captions == [captions[key][:5] for key in loader.retrieval.video_ids]
    feats = np.load(root / "motion.npz")
    rows = {key: row for row, key in enumerate(feats["ids"].tolist())}
    block = next(loader.retrieval.video_blocks(50))
    expected = [feats["feats"][rows[key]] for key in loader.retrieval.video_ids[:50]]
    np.testing.assert_array_equal(block.experts["motion"].numpy(), expected)
