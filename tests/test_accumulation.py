"""A batch in parts gives the gradients of the whole batch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from data_loader.batches import Batch
from model.ce_net import CENet
from model.loss import NormSoftmaxLoss
from model.similarity import TextEmbeddings, VideoEmbeddings
from trainer.recipe.accumulation import accumulate_gradients, split_batch

EXPERTS = {"audio": (8, 6), "rgb": (7, 6), "scene": (3, 6)}


def make_net(use_ce: str = "pairwise", **settings: object) -> CENet:
    torch.manual_seed(0)
    return CENet(
        EXPERTS,
        text_dim=4,
        vlad_clusters={"text": 2, "audio": 2},
        feat_aggregation={"audio": {"temporal": "vlad"}},
        use_ce=use_ce,
        **settings,
    ).double()


def make_batch(size: int, captions: int = 1) -> Batch:
    torch.manual_seed(1)
    shapes = {"audio": (3, 4), "rgb": (7,), "scene": (3,)}
    return Batch(
        experts={name: torch.randn(size, *shape).double() for name, shape in shapes.items()},
        ind={name: (torch.rand(size) < 0.7).double() for name in EXPERTS},
        text=torch.randn(size, captions, 3, 4).double(),
        text_token_mask=torch.full((size, captions), 3.0),
        video_indices=torch.arange(size),
        caption_indices=torch.zeros(size, dtype=torch.int64),
    )


def encoder(net: CENet) -> Callable[[Batch], tuple[TextEmbeddings, VideoEmbeddings]]:
    return lambda part: (
        net.encode_text(part.text, part.text_token_mask),
        net.encode_video(part.experts, part.ind),
    )


def gradients(net: nn.Module) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    return found


@pytest.mark.parametrize("settings", [{"use_ce": ""}, {}, {"freeze_weights": True}], ids=str)
@pytest.mark.parametrize("captions", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_gradients_are_those_of_the_whole_batch_where_statistics_are_fixed(
    settings: dict, captions: int, count: int
) -> None:
    net, batch, losses = make_net(**settings).eval(), make_batch(7, captions), []

    def backward(sims: Tensor) -> None:
        loss = NormSoftmaxLoss(0.2)(sims.view(7, captions, 7).mean(dim=1))
        loss.backward()
        losses.append(loss.item())

    accumulate_gradients(net, [batch], encoder(net), backward)
    found_as_one = gradients(net)
    accumulate_gradients(net, split_batch(batch, count), encoder(net), backward)
    found = gradients(net)
    net.test_caption_mode = "avg"
    sims = net(batch.experts, batch.ind, batch.text)["cross_view_conf_matrix"]
    loss = NormSoftmaxLoss(0.2)(sims)
    loss.backward()
    expected = gradients(net)
    assert losses == pytest.approx([loss.item()] * 2)
    assert found.keys() == expected.keys() == found_as_one.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
        torch.testing.assert_close(found_as_one[name], expected[name])


def test_in_training_the_second_pass_meets_what_the_first_has_met() -> None:
    net, batch = make_net(randomise_feats="rgb").train(), make_batch(6)
    seen: list[Tensor] = []

    def encode(part: Batch) -> tuple[TextEmbeddings, VideoEmbeddings]:
        text, video = encoder(net)(part)
        seen.append(torch.cat([*text.embeddings, *video.embeddings]).detach())
        return text, video

    parts = split_batch(batch, 2)
    once = make_net(randomise_feats="rgb").train()
    torch.manual_seed(3)
    for part in parts:
        encoder(once)(part)
    torch.manual_seed(3)
    accumulate_gradients(net, parts, encode, lambda sims: sims.sum().backward())
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    for one, other in zip(net.buffers(), once.buffers(), strict=True):
        assert torch.equal(one, other)  # statistics are counted once


def test_only_one_part_is_held_with_its_activations() -> None:
    net, batch = make_net().train(), make_batch(12)
    most, held = 0, 0

    class Graph(torch.autograd.graph.saved_tensors_hooks):
        def __init__(self) -> None:
            super().__init__(self.pack, lambda value: value)

        def pack(self, value: Tensor) -> Tensor:
            nonlocal held
            held += value.numel()
            return value

    sizes = []
    for count in (1, 4):
        most = 0

        def encode(part: Batch) -> tuple[TextEmbeddings, VideoEmbeddings]:
            nonlocal held, most
            held = 0
            with Graph():
                made = encoder(net)(part)
            most = max(most, held)
            return made

        accumulate_gradients(
            net, split_batch(batch, count), encode, lambda sims: sims.sum().backward()
        )
        sizes.append(most)
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize(
    ("size", "count", "sizes"),
    [(8, 3, [2, 3, 3]), (8, 1, [8]), (5, 4, [2, 3]), (3, 2, [3]), (1, 4, [1])],
)
def test_parts_hold_two_videos_or_more(size: int, count: int, sizes: list[int]) -> None:
    batch = make_batch(size)
    parts = split_batch(batch, count)
    assert [len(part.text) for part in parts] == sizes
    for name in EXPERTS:
        assert torch.equal(torch.cat([part.experts[name] for part in parts]), batch.experts[name])
        assert torch.equal(torch.cat([part.ind[name] for part in parts]), batch.ind[name])
    assert torch.equal(torch.cat([part.video_indices for part in parts]), batch.video_indices)
