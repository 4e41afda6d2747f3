"""A slow twin of CENet that shares no code with it: loops over clusters, experts and pairs.

It reads weights by their names in the state dict and follows the specification step by step.
"""

import itertools
from typing import Any

import torch
from torch import Tensor


class NaiveNet:
    """The model that `settings` (constructor arguments of CENet) and a state dict describe.

    Attributes:
        weights: the state dict; parameters collect gradients, buffers are updated in training.
    """

    def __init__(self, settings: dict[str, Any], state: dict[str, Tensor], training: bool) -> None:
        self.settings = settings
        self.names = [name for name, _ in settings["expert_dims"]]
        self.training = training
        self.weights = {
            name: value.detach().clone().requires_grad_(value.is_floating_point())
            for name, value in state.items()
        }
        for name in self.weights:
            if "running_" in name:
                self.weights[name].requires_grad_(False)

    def __call__(self, experts: dict, ind: dict, text: Tensor) -> Tensor:
        """The similarity matrix; arguments as for CENet."""
        there = [[bool(ind[name][b] > 0) for name in self.names] for b in range(len(text))]
        pooled = []
        for m, name in enumerate(self.names):
            rows = [
                row if there[b][m] else torch.zeros_like(row) for b, row in enumerate(experts[name])
            ]
            x = torch.stack(rows)
            prefix = f"pooling.{name.replace('.', '_')}"
            pooled.append(self.vlad(prefix, x) if f"{prefix}.clusters" in self.weights else x)
        videos = self.video_side(pooled, there)
        captions = text.flatten(0, 1)
        if "text_pooling.clusters" in self.weights:
            captions = self.vlad("text_pooling", captions)
        else:
            captions = captions[:, 0]
        matrix = self.similarities(captions, videos, there)
        count = text.shape[1]
        if count > 1 and (self.training or self.settings.get("test_caption_mode") == "avg"):
            groups = [matrix[b * count : (b + 1) * count] for b in range(len(text))]
            matrix = torch.stack([sum(group) / count for group in groups])
        return matrix

    def linear(self, prefix: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{prefix}.weight"].T + self.weights[f"{prefix}.bias"]

    def batch_norm(self, prefix: str, x: Tensor) -> Tensor:
        mean, variance = (self.weights[f"{prefix}.running_{kind}"] for kind in ("mean", "var"))
        if self.training:
            count = len(x)
            mean = x.sum(dim=0) / count
            variance = ((x - mean) ** 2).sum(dim=0) / count
            with torch.no_grad():
                for kind, new in (("mean", mean), ("var", variance * count / (count - 1))):
                    buffer = self.weights[f"{prefix}.running_{kind}"]
                    buffer.copy_(0.9 * buffer + 0.1 * new)
                self.weights[f"{prefix}.num_batches_tracked"].add_(1)
        normal = (x - mean) / (variance + 1e-5).sqrt()
        return normal * self.weights[f"{prefix}.weight"] + self.weights[f"{prefix}.bias"]

    def vlad(self, prefix: str, tokens: Tensor) -> Tensor:
        clusters, centres = (self.weights[f"{prefix}.{n}"] for n in ("clusters", "clusters2"))
        scores = self.batch_norm(f"{prefix}.batch_norm", tokens.flatten(0, 1) @ clusters)
        shares = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        shares = shares.view(*tokens.shape[:2], -1)
        columns = []
        for k in range(centres.shape[2]):
            parts = [
                shares[:, t, k, None] * (x - centres[0, :, k])
                for t, x in enumerate(tokens.unbind(1))
            ]
            columns.append(normalised(sum(parts)))
        return normalised(torch.stack(columns, dim=2).flatten(1))

    def gated(self, prefix: str, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Context gating and L2 norm, modulated by `mask` where others have a say."""
        if f"{prefix}.fc.weight" in self.weights:
            x = self.linear(f"{prefix}.fc", x)
        inner = self.linear(f"{prefix}.cg.fc", x)
        if mask is None:
            gate = self.batch_norm(f"{prefix}.cg.batch_norm", inner)
        else:
            gate = self.batch_norm(f"{prefix}.cg.batch_norm", mask)
            gate = gate + self.batch_norm(f"{prefix}.cg.batch_norm2", inner)
        return normalised(x / (1 + (-gate).exp()))

    def layers(self, prefix: str, count: int, x: Tensor) -> Tensor:
        place = 0
        for _ in range(count):
            if self.settings.get("use_bn_reason", 1):
                x = self.batch_norm(f"{prefix}.{place}", x)
                place += 1
            x = self.activation(x)
            x = self.linear(f"{prefix}.{place + 1}", x)
            place += 2
        return x

    def activation(self, x: Tensor) -> Tensor:
        if self.settings.get("use_mish", 1):
            return x * torch.tanh(torch.log(1 + x.exp()))
        return x * (x > 0)

    def video_side(self, pooled: list[Tensor], there: list[list[bool]]) -> list[Tensor]:
        kind = self.settings.get("use_ce", "")
        if self.settings.get("concat_experts"):
            return [torch.cat(pooled, dim=1)]
        if self.settings.get("concat_mix_experts"):
            return [self.gated("ce.video_GU.0", torch.cat(pooled, dim=1))]
        if not kind and not self.settings.get("mimic_ce_dims"):
            return [self.gated(f"ce.video_GU.{m}", x) for m, x in enumerate(pooled)]
        reduced = []
        for m, x in enumerate(pooled):
            reduced.append(normalised(self.linear(f"ce.video_dim_reduce.{m}.fc", x)))
        if not kind:
            return [self.gated(f"ce.video_GU.{m}", x) for m, x in enumerate(reduced)]
        star = self.star(reduced, there) if "star" in kind else None
        for i in range(len(reduced)):
            reason = self.layers_of(kind, i, reduced, there, star)
            reason = self.layers("ce.h_reason", self.settings.get("num_h_layers", 0), reason)
            reduced[i] = self.gated(f"ce.video_GU.{i}", reduced[i], reason)
        return reduced

    def star(self, x: list[Tensor], there: list[list[bool]]) -> Tensor:
        rows = []
        for b, present in enumerate(there):
            chosen = [x[m][b] for m, is_there in enumerate(present) if is_there]
            rows.append(sum(chosen) / len(chosen) if chosen else torch.zeros_like(x[0][b]))
        return torch.stack(rows)

    def layers_of(
        self, kind: str, i: int, x: list[Tensor], there: list[list[bool]], star: Tensor | None
    ) -> Tensor:
        """What the others say of expert i."""
        shared = self.settings.get("num_g_layers", 3) - 1
        if star is not None:
            first = self.star_layers(kind, i, x[i], star)
            reason = self.layers("ce.g_reason_shared", shared, first)
            return torch.stack([row * there[b][i] for b, row in enumerate(reason)])
        groups = list(itertools.product(range(len(x)), repeat=2 if kind == "triplet" else 1))
        if not self.settings.get("include_self", 1):
            groups = [group for group in groups if len({i, *group}) == 1 + len(group)]
        present = torch.tensor(there).float()
        total, count = torch.zeros_like(x[i]), torch.zeros(len(there), 1)
        for group in groups:
            joined = torch.cat([x[i], *(x[j] for j in group)], dim=1)
            reason = self.linear("ce.g_reason_1", joined)
            reason = self.layers("ce.g_reason_shared", shared, reason)
            all_there = present[:, [i, *group]].prod(dim=1, keepdim=True)
            total, count = total + reason * all_there, count + all_there
        return total / (count + 1e-11)

    def star_layers(self, kind: str, i: int, x: Tensor, star: Tensor) -> Tensor:
        if kind == "pairwise-star-tensor":
            one, other = (self.linear("ce.dim_reduce", side) for side in (x, star))
            outer = [torch.outer(a, b).flatten() for a, b in zip(one, other, strict=True)]
            return self.linear("ce.g_reason_1", torch.stack(outer))
        joined = torch.cat([x, star], dim=1)
        if kind == "pairwise-star":
            return self.linear("ce.g_reason_1", joined)
        prefix = f"ce.g_reason_unshared_weights.{i}"
        first = self.activation(self.linear(f"{prefix}.g_reason_1_specific", joined))
        return self.linear(f"{prefix}.g_reason_2_specific", first)

    def similarities(
        self, captions: Tensor, videos: list[Tensor], there: list[list[bool]]
    ) -> Tensor:
        plain = self.settings.get("keep_missing_modalities", False)
        if self.settings.get("concat_experts"):
            texts, plain = [captions], True
        elif self.settings.get("concat_mix_experts"):
            texts, plain = [self.gated("ce.text_GU.0", captions)], True
        else:
            texts = [self.gated(f"ce.text_GU.{m}", captions) for m in range(len(videos))]
        shares = self.mixture(captions)
        total = torch.zeros(len(captions), len(there))
        weight = torch.zeros(len(captions), len(there))
        present = torch.tensor(there).float()
        for m, (text, video) in enumerate(zip(texts, videos, strict=True)):
            products = inner(text, video)
            if plain:
                total = total + products
                continue
            pair_weight = torch.outer(shares[:, m], present[:, m])
            total, weight = total + pair_weight * products, weight + pair_weight
        return total if plain else total / weight.where(weight > 0, torch.ones(()))

    def mixture(self, captions: Tensor) -> Tensor:
        count = len(self.names)
        if self.settings.get("freeze_weights"):
            return torch.full((len(captions), count), 1 / count)
        scores = self.linear("ce.moe_fc", captions)
        return scores.exp() / scores.exp().sum(dim=1, keepdim=True)


def normalised(x: Tensor) -> Tensor:
    return x / (x**2).sum(dim=1, keepdim=True).sqrt().clamp(min=1e-12)


def inner(texts: Tensor, videos: Tensor) -> Tensor:
    """Inner products; the shorter side is padded with zeros."""
    common = min(texts.shape[1], videos.shape[1])
    return texts[:, :common] @ videos[:, :common].T
