"""The model gives the published code's outputs, gradients and running statistics."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model import CENet
from model.loss import MaxMarginRankingLoss

CASES = [
    "a_ce_pairwise",
    "a3_ce_pairwise_no_missing",
    "c_ce_triplet",
    "c2_ce_triplet_noself",
    "d_ce_pairwise_star",
    "e_ce_pairwise_star_specific",
    "f_ce_pairwise_star_tensor",
    "g_moee",
    "h_mimic_ce_dims",
    "i_concat_experts_vid_larger",
    "i2_concat_experts_text_larger",
    "j_concat_mix_experts",
    "k_freeze_weights_moee",
    "l_keep_missing_modalities",
    "m_indep_multi_captions",
    "m2_avg_multi_captions",
    "n_no_text_vlad",
    "o_ghost2",
    "p4_compute_video_embeddings_classes5",
    "q_speech_and_ocr",
]
TOLERANCE = {"rtol": 0, "atol": 1e-5}
# Layers of the published code's classification path, which no published result uses.
UNWANTED = "ce.classifier."


def load(folder: Path, case: str) -> tuple[dict, dict[str, np.ndarray]]:
    facts = json.loads((folder / "model" / f"{case}.json").read_text())
    return facts, dict(np.load(folder / "model" / f"{case}.npz"))


def build(facts: dict) -> CENet:
    torch.manual_seed(facts["seed_before_construction"])
    extra = {"concat_zero_video": True} if facts["constructor_args"].get("concat_experts") else {}
    return CENet(**facts["constructor_args"], **extra)


def inputs(arrays: dict[str, np.ndarray]) -> dict:
    def part(prefix: str) -> dict[str, torch.Tensor]:
        found = {k: v for k, v in arrays.items() if k.startswith(prefix)}
        return {k.removeprefix(prefix): torch.from_numpy(v.copy()) for k, v in found.items()}

    return {
        "experts": part("in.experts."),
        "ind": part("in.ind."),
        "text": torch.from_numpy(arrays["in.text"]),
        "text_token_mask": torch.from_numpy(arrays["in.text_token_mask"]),
    }


def turned(batch: dict) -> dict:
    """The same batch with its dictionaries in another order, which must not matter."""
    return batch | {key: dict(reversed(batch[key].items())) for key in ("experts", "ind")}


def wanted(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith(UNWANTED)]


def check_outputs(output: dict, arrays: dict[str, np.ndarray], mode: str) -> None:
    if "embeddings" in output:
        assert {f"{mode}.embeddings.{name}" for name in output["embeddings"]} <= set(arrays)
        for name, found in output["embeddings"].items():
            expected = arrays[f"{mode}.embeddings.{name}"]
            np.testing.assert_allclose(found.detach(), expected, **TOLERANCE, err_msg=name)
        return
    expected = arrays[f"{mode}.cross_view_conf_matrix"]
    np.testing.assert_allclose(
        output["cross_view_conf_matrix"].detach().numpy(), expected, **TOLERANCE
    )
    for side in ("text_embds", "vid_embds"):
        prefix = f"{mode}.{side}."
        names = {k.removeprefix(prefix) for k in arrays if k.startswith(prefix)}
        assert set(output[side]) == names
        for name in names:
            found = output[side][name].detach().numpy()
            np.testing.assert_allclose(found, arrays[prefix + name], **TOLERANCE, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_outputs_gradients_and_running_statistics(golden: Path, case: str) -> None:
    facts, arrays = load(golden, case)
    net = build(facts)
    assert [name for name, _ in net.named_parameters()] == wanted(facts["param_order"])
    assert list(net.state_dict()) == wanted(facts["state_dict_order"])
    left_out = sum(v.size for k, v in arrays.items() if k.startswith(f"sd.{UNWANTED}"))
    assert sum(p.numel() for p in net.parameters()) == facts["trainable_params"] - left_out
    for name, parameter in net.named_parameters():
        total = facts["init_sum_seed0"][name]
        assert parameter.sum().item() == pytest.approx(total, abs=1e-4), name

    state = {k[3:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("sd.")}
    net.load_state_dict({name: state[name] for name in wanted(list(state))})
    batch = inputs(arrays)
    before = {name: x.clone() for name, x in batch["experts"].items()}
    with torch.no_grad():
        check_outputs(net.eval()(**batch), arrays, "eval")
        check_outputs(net.eval()(**turned(batch)), arrays, "eval")

    output = net.train()(**batch)
    check_outputs(output, arrays, "train")
    for name, x in batch["experts"].items():
        assert torch.equal(x.nan_to_num(), before[name].nan_to_num()), f"{name} was changed"
    matrix = output.get("cross_view_conf_matrix")
    if matrix is not None and matrix.requires_grad:
        loss = MaxMarginRankingLoss(margin=0.09)(matrix)
        assert loss.item() == pytest.approx(float(arrays["train.loss"]), abs=1e-5)
        loss.backward()
    for name, parameter in net.named_parameters():
        if f"grad.{name}" in arrays:
            np.testing.assert_allclose(
                parameter.grad.numpy(), arrays[f"grad.{name}"], **TOLERANCE, err_msg=name
            )
        else:
            assert name in facts["params_without_grad"]
            assert parameter.grad is None or not parameter.grad.any()
    buffers = dict(net.named_buffers())
    for key in (k for k in arrays if k.startswith("sd_after.")):
        found = buffers[key.removeprefix("sd_after.")].numpy()
        np.testing.assert_allclose(found, arrays[key], **TOLERANCE, err_msg=key)


def test_no_case_is_left_out(golden: Path) -> None:
    assert {path.stem for path in (golden / "model").iterdir()} == set(CASES)


def test_max_margin_loss(golden: Path) -> None:
    cases = json.loads((golden / "loss_optim" / "max_margin_loss.json").read_text())
    arrays = np.load(golden / "loss_optim" / "max_margin_loss.npz")
    assert cases and len(cases) == len({c["case"] for c in cases})
    for case in cases:
        sims = torch.from_numpy(arrays[f"{case['case']}.x"].copy()).requires_grad_()
        loss = MaxMarginRankingLoss(margin=case["margin"], fix_norm=case["fix_norm"])(sims)
        published_fails = case["loss"] is None or not np.isfinite(case["loss"])
        expected = 0.0 if published_fails else case["loss"]
        assert loss.item() == pytest.approx(expected, abs=1e-5), case
        loss.backward()
        gradient = np.zeros((1, 1)) if published_fails else arrays[f"{case['case']}.grad"]
        np.testing.assert_allclose(sims.grad, gradient, **TOLERANCE, err_msg=case["case"])
