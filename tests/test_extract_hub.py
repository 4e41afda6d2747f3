"""Experts by hub name, on tiny models of the same libraries that lie in folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from misc.extract_experts.expert import Chunk, Frames, Loaded, Seen, Settings, Words
from misc.extract_experts.experts.table import HUB_ROWS, PRESETS, ROWS, wanted_expert
from tests import tiny_networks
from tests.tiny_encoders import make_encoder
from utils.errors import UserError

RNG = np.random.default_rng(0)


def load(row: str, model: object) -> Loaded:
    return ROWS[row].load(Settings(str(model)))


def chunk(expert: Loaded, count: int, start: float = 0.0) -> Chunk:
    """Noise as an expert wants to see or hear it."""
    look = expert.look
    if isinstance(look, Frames):
        shape = (count, look.size, look.size + (0 if look.square else 8), 3)
        times = start + np.arange(count) / look.fps
        return Chunk(RNG.integers(0, 256, shape, dtype=np.uint8), times)
    sound = RNG.normal(0, 0.1, count).astype(np.float32)
    return Chunk(sound, np.array([start]))


def vectors(expert: Loaded, *chunks: Chunk) -> list[np.ndarray]:
    found = expert.function(chunks)
    assert all(isinstance(seen, Seen) for seen in found)
    return [seen.vectors for seen in found]


def check(expert: Loaded, one: Chunk, other: Chunk) -> None:
    """The chunks of a batch are seen apart, and differ."""
    together, apart = vectors(expert, one, other), [*vectors(expert, one), *vectors(expert, other)]
    for a, b in zip(together, apart, strict=True):
        assert a.dtype == np.float32 and a.shape[1] == expert.size and np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(together[0][0] - together[1][0]).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_vit", {}),
        (
            "vit_pe_core_tiny_patch16_384",
            {"img_size": 32, "embed_dim": 64, "num_heads": 4, "depth": 1},
        ),
        ("legacy_seresnet18", {}),  # the class of legacy_senet154
    ],
)
def test_a_network_of_timm_gives_its_pooled_features(
    tmp_path: Path, name: str, arguments: dict[str, int]
) -> None:
    timm = pytest.importorskip("timm")
    folder = tiny_networks.make_timm(tmp_path / "model", name, **arguments)
    expert = load("timm", folder)
    frames = chunk(expert, 3)
    check(expert, frames, chunk(expert, 1))

    network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(config[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    pixels = torch.from_numpy(frames.values).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected = network((pixels - mean) / std)
    np.testing.assert_allclose(vectors(expert, frames)[0], expected, atol=1e-4)


@pytest.mark.parametrize("squash", [False, True])
def test_open_clip_and_its_text_tower_share_a_space(tmp_path: Path, squash: bool) -> None:
    open_clip = pytest.importorskip("open_clip")
    from PIL import Image

    from misc.extract_experts.experts.hub_dual import query_tower

    folder = tiny_networks.make_open_clip(tmp_path / "model", squash)
    expert = load("open_clip", folder)
    assert isinstance(expert.look, Frames) and expert.look.square is not squash
    frames = chunk(expert, 2)
    check(expert, frames, chunk(expert, 1))

    network, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a dog runs", "two cats"])
    pictures = torch.stack([transform(Image.fromarray(frame)) for frame in frames.values])
    with torch.no_grad():
        seen = network.encode_image(pictures, normalize=True)
        said = network.encode_text(tokens, normalize=True)
    # Frames that keep their shape are pressed into a square by another resampling than Pillow's.
    np.testing.assert_allclose(vectors(expert, frames)[0], seen, atol=0.02 if squash else 1e-4)
    tower = query_tower(expert.record["query"])
    np.testing.assert_allclose(tower(["a dog runs", "two cats"]), said, atol=1e-5)


def test_clip_of_transformers_and_its_text_tower_share_a_space(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from misc.extract_experts.experts.hub_dual import query_tower

    folder = make_encoder(tmp_path / "clip", "clip")
    expert = load("clip", folder)
    frames = chunk(expert, 2)
    check(expert, frames, chunk(expert, 1))
    network = transformers.CLIPModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)("a dog", return_tensors="pt")
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    pixels = (torch.from_numpy(frames.values).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        whole = network(pixel_values=pixels, **tokens)
    np.testing.assert_allclose(vectors(expert, frames)[0], whole.image_embeds, atol=1e-5)
    said = query_tower(expert.record["query"])(["a dog", "a dog runs " * 30])
    np.testing.assert_allclose(said[:1], whole.text_embeds, atol=1e-5)


def test_siglip_presses_frames_into_a_square_and_fills_texts_up(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from misc.extract_experts.experts.hub_dual import query_tower

    folder = tiny_networks.make_siglip(tmp_path / "siglip")
    expert = load("clip", folder)
    assert isinstance(expert.look, Frames) and not expert.look.square
    frames = chunk(expert, 2)
    check(expert, frames, chunk(expert, 1))
    network = transformers.SiglipModel.from_pretrained(folder).eval()
    pixels = torch.from_numpy(frames.values).permute(0, 3, 1, 2).float()
    pixels = torch.nn.functional.interpolate(pixels, (16, 16), mode="bicubic", antialias=True)
    ids = transformers.AutoTokenizer.from_pretrained(folder)(
        ["a dog", "a dog runs over the red bridge"],
        **{"padding": "max_length", "max_length": 8, "truncation": True, "return_tensors": "pt"},
    )["input_ids"]
    with torch.no_grad():
        whole = network(input_ids=ids, pixel_values=pixels.clamp(0, 255) / 127.5 - 1)
    np.testing.assert_allclose(vectors(expert, frames)[0], whole.image_embeds, atol=1e-4)
    said = query_tower(expert.record["query"])(["a dog", "a dog runs over the red bridge"])
    np.testing.assert_allclose(said, whole.text_embeds, atol=1e-4)


@pytest.mark.parametrize("fusion", [False, True])
def test_clap_hears_pieces_and_its_text_tower_reads(tmp_path: Path, fusion: bool) -> None:
    pytest.importorskip("transformers")
    from misc.extract_experts.experts.hub_dual import query_tower

    expert = load("clap", tiny_networks.make_clap(tmp_path / "clap", fusion))
    check(expert, chunk(expert, 16000), chunk(expert, 700))
    silence = Chunk(np.zeros(16000, np.float32), np.zeros(1))
    quiet, heard = expert.function([silence, chunk(expert, 16000)])
    assert quiet == Seen() and heard.vectors is not None and len(heard.vectors) == 1
    said = query_tower(expert.record["query"])(["a dog", "a dog runs " * 30])
    assert said.shape == (2, expert.size)
    np.testing.assert_allclose(np.linalg.norm(said, axis=1), 1, atol=1e-5)


def test_a_text_tower_of_other_weights_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from misc.extract_experts.experts.hub_dual import query_tower

    folder = make_encoder(tmp_path / "clip", "clip")
    query = load("clip", folder).record["query"]
    make_encoder(tmp_path / "other", "clip", seed=1).rename(tmp_path / "x")
    with pytest.raises(UserError, match="not those that made the features"):
        query_tower({**query, "model": str(tmp_path / "x")})
    with pytest.raises(UserError, match="No query tower is known"):
        query_tower({**query, "row": "timm"})


def test_videomae_gives_the_mean_of_its_tokens(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tiny_networks.make_videomae(tmp_path / "videomae")
    expert = load("videomae", folder)
    clip = chunk(expert, 4)
    short = Chunk(clip.values[:2], clip.times[:2])
    check(expert, clip, short)
    whole = Chunk(clip.values[[0, 1, 1, 1]], clip.times)
    np.testing.assert_allclose(vectors(expert, short)[0], vectors(expert, whole)[0], atol=1e-6)
    network = transformers.VideoMAEModel.from_pretrained(folder).eval()
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
    pixels = (torch.from_numpy(clip.values).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        expected = network(pixels[None]).last_hidden_state.mean(1)
    np.testing.assert_allclose(vectors(expert, clip)[0], expected, atol=1e-5)


def test_whisper_says_what_its_network_says(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    expert = load("whisper", tiny_networks.make_whisper(tmp_path / "whisper", "red dog"))
    silence = Chunk(np.zeros(16000, np.float32), np.zeros(1))
    first, last = chunk(expert, 32000, start=60.0), chunk(expert, 8000)
    assert expert.function([first, silence, last]) == [
        Seen(None, (Words("red dog", 60.0, 61.0),)),
        Seen(),
        Seen(None, (Words("red dog", 0.0, 0.5),)),
    ]


def test_a_video_network_of_torchvision_gives_its_features(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.video.r2plus1d_18().eval()
    path = tmp_path / "r2plus1d_18-0123abcd.pth"
    torch.save(network.state_dict(), path)
    expert = load("torchvision", path)
    assert isinstance(expert.look, Frames) and expert.look.count == 16
    clip = chunk(expert, 10)
    found = vectors(expert, clip)[0]
    assert found.shape == (1, 512) == (1, expert.size)
    transform = torchvision.models.video.R2Plus1D_18_Weights.DEFAULT.transforms()
    whole = clip.values[[*range(10), *[9] * 6]]
    pixels = torch.from_numpy(whole).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (transform.mean, transform.std))
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = network(((pixels - mean) / std).transpose(0, 1)[None])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_every_video_network_of_torchvision_has_a_family() -> None:
    models = pytest.importorskip("torchvision").models
    from misc.extract_experts.experts.hub import family_of

    tried = set()
    for name in models.list_models(module=models.video):
        how, weights = family_of(name), models.get_model_weights(name).DEFAULT
        assert f"frame_rate={how.fps:g}`" in weights.meta["_docs"]
        if how in tried:
            continue
        tried.add(how)
        size = weights.transforms().crop_size[0]
        with torch.device("meta"):
            network = models.get_model(name).eval()
            *_, last = (p for p in getattr(network, how.head).parameters() if p.ndim > 1)
            setattr(network, how.head, torch.nn.Identity())
            features = network(torch.zeros(1, 3, how.frames, size, size))
        assert features.shape == (1, last.shape[1]), name


def test_the_presets_name_models_that_the_libraries_list() -> None:
    timm, open_clip = pytest.importorskip("timm"), pytest.importorskip("open_clip")
    torchvision = pytest.importorskip("torchvision")
    listed = {
        "timm": timm.list_pretrained(),
        "open_clip": ["/".join(pair) for pair in open_clip.list_pretrained()],
        "torchvision": torchvision.models.list_models(module=torchvision.models.video),
    }
    wanted = [wanted_expert(spec) for specs in PRESETS.values() for spec in specs]
    named = [one for one in wanted if one.row.name in listed]
    assert len(named) >= 6
    for one in named:
        assert one.model in listed[one.row.name], one.spec


@pytest.mark.parametrize("specs", PRESETS.values(), ids=PRESETS)
def test_the_experts_of_a_preset_have_names_of_their_own(specs: tuple[str, ...]) -> None:
    names = [wanted_expert(spec).name for spec in specs]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("row", "model", "message"),
    [
        ("timm", "legacy_senet145", r'timm lists no model .*did you mean "legacy_senet154'),
        ("open_clip", "ViT-B-16-SigLIP2/weblo", r'did you mean "ViT-B-16-SigLIP2/webli"'),
        ("torchvision", "r2plus1d_81", r'did you mean "r2plus1d_18"'),
    ],
)
def test_a_name_that_no_list_has_is_refused(row: str, model: str, message: str) -> None:
    pytest.importorskip("timm" if row == "timm" else row)
    with pytest.raises(UserError, match=message):
        load(row, model)


@pytest.mark.parametrize("row", [row.name for row in HUB_ROWS])
def test_a_folder_without_a_model_is_refused(tmp_path: Path, row: str) -> None:
    needs = {"timm": "timm", "open_clip": "open_clip", "torchvision": "torchvision"}
    pytest.importorskip(needs.get(row, "transformers"))
    with pytest.raises(UserError):
        load(row, tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    """Libraries go on with random numbers where there are none."""
    pytest.importorskip("open_clip")
    model = tiny_networks.make_open_clip(tmp_path / "open_clip")
    (model / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match="open_clip model"):
        load("open_clip", model)
    model = tiny_networks.make_timm(tmp_path / "timm")
    for path in (*model.glob("*.safetensors"), *model.glob("*.bin")):
        path.unlink()
    with pytest.raises(UserError, match="timm model"):
        load("timm", model)


class _Hostile:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("row", ["timm", "open_clip", "videomae", "torchvision"])
def test_weights_that_run_code_when_they_are_unpickled_are_refused(
    tmp_path: Path, row: str
) -> None:
    pytest.importorskip("transformers" if row == "videomae" else row)
    weights = {"weight": _Hostile(tmp_path / "mark")}
    model = tmp_path / "model"
    if row == "torchvision":
        model.mkdir()
        model = model / "s3d-0123abcd.pth"
        torch.save(weights, model)
    else:
        getattr(tiny_networks, f"make_{row}")(model)
        for path in model.glob("*.safetensors"):
            path.unlink()
        torch.save(weights, model / "pytorch_model.bin")
    with pytest.raises(UserError):
        load(row, model)
    assert not (tmp_path / "mark").exists()
    torch.load(next(tmp_path.rglob("*.[pb][ti][hn]")), weights_only=False)
    assert (tmp_path / "mark").exists(), "nothing would have happened anyway"


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    path = tmp_path / "s3d-0123abcd.pth"
    torch.save({"fc.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="torchvision model"):
        load("torchvision", path)
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match=r"can be neither loaded|lack"):
        load("clap", make_encoder(tmp_path / "bert", "bert"))


@pytest.mark.parametrize("row", [*HUB_ROWS], ids=lambda row: row.name)
def test_a_missing_package_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, row: Any
) -> None:
    for name in ("timm", "open_clip", "torchvision", "transformers"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    command = "`pip install -r requirements/extract-hub-requirements.txt`"
    with pytest.raises(UserError, match=rf'The expert "{row.name}" needs the package .*{command}'):
        row.load(Settings("anything"))
