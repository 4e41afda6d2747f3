"""Print what a config builds, without any of its data: experts, parameters, text, splits, results.

python3 -m misc.describe --config configs/msrvtt/train-full-ce.json
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from data_loader.sets.declared import ModelInputs
from data_loader.sets.description import DataDescription, ListEntry, find_description
from misc.results.published import COLUMNS, DIRECTIONS, PUBLICATIONS, mean_and_std, results_of
from misc.tools import tool_parser
from utils.command_line import run_main
from utils.config import Config
from utils.errors import printable

if TYPE_CHECKING:
    from torch import nn

PARTS = {
    "pooling": "NetVLAD of the experts",
    "text_pooling": "NetVLAD of the captions",
    "ce.moe_fc": "mixture weights",
    "ce.video_dim_reduce": "experts to the shared size",
    "ce.g_reason_1": "gating: a pair of experts",
    "ce.g_reason_1_specific": "gating: first layer, per expert",
    "ce.g_reason_2_specific": "gating: second layer, per expert",
    "ce.g_reason_unshared_weights": "gating: layers per expert",
    "ce.dim_reduce": "gating: experts to a small size",
    "ce.g_reason_shared": "gating: layers of all pairs",
    "ce.h_reason": "gating: layers after the mean",
    "ce.video_GU": "gated units of the videos",
    "ce.text_GU": "gated units of the captions",
    "dummy_param": "without influence",
}


def main(arguments: list[str] | None = None) -> None:
    parser = tool_parser("describe")
    parser.add_argument("--config", metavar="PATH", required=True, help="the config file")
    parser.add_argument(
        "--custom_args", metavar="KEY@VALUE+...", help="values to replace, as for train.py"
    )
    args = parser.parse_args(arguments)
    for line in describe(Config.from_file(args.config, args.custom_args)):
        print(printable(line))


def describe(config: Config) -> Iterator[str]:
    """Describe a config line by line.

    Raises:
        UserError: the config, or the data set's description, does not say what is needed.
    """
    # Only now what takes its time to load: a slip on the command line is answered at once.
    from trainer.build import build_net, count_parameters, expert_dims, inputs_of
    from trainer.memory import only_sizes

    data = inputs_of(config)
    with only_sizes():
        net = build_net(config, data)
    yield from _data_set(config, data)
    yield ""
    yield from _experts(data, expert_dims(config, data))
    yield ""
    total = count_parameters(net)
    yield from _parameters(net, total)
    yield ""
    yield from _published(config, total)


def parameters_by_part(net: "nn.Module") -> dict[str, int]:
    """Parameters that learn, by part of the model, in the order of the parts."""
    counts: Counter[str] = Counter()
    for name, parameter in net.named_parameters():
        depth = 2 if name.startswith("ce.") else 1
        if parameter.requires_grad:
            counts[".".join(name.split(".")[:depth])] += parameter.numel()
    return dict(counts)


def _data_set(config: Config, data: ModelInputs) -> Iterator[str]:
    loading = config["data_loader.args"]
    description = find_description(loading["dataset_name"], loading.get("data_dir"))
    yield f"config      {config.name}"
    yield f"model       {_kind_of_model(config)}"
    yield f"data set    {description.name} in {description.root}"
    yield f"training    {_split(config, description, 'train')}"
    yield f"validation  {_split(config, description, 'val')}"
    yield f"test        {_split(config.eval_config(), description, 'val')}"
    yield f"text        {_text(config, data)}"


def _kind_of_model(config: Config) -> str:
    kind, args = config["arch.type"], config.get("arch.args", {})
    if kind == "MNNet":
        return f"{kind}, given embeddings compared as they are"
    if args.get("concat_experts") or args.get("concat_mix_experts"):
        return f"{kind}, experts concatenated"
    if args.get("use_ce"):
        return f"{kind}, collaborative gating: {args['use_ce']}"
    if args.get("mimic_ce_dims"):
        return f"{kind}, experts of one size without gating by others"
    return f"{kind}, mixture of embedding experts (MoEE)"


def _split(config: Config, description: DataDescription, role: str) -> str:
    name = config["data_loader.args.split_name"]
    entry: ListEntry = getattr(description.split(name), role)
    usual = 1 if description.published else "all"
    captions = config.get("data_loader.args.num_test_captions", usual)
    if role == "train":
        captions = config.get("data_loader.args.restrict_train_captions", 0) or "all"
    if config.get("data_loader.args.fuse_captions"):
        captions = "all joined to one"
    where = entry.file if entry.key is None else f"{entry.file}: {entry.key}"
    return f"split {name} ({where}), captions of a video: {captions}"


def _text(config: Config, data: ModelInputs) -> str:
    name = f"{config['experts.text_feat']}, {data.text_size} a word"
    clusters = config.get("arch.args.vlad_clusters.text", 0)
    if config["arch.type"] == "MNNet" or not clusters:
        return f"{name}, one vector a caption"
    ghosts = config.get("arch.args.ghost_clusters.text", 0)
    return (
        f"{name}, {data.max_text_tokens} words kept, NetVLAD of {clusters} clusters "
        f"(ghosts: {ghosts}) to {clusters * data.text_size}"
    )


def _experts(data: ModelInputs, dims: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    rows = [("expert", "size", "tokens", "pooled", "embedding")]
    for expert in data.experts:
        pooled, embedding = dims[expert.name]
        tokens = (expert.max_tokens or "?") if expert.variable_length else "-"
        rows.append((expert.name, expert.size, tokens, pooled, embedding))
    return _table(rows)


def _parameters(net: "nn.Module", total: int) -> Iterator[str]:
    counts = parameters_by_part(net)
    rows = [("part", "parameters")]
    rows += [(part, f"{count:,}") for part, count in counts.items()]
    rows.append(("total", f"{total:,}"))
    notes = ["", *(PARTS.get(part, "") for part in counts), ""]
    for line, note in zip(_table(rows), notes, strict=True):
        yield f"{line}  {note}".rstrip()


def _published(config: Config, parameters: int) -> Iterator[str]:
    found = results_of(config.name)
    if not found:
        yield "Nothing is published under this name."
    for publication, result in found.items():
        count = result.get("parameters")
        told = "" if count is None else f", parameters {count:,}"
        if count not in (None, parameters):
            told += f" (this config: {parameters:,})"
        yield f"As published ({PUBLICATIONS[publication]}){told}, mean (std) over three seeds:"
        for direction in DIRECTIONS:
            if direction in result:
                values = [
                    f"{column} {mean_and_std(result[direction][key])}"
                    for key, column in COLUMNS.items()
                ]
                yield f"  {direction}  {'  '.join(values)}"


def _table(rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Lay out columns: the first to the left, the others, numbers, to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        first, *rest = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1])]
        cells += [cell.rjust(width) for cell, width in rest]
        yield "  ".join(cells).rstrip()


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
