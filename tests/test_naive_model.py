"""Every kind of model against its naive twin: other sizes, other orders, missing experts."""

from typing import Any

import pytest
import torch
from torch import Tensor

from model import CENet
from model.loss import MaxMarginRankingLoss
from tests.naive_model import NaiveNet

# Name -> (size of the feature, tokens, clusters); None where it has one vector.
EXPERTS: dict[str, tuple[int, int | None, int]] = {
    "speech": (4, 3, 2),
    "imagenet.senet154.0": (5, None, 0),
    "audio": (3, 4, 3),
    "r2p1d.r2p1d-ig65m.0": (7, None, 0),
    "ocr": (6, 2, 1),
    "face": (2, None, 0),
}
# Ways to order experts, none of them sorted.
ORDERS = {
    "as above": list(EXPERTS)[:5],
    "two": ["scene.b.0", "a"],
    "backwards": sorted(EXPERTS, reverse=True)[2:5],
    "fixed sizes": ["r2p1d.r2p1d-ig65m.0", "face", "imagenet.senet154.0"],
}
EXPERTS |= {"scene.b.0": (9, None, 0), "a": (4, 3, 2)}
TEXT_SIZE, WORDS = 5, 4

VARIANTS: dict[str, dict[str, Any]] = {
    "ce": {"use_ce": "pairwise"},
    "without self": {"use_ce": "pairwise", "include_self": 0},
    "h layers": {"use_ce": "pairwise", "num_h_layers": 2},
    "one g layer": {"use_ce": "pairwise", "num_g_layers": 1},
    "four g layers, relu": {"use_ce": "pairwise", "num_g_layers": 4, "use_mish": 0},
    "no batch norm": {"use_ce": "pairwise", "use_bn_reason": 0, "num_h_layers": 1},
    "triplet": {"use_ce": "triplet"},
    "triplet without self": {"use_ce": "triplet", "include_self": 0},
    "triplet without self, h layers": {"use_ce": "triplet", "include_self": 0, "num_h_layers": 1},
    "triplet, h layers": {"use_ce": "triplet", "num_h_layers": 1, "num_g_layers": 2},
    "star": {"use_ce": "pairwise-star"},
    "star, h layers": {"use_ce": "pairwise-star", "num_h_layers": 1, "use_mish": 0},
    "specific": {"use_ce": "pairwise-star-specific", "num_g_layers": 2},
    "tensor": {"use_ce": "pairwise-star-tensor"},
    "moee": {},
    "frozen weights": {"freeze_weights": True},
    "frozen weights in ce": {"use_ce": "pairwise", "freeze_weights": True},
    "missing kept": {"keep_missing_modalities": True},
    "missing kept in ce": {"use_ce": "pairwise", "keep_missing_modalities": True},
    "dimensions of ce": {"mimic_ce_dims": 1},
    "concatenated": {"concat_experts": True},
    "concatenated and gated": {"concat_mix_experts": True},
    "averaged captions": {"use_ce": "pairwise", "test_caption_mode": "avg"},
}


def settings_of(order: list[str], variant: dict[str, Any], text_clusters: int) -> dict[str, Any]:
    shared = bool(variant.get("use_ce") or variant.get("mimic_ce_dims"))
    dims = []
    for number, name in enumerate(order):
        size, tokens, clusters = EXPERTS[name]
        pooled = size * clusters if tokens else size
        dims.append((name, (pooled, 6 if shared else 3 + number)))
    tokens = [name for name in order if EXPERTS[name][1]]
    return {
        "expert_dims": dims,
        "text_dim": TEXT_SIZE,
        # In an order of their own, with a name that no expert has.
        "vlad_clusters": {n: EXPERTS[n][2] for n in reversed(tokens)}
        | {"text": text_clusters, "speech-x": 9},
        "ghost_clusters": {"text": 2, **dict.fromkeys(tokens, 1)},
        "feat_aggregation": {name: {"temporal": "vlad"} for name in tokens},
    } | variant


def batch_of(order: list[str], videos: int, captions: int, words: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    experts, ind = {}, {}
    for name in sorted(order, key=lambda n: n[::-1]):  # neither sorted nor as the model has them
        size, tokens, _ = EXPERTS[name]
        experts[name] = noise(videos, tokens, size) if tokens else noise(videos, size)
        ind[name] = (noise(videos) > -0.6).float()
        experts[name][ind[name] == 0] = torch.nan
    for name in order:  # the last video has nothing at all
        ind[name][-1] = 0
        experts[name][-1] = torch.nan
    ind[order[0]][:2] = 1
    experts[order[0]] = experts[order[0]].nan_to_num(0.3)
    return {"experts": experts, "ind": ind, "text": noise(videos, captions, words, TEXT_SIZE)}


# The twin takes seconds for the triplets of many experts.
CASES = [
    (order, variant)
    for order in ORDERS
    for variant in VARIANTS
    if order != "as above" or "triplet" not in variant
]


@pytest.mark.parametrize(("order", "variant"), CASES)
def test_outputs_gradients_and_statistics_are_those_of_the_twin(order: str, variant: str) -> None:
    seed = list(ORDERS).index(order) + 10 * list(VARIANTS).index(variant)
    captions = 2 if variant == "averaged captions" or seed % 3 == 0 else 1
    text_clusters = seed % 4
    settings = settings_of(ORDERS[order], VARIANTS[variant], text_clusters)
    batch = batch_of(ORDERS[order], 5, captions, WORDS if text_clusters else 1, seed)
    torch.manual_seed(seed)
    net = CENet(**settings)
    with torch.no_grad():  # new layers have gains of 1 and biases of 0, which hide mistakes
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))

    for training in (True, False):  # the second time with running statistics that have moved
        net.train(training).zero_grad()
        twin = NaiveNet(settings, net.state_dict(), training)
        matrix = net(**batch)["cross_view_conf_matrix"]
        expected = twin(**batch)
        torch.testing.assert_close(matrix, expected, atol=2e-5, rtol=1e-4)
        for name, buffer in net.named_buffers():
            torch.testing.assert_close(buffer, twin.weights[name], atol=1e-5, rtol=1e-4)
        if not training or not matrix.requires_grad:
            continue
        loss = MaxMarginRankingLoss(margin=0.3)
        loss(matrix).backward()
        loss(expected).backward()
        for name, parameter in net.named_parameters():
            found, wanted = parameter.grad, twin.weights[name].grad
            if wanted is None:
                assert found is None or not found.any(), name
            else:
                torch.testing.assert_close(found, wanted, atol=5e-5, rtol=1e-3, msg=name)


def test_video_embeddings_do_not_depend_on_the_order_of_the_dictionaries() -> None:
    order = ORDERS["as above"]
    settings = settings_of(order, {"use_ce": "pairwise", "task": "compute_video_embeddings"}, 3)
    torch.manual_seed(0)
    net = CENet(**settings).eval()
    assert not any("text" in name or "moe_fc" in name for name in net.state_dict())
    batch = batch_of(order, 4, 1, 1, 0)
    found = net(batch["experts"], batch["ind"])
    turned = {key: dict(reversed(batch[key].items())) for key in ("experts", "ind")}
    other = net(**turned)
    assert found["modalities"] == other["modalities"] == list(found["embeddings"]) == order
    for name, embedding in found["embeddings"].items():
        assert embedding.shape == (4, 6)
        assert torch.equal(embedding, other["embeddings"][name])


def test_noise_takes_the_place_of_randomised_experts() -> None:
    order = ORDERS["fixed sizes"]
    settings = settings_of(order, {"randomise_feats": "face"}, 2)
    torch.manual_seed(0)
    net = CENet(**settings).eval()
    batch = batch_of(order, 4, 1, WORDS, 0)

    def outputs(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return net(**batch)["vid_embds"]

    first, again, other = outputs(1), outputs(1), outputs(2)
    for name in order:
        assert torch.equal(first[name], again[name])
        assert torch.equal(first[name], other[name]) == (name != "face")
    batch["experts"]["face"] = batch["experts"]["face"] + 1
    assert torch.equal(outputs(1)["face"], first["face"])
