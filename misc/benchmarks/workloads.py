"""All workloads, in the order of the table, and how each is prepared.

What stands in here also runs with the code of an older checkout (`--beside`): it imports little
outside this package, and each function what it needs.
"""

import gc
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from misc.benchmarks import synthetic
from misc.benchmarks.measure import Job, end_with_parent

BATCH, SHARE_WITH_EXPERT = 64, 0.9
TEACHERS, TEACHER_SIZE, TEACHER_VIDEOS = 3, 768, 512
METRICS = ("t2v_metrics", "v2t_metrics")
# A quarter of MSRVTT.
TRAIN, TEST = 1628, 748
# All libraries of requirements/pip-requirements.txt, as a program has them that imports whatever it
# may need at its top.
LIBRARIES = "av, h5py, jinja2, msgpack, PIL.Image, requests, scipy.io, scipy.ndimage, scipy.stats"
LIBRARIES += ", tensorboard, torch.utils.tensorboard, tqdm, "
TRAINING = "train, trainer.session"


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    Attributes:
        title: for the table.
        prepare: of this module; takes the scale, 1 for the real sizes, and the settings.
        settings: keyword arguments.
        plain: settings over these that make it the plain formulation of the same.
        published: cpu-seconds of the published code, measured elsewhere.
        is_bf16: whether it needs instructions for bfloat16; without, it would take minutes.
        is_long: whether it is measured only when it is named.
    """

    title: str
    prepare: Callable[..., Job]
    settings: dict[str, Any] = field(default_factory=dict)
    plain: dict[str, Any] | None = None
    published: str = "-"
    is_bf16: bool = False
    is_long: bool = False


def step(scale: float, path: str, precision: str = "float32", plain: bool = False) -> Job:
    """A training step: forward, loss, backward, update; plainly, by the tests' naive model."""
    from misc.benchmarks.peak import Products
    from trainer.memory import keeping_freed_memory

    step, batch, twin = step_parts(scale, path, precision, plain)
    if plain:

        def naive_step() -> object:
            step.optimiser.zero_grad()
            loss = step.loss(twin(batch.experts, batch.ind, batch.text))
            loss.backward()
            step.optimiser.step()
            return loss.detach()

        return Job(naive_step, repeats=2)
    keeping = keeping_freed_memory()  # as a training does
    run = partial(step, batch, 1)
    return Job(run, repeats=6, warmups=2, during=keeping, products=Products())


def step_parts(scale: float, path: str, precision: str, plain: bool) -> tuple[Any, Any, Any]:
    """Return a step of a config, its batch, and its naive model where it is to be `plain`."""
    import torch

    from data_loader.batches import Batch
    from trainer import build
    from trainer.distillation import Distillation
    from trainer.step import TrainingStep
    from utils.config import Config

    config = Config.from_file(path)
    if scale < 1:  # fewer clusters of words, smaller embeddings
        clusters = {
            k: max(1, round(n * scale)) for k, n in config["arch.args.vlad_clusters"].items()
        }
        config = config.merged({"arch": {"args": {"vlad_clusters": clusters}}})
        size = max(8, round(config.get("experts.ce_shared_dim", 8) * scale))
        config = config.merged({"experts": {"ce_shared_dim": size}})
    if plain:
        config = config.merged({"optimizer": {"args": {"foreach": False}}})
    inputs = build.inputs_of(config)
    torch.manual_seed(0)
    net = build.build_net(config, inputs).train()
    teachers = [StoredTeacher(number, len(inputs.experts)) for number in range(TEACHERS)]
    distillation = Distillation(teachers) if config.get("distil_loss") else None
    optimiser = build.build_optimiser_of(config, net)
    step = TrainingStep(net, build.build_loss(config), optimiser, precision, distillation)
    size, words = max(4, round(BATCH * scale)), inputs.max_text_tokens
    tokens = {e.name: (e.max_tokens,) if e.variable_length else () for e in inputs.experts}
    batch = Batch(
        experts={e.name: torch.randn(size, *tokens[e.name], e.size) for e in inputs.experts},
        ind={name: (torch.rand(size) < SHARE_WITH_EXPERT).float() for name in tokens},
        text=torch.randn(size, 1, words, inputs.text_size),
        text_token_mask=torch.full((size, 1), float(words)),
        video_indices=torch.randperm(TEACHER_VIDEOS)[:size],
        caption_indices=torch.zeros(size, dtype=torch.int64),
    )
    return step, batch, naive(config, net, inputs) if plain else None


def naive(config: Any, net: Any, inputs: Any) -> Any:
    """Return the tests' naive model, with the weights of a net as its own."""
    from tests.naive_model import NaiveNet
    from trainer.build import expert_dims

    dims = list(expert_dims(config, inputs).items())
    twin = NaiveNet(config["arch.args"] | {"expert_dims": dims}, {}, net.training)
    twin.weights = dict(net.named_parameters()) | dict(net.named_buffers())
    return twin


class StoredTeacher:
    """Random embeddings in memory, one caption for each of `TEACHER_VIDEOS` videos."""

    def __init__(self, number: int, num_experts: int) -> None:
        import torch

        self.name = f"teacher {number}"
        shape = (TEACHER_VIDEOS, num_experts, TEACHER_SIZE)
        self.texts, self.videos = (
            torch.nn.functional.normalize(torch.randn(shape), dim=2) for _ in range(2)
        )
        self.weights = torch.softmax(torch.randn(shape[:2]), dim=1)
        self.available = (torch.rand(shape[:2]) < SHARE_WITH_EXPERT).float()

    def text(self, videos: Any, captions: Any) -> tuple[Any, Any]:
        return self.texts[videos].unbind(1), self.weights[videos]

    def video(self, videos: Any) -> tuple[Any, Any]:
        return self.videos[videos].unbind(1), self.available[videos]


def evaluation(
    scale: float, videos: int, captions: int, repeats: int, warmups: int = 1, plain: bool = False
) -> Job:
    """Evaluate MSRVTT's largest CE (9 experts, 183M parameters) from features to metrics.

    The plain formulation is the tests' naive model, without metrics.
    """
    import torch

    from misc.benchmarks.peak import Products
    from trainer.build import build_loader, build_net
    from trainer.evaluation.evaluate import evaluate
    from trainer.memory import keeping_freed_memory

    folder = synthetic.temporary_files(train=2, test=max(4, round(videos * scale)))
    config = synthetic.config_of(folder, captions)
    loader = build_loader(config, 0)
    torch.manual_seed(0)
    net, retrieval = build_net(config, loader).eval(), loader.retrieval
    if plain:
        twin = naive(config, net, loader)

        def naive_similarities() -> object:
            with torch.inference_mode():
                [all_videos] = retrieval.video_blocks(len(retrieval))
                text, _ = retrieval.queries(np.arange(len(retrieval) * captions))
                shaped = text.view(len(retrieval), captions, *text.shape[2:])
                return twin(all_videos.experts, all_videos.ind, shaped)

        return Job(naive_similarities, repeats=1, warmups=0)
    keeping = keeping_freed_memory()  # as a test does
    run = partial(evaluate, net, retrieval, METRICS, torch.device("cpu"))
    products = Products() if warmups else None
    return Job(run, repeats=repeats, warmups=warmups, during=keeping, products=products)


def metrics(scale: float) -> Job:
    """Rank a similarity matrix of MSRVTT's test: 2,990 videos with 20 captions each."""
    import torch

    from model.metric import t2v_metrics, v2t_metrics

    videos, captions = max(4, round(2990 * scale)), 20
    rng = np.random.default_rng(0)
    sims = torch.from_numpy(rng.standard_normal((videos * captions, videos), dtype=np.float32))
    masks = np.ones((videos, captions), dtype=np.float32)
    masks[rng.integers(0, videos, 6), captions - 1] = 0  # few do not exist
    masks = torch.from_numpy(masks)
    return Job(lambda: (t2v_metrics(sims, masks), v2t_metrics(sims, masks)))


def loading(scale: float, is_first: bool = False, plain: bool = False) -> Job:
    """Open a data set as large as a quarter of MSRVTT, whose files are in the system's cache.

    At the first start the files are packed; later ones map what was packed. The plain formulation
    has Python's own unpickler read every file, and keeps nothing.
    """
    from trainer.build import build_loader

    folder = synthetic.temporary_files(*(max(2, round(count * scale)) for count in (TRAIN, TEST)))
    config = synthetic.config_of(folder)

    def unpickle() -> None:
        for path in sorted(folder.glob("*.pickle")):
            with path.open("rb") as handle:
                pickle.load(handle)  # noqa: S301 (it was written just now, by this program)

    def undo() -> None:
        gc.collect()
        # Older code may still be writing there: it is out of the way at once.
        gone = (folder / ".cache").rename(Path(tempfile.mkdtemp(dir=folder), "cache"))
        shutil.rmtree(gone, ignore_errors=True)

    if plain:
        return Job(unpickle, repeats=3)
    # The first run of later starts, which packs, is not counted.
    return Job(
        lambda: build_loader(config, 0),
        repeats=2 if is_first else 5,
        undo=undo if is_first else None,
    )


def training(scale: float) -> Job:
    """`train.py` on a small set: 2,000 steps of CE in 100 epochs, test and page."""
    train, test = 320, 80
    folder = synthetic.temporary_folder()
    synthetic.make_files(folder, train, test, synthetic.SMALL_EXPERTS, text=64)
    config = synthetic.config_of(folder, captions=1, size=64).merged(
        {
            "arch": {"args": {"vlad_clusters": {"audio": 4, "text": 4}}},
            "experts": {"text_dim": 64},
            "data_loader": {"args": {"batch_size": 16, "max_tokens": {"audio": 8, "text": 12}}},
            "trainer": {"epochs": max(1, round(100 * scale))},
        }
    )
    config.save(folder / "small.json")
    command = [sys.executable, "train.py", "--config", str(folder / "small.json")]
    return Job(partial(_run, command), repeats=2, warmups=0, in_children=True)


def start(scale: float, modules: str, plain: bool = False) -> Job:
    """Start Python and import some modules; plainly, all libraries with them."""
    command = [sys.executable, "-c", f"import {LIBRARIES if plain else ''}{modules}"]
    return Job(partial(_run, command), repeats=3, in_children=True)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, preexec_fn=end_with_parent)
    if done.returncode:
        sys.exit(f"{command[1]} ended with the code {done.returncode}")


_CE, _MOEE, _TEACHTEXT = (
    {"path": f"configs/msrvtt/train-{name}.json"}
    for name in ("full-ce", "full-moee", "gpt2-xl-finetuned-mte-adam")
)
_BF16, _PLAIN = {"precision": "bf16"}, {"plain": True}
WORKLOADS = {
    "step-ce": Workload("training step, CE, batch 64", step, _CE, _PLAIN, "2.51"),
    "step-ce-bf16": Workload("the same, bf16", step, _CE | _BF16, is_bf16=True),
    "step-moee": Workload("training step, MoEE, batch 64", step, _MOEE, _PLAIN, "3.60"),
    "step-moee-bf16": Workload("the same, bf16", step, _MOEE | _BF16, is_bf16=True),
    "step-teachtext": Workload(
        "training step, TeachText with 3 teachers, batch 64", step, _TEACHTEXT, published="3.20"
    ),
    "step-teachtext-bf16": Workload("the same, bf16", step, _TEACHTEXT | _BF16, is_bf16=True),
    "metrics": Workload("t2v and v2t metrics, 59,800 x 2,990", metrics, published="7.02"),
    "validation": Workload(
        "validation, 497 videos with 1 caption, CE",
        evaluation,
        {"videos": 497, "captions": 1, "repeats": 4},
        _PLAIN,
        "7.11",
    ),
    "evaluation": Workload(
        "test, 374 videos with 20 captions, CE",
        evaluation,
        {"videos": 374, "captions": 20, "repeats": 1},
        published="27.8",
    ),
    "test": Workload(
        "test, 2,990 videos with 20 captions, CE",
        evaluation,
        {"videos": 2990, "captions": 20, "repeats": 1, "warmups": 0},
        is_long=True,
    ),
    "first-start": Workload(
        "loading a data set for the first time", loading, {"is_first": True}, _PLAIN, "5.4 to 7.8"
    ),
    "later-start": Workload("loading it again", loading, {}, _PLAIN, "5.4 to 7.8"),
    "training": Workload("a small training: 2,000 steps, test and page", training),
    "import": Workload("import train", start, {"modules": "train"}, _PLAIN),
    "import-all": Workload("import all that a training uses", start, {"modules": TRAINING}, _PLAIN),
    "import-torch": Workload("import torch alone, for comparison", start, {"modules": "torch"}),
}
