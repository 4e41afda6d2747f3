"""The model against naive twins: loops over videos, experts and pairs that anyone believes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model import CENet
from model.batch_norm import GroupedBatchNorm1d
from model.loss import MaxMarginRankingLoss
from model.net_vlad import NetVLAD
from model.similarity import TextEmbeddings, VideoEmbeddings, expert_similarities, similarity

EXPERT_DIMS = {"audio": (6, 5), "ocr": (8, 5), "scene": (7, 5)}
seeds = st.integers(0, 2**32 - 1)


def make_net(seed: int, **kwargs) -> CENet:
    torch.manual_seed(seed)
    defaults = {
        "expert_dims": EXPERT_DIMS,
        "text_dim": 4,
        "vlad_clusters": {"text": 3, "audio": 2, "ocr": 2},
        "ghost_clusters": {"text": 1},
        "feat_aggregation": {"audio": {"temporal": "vlad"}, "ocr": {"temporal": "vlad"}},
        "use_ce": "pairwise",
    }
    return CENet(**(defaults | kwargs))


def make_batch(seed: int, num_videos: int = 6, num_captions: int = 1) -> dict:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    present = {n: (noise(num_videos) > -0.5).float() for n in EXPERT_DIMS}
    present["scene"][:] = 1
    experts = {"audio": noise(num_videos, 5, 3), "ocr": noise(num_videos, 4, 4)}
    experts["scene"] = noise(num_videos, 7)
    for name, x in experts.items():
        x[present[name] == 0] = torch.nan
    return {"experts": experts, "ind": present, "text": noise(num_videos, num_captions, 5, 4)}


def naive_collaboration(net: CENet, experts: list[Tensor], availability: Tensor) -> list[Tensor]:
    """Experts one after the other, pairs one after the other, plain BatchNorm called per pair."""
    ce = net.ce
    x = [reduce(e) for reduce, e in zip(ce.video_dim_reduce, experts, strict=True)]
    num_videos, num_experts = availability.shape
    for i in range(num_experts):
        total = torch.zeros_like(x[i])
        count = torch.zeros(num_videos, 1)
        for j in range(num_experts):
            if j == i and not ce.include_self:
                continue
            reason = ce.g_reason_1(torch.cat([x[i], x[j]], dim=1))
            for layer in ce.g_reason_shared:
                if isinstance(layer, nn.BatchNorm1d):
                    reason = nn.BatchNorm1d.forward(layer, reason)
                else:
                    reason = layer(reason)
            both = (availability[:, i] * availability[:, j]).unsqueeze(1)
            total = total + reason * both
            count = count + both
        x[i] = ce.video_GU[i](x[i], total / (count + 1e-11))
    return x


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("include_self", [0, 1])
def test_pairwise_gating_is_the_loop_over_pairs(training: bool, include_self: int) -> None:
    nets = [make_net(3, include_self=include_self).train(training) for _ in range(2)]
    for net in nets:  # running statistics that are not those of a new layer
        net.train()(**make_batch(1))
        net.train(training)
    batch = make_batch(2)
    upstream = None
    results = []
    for net, naive in zip(nets, (False, True), strict=True):
        pooled, availability = net.pool_experts(batch["experts"], batch["ind"])
        net.zero_grad()
        if naive:
            embeddings = naive_collaboration(net, pooled, availability)
        else:
            embeddings = list(net.ce.encode_video(pooled, availability).embeddings)
        stacked = torch.stack(embeddings)
        if upstream is None:
            upstream = torch.randn(stacked.shape, generator=torch.Generator().manual_seed(0))
        (stacked * upstream).sum().backward()
        gradients = [p.grad for _, p in net.named_parameters() if p.grad is not None]
        results.append((stacked, gradients, [b.float() for b in net.buffers()]))
    fast, slow = results
    torch.testing.assert_close(fast[0], slow[0], atol=1e-6, rtol=1e-5)
    assert len(fast[1]) == len(slow[1]) > 0
    for fast_part, slow_part in zip(fast[1] + fast[2], slow[1] + slow[2], strict=True):
        torch.testing.assert_close(fast_part, slow_part, atol=1e-5, rtol=1e-4)


@given(seeds, st.integers(1, 4), st.integers(2, 5))
@settings(deadline=None, max_examples=25)
def test_grouped_batch_norm_is_one_call_per_group(seed: int, groups: int, batch: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    grouped, plain = GroupedBatchNorm1d(3), nn.BatchNorm1d(3)
    x = torch.randn(batch, groups, 3, generator=generator)
    expected = torch.stack([plain(x[:, g]) for g in range(groups)], dim=1)
    torch.testing.assert_close(grouped(x), expected, atol=1e-5, rtol=1e-4)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(grouped.state_dict()[key], value, atol=1e-6, rtol=1e-5)


def naive_vlad(layer: NetVLAD, tokens: Tensor, counts: list[int]) -> Tensor:
    scores = layer.batch_norm(torch.cat([t @ layer.clusters for t in tokens]))
    shares = scores.softmax(dim=1).view(len(tokens), tokens.shape[1], -1)
    rows = []
    for b, token_set in enumerate(tokens):
        columns = []
        for k in range(layer.num_clusters):
            residual = torch.zeros(layer.feature_size)
            for t, token in enumerate(token_set):
                if t < counts[b]:
                    residual += shares[b, t, k] * (token - layer.clusters2[0, :, k])
            columns.append(residual / residual.norm().clamp(min=1e-12))
        flat = torch.stack(columns, dim=1).flatten()
        rows.append(flat / flat.norm().clamp(min=1e-12))
    return torch.stack(rows)


@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_net_vlad_is_the_loop_over_tokens(mask_padding: bool, training: bool) -> None:
    torch.manual_seed(0)
    layer = NetVLAD(3, 4, ghost_clusters=1, mask_padding=mask_padding).train(training)
    tokens = torch.randn(5, 6, 4)
    counts = [6, 1, 3, 0, 2]
    for b, count in enumerate(counts):
        tokens[b, count:] = 0
    expected = naive_vlad(layer, tokens, counts if mask_padding else [6] * 5)
    found = layer(tokens, torch.tensor(counts))
    assert found.shape == (5, layer.output_size)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def naive_similarity(text: TextEmbeddings, video: VideoEmbeddings) -> Tensor:
    sims = torch.zeros(len(text), len(video))
    for q in range(len(text)):
        for v in range(len(video)):
            total = sum(w * a for w, a in zip(text.weights[q], video.availability[v], strict=True))
            for m in range(len(text.embeddings)):
                inner = text.embeddings[m][q] @ video.embeddings[m][v]
                share = text.weights[q, m] * video.availability[v, m]
                if total > 0:
                    sims[q, v] += share / total * inner
    return sims


@given(seeds, st.sampled_from([1, 30]))
@settings(deadline=None, max_examples=25)
def test_similarity_is_the_loop_over_pairs_and_experts(seed: int, spread: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = (3, 5, 2)
    text = TextEmbeddings(
        tuple(torch.randn(4, d, generator=generator) for d in sizes),
        # A spread of 30: captions that ask hardly anything of the experts that a video has.
        (spread * torch.rand(4, 3, generator=generator)).softmax(dim=1),
    )
    availability = (torch.rand(5, 3, generator=generator) > 0.4).float()
    availability[0] = 0  # a video without any expert
    video = VideoEmbeddings(
        tuple(torch.randn(5, d, generator=generator) for d in sizes), availability
    )
    expected = naive_similarity(text, video)
    torch.testing.assert_close(similarity(text, video), expected, atol=1e-5, rtol=1e-4)
    assert not similarity(text, video)[:, 0].any()


@pytest.mark.parametrize("asked", [1e-2, 1e-4, 1e-8, 1e-30])
def test_however_little_is_asked_of_the_only_expert_its_similarity_counts_in_full(
    asked: float,
) -> None:
    weights = torch.tensor([[asked, 1 - asked]])
    text = TextEmbeddings((torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0]])), weights)
    video = VideoEmbeddings(
        (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0]])), torch.tensor([[1.0, 0.0]])
    )
    assert similarity(text, video).item() == pytest.approx(0.6)
    [shares], [parts] = expert_similarities(text, video)
    assert (shares * parts).sum().item() == pytest.approx(0.6)


@given(seeds, st.integers(2, 6), st.booleans(), st.floats(0, 2))
def test_ranking_loss_is_the_double_loop(seed: int, n: int, fix_norm: bool, margin: float) -> None:
    sims = torch.randn(n, n, generator=torch.Generator().manual_seed(seed))
    terms = []
    for i in range(n):
        for j in range(n):
            if i != j or not fix_norm:
                terms.append(max(0.0, margin - sims[i, i].item() + sims[i, j].item()))
                terms.append(max(0.0, margin - sims[i, i].item() + sims[j, i].item()))
    loss = MaxMarginRankingLoss(margin, fix_norm)(sims)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), abs=1e-5)


def test_ranking_loss_of_one_video_is_zero_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sims = torch.tensor([[0.3]], requires_grad=True)
    loss = MaxMarginRankingLoss(0.2)(sims)
    loss.backward()
    assert loss.item() == 0 and sims.grad.item() == 0
    assert "no negatives" in caplog.text


def test_what_stands_in_missing_experts_does_not_matter() -> None:
    net = make_net(0).eval()
    batch = make_batch(5)
    output = net(**batch)["cross_view_conf_matrix"]
    for name, x in batch["experts"].items():
        batch["experts"][name] = x.nan_to_num(17.0)
    assert torch.equal(net(**batch)["cross_view_conf_matrix"], output)
    assert torch.isfinite(output).all()


def test_embeddings_can_be_made_block_by_block() -> None:
    net = make_net(0).eval()
    batch = make_batch(5, num_captions=2)
    whole = net(**batch)["cross_view_conf_matrix"]
    videos = []
    for rows in (slice(0, 4), slice(4, 6)):
        experts = {name: x[rows] for name, x in batch["experts"].items()}
        videos.append(net.encode_video(experts, {n: p[rows] for n, p in batch["ind"].items()}))
    texts = [net.encode_text(batch["text"][rows]) for rows in (slice(0, 1), slice(1, 6))]
    sims = similarity(TextEmbeddings.cat(texts), VideoEmbeddings.cat(videos))
    torch.testing.assert_close(sims, whole, atol=1e-6, rtol=1e-5)


def test_mixture_weights_are_ignored_with_frozen_weights() -> None:
    net = make_net(0, use_ce="", freeze_weights=True)
    weights = net.encode_text(make_batch(0)["text"]).weights
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"use_ce": "pairwize"}, 'use_ce "pairwize"'),
        ({"task": "classification"}, 'task "classification"'),
        ({"test_caption_mode": "max"}, 'test_caption_mode "max"'),
        ({"expert_dims": {}}, "one expert"),
        ({"expert_dims": {"audio": (6, 5), "scene": (7, 4)}}, "one embedding size"),
        ({"vlad_clusters": {"audio": 4, "text": 3}}, "not a multiple"),
        ({"randomise_feats": "faces"}, "faces"),
        ({"l2renorm": True}, "l2renorm"),
        ({"no_such_argument": 1}, "no_such_argument"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_net(0, **change)


def test_initial_clusters_have_the_scale_of_the_feature_size() -> None:
    torch.manual_seed(0)
    layer = NetVLAD(64, 400)
    assert layer.clusters.std().item() == pytest.approx(1 / math.sqrt(400), rel=0.05)
    assert layer.clusters2.std().item() == pytest.approx(1 / math.sqrt(400), rel=0.05)
