"""Checkpoints of the published code, brought to the form of our own.

Theirs keep the config in a parser object, which has been read as a dict of its attributes; weights
trained on several GPUs have names that begin with "module."; early ones hold layers that no model
has used since.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.errors import UserError

_log = logging.getLogger(__name__)

_PARALLEL_PREFIX = "module."
_UNUSED_LAYERS = ("ce.moe_fc_bottleneck1", "ce.moe_cg", "ce.moe_fc_proj")


def translated(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a checkpoint's content with config and weights as our own checkpoints have them.

    `config` becomes the values of the config with the experiment's name under "experiment_name".

    Raises:
        UserError: config or weights have another form than either code writes.
    """
    result = dict(content) | {"config": _config(content["config"], path)}
    if "state_dict" in content:
        result["state_dict"] = _weights(content["state_dict"], content["arch"], path)
    return result


def _config(found: Any, path: Path) -> dict[str, Any]:
    if isinstance(found, dict) and "_config" in found:  # the attributes of a config parser
        values, name = found["_config"], found.get("_exper_name")
        if isinstance(values, dict):
            # It names the files that it was put together from, but holds all of their values.
            values = {key: value for key, value in values.items() if key != "inherit_from"}
    else:
        values, name = found, None
    if not isinstance(values, dict):
        raise UserError(f"The checkpoint {path} holds no config where its config should be.")
    return values if name is None else {**values, "experiment_name": name}


def _weights(state_dict: Any, arch: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(state_dict, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state_dict.items()
    ):
        raise UserError(f"The checkpoint {path} holds weights that are not tensors.")
    if state_dict and all(name.startswith(_PARALLEL_PREFIX) for name in state_dict):
        state_dict = {n.removeprefix(_PARALLEL_PREFIX): v for n, v in state_dict.items()}
    unused = [
        name for name in state_dict if name.startswith(tuple(f"{u}." for u in _UNUSED_LAYERS))
    ]
    if unused:
        _log.warning(
            "The checkpoint %s holds weights of layers that are no longer used; they are left "
            "out: %s.",
            path,
            ", ".join(unused),
        )
    kept = {name: value for name, value in state_dict.items() if name not in unused}
    if arch == "MNNet" and len(kept) == 1:
        # The one parameter of this model means nothing, and neither does its name.
        [value] = kept.values()
        kept = {"dummy_param": value.reshape(1)} if value.numel() == 1 else kept
    return kept
