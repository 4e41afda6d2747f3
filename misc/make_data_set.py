"""Makes the data set of a config that says how (`data_set_maker`)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_loader.sets.description import refuse_another_folder
from utils.errors import UserError, did_you_mean


def _make_demo_set(folder: Path, **args: Any) -> None:
    # Its libraries of pictures and sound take their time: only who asks for it waits for them.
    from misc.demo_set.make import make_demo_set

    make_demo_set(folder, **args)


MAKERS: dict[str, Callable[..., None]] = {"demo": _make_demo_set}


def make_data_set(config: Mapping[str, Any]) -> None:
    """Make the data set that a config trains on, if it can be made and is not there yet.

    Raises:
        UserError: the maker is not known, or the folder holds another data set.
    """
    section = config.get("data_set_maker")
    if not section:
        return
    kind = section["type"]
    if kind not in MAKERS:
        raise UserError(f'data_set_maker.type "{kind}" is not known{did_you_mean(kind, MAKERS)}.')
    args = config.get("data_loader", {}).get("args", {})
    name = args.get("dataset_name")
    if not name:
        raise UserError("data_set_maker needs data_loader.args.dataset_name: the folder to make.")
    folder = Path(name)
    if folder.name != kind and not folder.exists():  # more likely a slip than a second world
        raise UserError(
            f'There is no data set "{name}"{did_you_mean(name, [f"data/{kind}"])}. One is made '
            f"only in a folder called {kind}."
        )
    refuse_another_folder([folder], args.get("data_dir"))
    MAKERS[kind](folder, **section.get("args", {}))
