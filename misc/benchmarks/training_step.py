"""A training step of MSRVTT's large models: forward, loss, backward, update."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_loader.batches import Batch
from data_loader.sets.declared import ModelInputs
from misc.benchmarks import plain_model
from misc.benchmarks.measure import Job, Workload, count_flops
from model.collaborative_gating import PairwiseGating
from model.loss import MaxMarginRankingLoss
from trainer.build import build_loss, build_net, build_optimiser_of, inputs_of
from trainer.distillation import Distillation
from trainer.memory import keeping_freed_memory
from trainer.step import TrainingStep, has_bfloat16
from utils.config import Config

CE = "configs/msrvtt/train-full-ce.json"
MOEE = "configs/msrvtt/train-full-moee.json"
TEACHTEXT = "configs/msrvtt/train-gpt2-xl-finetuned-mte-adam.json"

BATCH = 64
SHARE_WITH_EXPERT = 0.9
TEACHERS, TEACHER_SIZE, TEACHER_VIDEOS = 3, 768, 512


class StoredTeacher:
    """Random embeddings in memory, one caption for each of `TEACHER_VIDEOS` videos."""

    def __init__(self, number: int, num_experts: int) -> None:
        self.name = f"teacher {number}"
        shape = (TEACHER_VIDEOS, num_experts, TEACHER_SIZE)
        self.texts, self.videos = (F.normalize(torch.randn(shape), dim=2) for _ in range(2))
        self.weights = torch.softmax(torch.randn(shape[:2]), dim=1)
        self.available = (torch.rand(shape[:2]) < SHARE_WITH_EXPERT).float()

    def text(self, videos: np.ndarray, captions: np.ndarray) -> tuple[tuple[Tensor, ...], Tensor]:
        return self.texts[videos].unbind(1), self.weights[videos]

    def video(self, videos: np.ndarray) -> tuple[tuple[Tensor, ...], Tensor]:
        return self.videos[videos].unbind(1), self.available[videos]


def parts(path: str, scale: float, precision: str, **optimiser: bool) -> tuple[TrainingStep, Batch]:
    """Return a step of a config and its batch; the scale makes batch and model smaller."""
    config = Config.from_file(path)
    if scale < 1:
        config = config.merged(_smaller(config, scale))
    if optimiser:
        config = config.merged({"optimizer": {"args": optimiser}})
    inputs = inputs_of(config)
    torch.manual_seed(0)
    net = build_net(config, inputs).train()
    distillation = None
    if config.get("distil_loss"):
        teachers = [StoredTeacher(number, len(inputs.experts)) for number in range(TEACHERS)]
        distillation = Distillation(teachers)
    step = TrainingStep(
        net, build_loss(config), build_optimiser_of(config, net), precision, distillation
    )
    return step, make_batch(inputs, max(4, round(BATCH * scale)))


def _smaller(config: Config, scale: float) -> dict[str, Any]:
    """Return what makes a config's model smaller: its embeddings and its clusters of words."""
    clusters = config["arch.args.vlad_clusters"]
    fewer = {name: max(1, round(count * scale)) for name, count in clusters.items() if count}
    changes: dict[str, Any] = {"arch": {"args": {"vlad_clusters": fewer}}}
    if config.get("experts.ce_shared_dim"):
        size = max(8, round(config["experts.ce_shared_dim"] * scale))
        changes["experts"] = {"ce_shared_dim": size}
    return changes


def make_batch(inputs: ModelInputs, size: int) -> Batch:
    """Return random features of the real sizes."""
    experts = {}
    for expert in inputs.experts:
        shape = (expert.max_tokens, expert.size) if expert.variable_length else (expert.size,)
        experts[expert.name] = torch.randn(size, *shape)
    words = inputs.max_text_tokens
    return Batch(
        experts=experts,
        ind={name: (torch.rand(size) < SHARE_WITH_EXPERT).float() for name in experts},
        text=torch.randn(size, 1, words, inputs.text_size),
        text_token_mask=torch.full((size, 1), float(words)),
        video_indices=torch.randperm(TEACHER_VIDEOS)[:size],
        caption_indices=torch.zeros(size, dtype=torch.int64),
    )


def ours(scale: float, path: str, precision: str = "float32") -> Job:
    step, batch = parts(path, scale, precision)
    flops = operations(step, batch)
    keeping = ExitStack()  # as a training does
    keeping.enter_context(keeping_freed_memory())
    return Job(lambda: step(batch, 1), flops=flops, repeats=12, warmups=2, close=keeping.close)


def operations(step: TrainingStep, batch: Batch) -> float:
    """Count the operations of the model's matrix products, forward and backward."""
    flops = count_flops(lambda: step.loss(step.similarities(batch)).backward())
    step.optimiser.zero_grad(set_to_none=True)
    return flops


def reference(scale: float, path: str) -> Job:
    step, batch = parts(path, scale, "float32", foreach=False)
    return Job(plain_step(step, batch), repeats=3)


def plain_step(step: TrainingStep, batch: Batch) -> Callable[[], Tensor]:
    """The same step written out: pair by pair, row by row, one parameter after the other."""

    def run() -> Tensor:
        step.optimiser.zero_grad()
        sims = plain_similarities(step.net, batch)
        loss = plain_ranking_loss(sims, step.loss)
        if step.distillation:
            loss = loss + plain_distance(sims, step.distillation.teachers, batch)
        loss.backward()
        step.optimiser.step()
        return loss.detach()

    return run


def plain_similarities(net: nn.Module, batch: Batch) -> Tensor:
    """Compare captions and videos, with a weight for each of them and expert."""
    if isinstance(net.ce, PairwiseGating):
        embeddings, availability = plain_model.encode_videos(net, batch.experts, batch.ind)
    else:
        video = net.encode_video(batch.experts, batch.ind)
        embeddings, availability = list(video.embeddings), video.availability
    return plain_model.similarities(net.encode_text(batch.text), embeddings, availability)


def plain_ranking_loss(sims: Tensor, loss: MaxMarginRankingLoss) -> Tensor:
    """The mean of both directions' hinges, gathered row by row."""
    n, hinges = len(sims), []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        hinges.append(F.relu(loss.margin - sims[i, i] + sims[i, others]))
        hinges.append(F.relu(loss.margin - sims[i, i] + sims[others, i]))
    return torch.cat(hinges).mean()


def plain_distance(sims: Tensor, teachers: list[StoredTeacher], batch: Batch) -> Tensor:
    """The distance from the mean of the teachers, whose embeddings are collated one by one."""
    rows, matrices = batch.video_indices.tolist(), []
    for teacher in teachers:
        texts = torch.stack([teacher.texts[row] for row in rows])  # (B, M, D)
        videos = torch.stack([teacher.videos[row] for row in rows])
        weights = torch.stack([teacher.weights[row] for row in rows])  # (B, M)
        there = torch.stack([teacher.available[row] for row in rows])
        shares = weights.unsqueeze(1) * there.unsqueeze(0)  # (B, B, M)
        shares = shares / shares.sum(dim=2, keepdim=True)
        products = [texts[:, m] @ videos[:, m].T for m in range(texts.shape[1])]
        matrices.append((shares * torch.stack(products, dim=2)).sum(dim=2))
    return F.smooth_l1_loss(sims, torch.stack(matrices).mean(dim=0))


def _rows() -> tuple[Workload, ...]:
    rows = []
    for name, title, path in (
        ("step-ce", "training step, CE, batch 64", CE),
        ("step-moee", "training step, MoEE, batch 64", MOEE),
        ("step-teachtext", "training step, TeachText with 3 teachers, batch 64", TEACHTEXT),
    ):
        plain = partial(reference, path=path)
        rows.append(Workload(name, title, partial(ours, path=path), plain))
        # Where the processor has no instructions for it, it takes minutes and says nothing.
        if has_bfloat16():
            short = partial(ours, path=path, precision="bf16")
            rows.append(Workload(f"{name}-bf16", f"{title}, bf16", short, plain))
    return tuple(rows)


WORKLOADS = _rows()
