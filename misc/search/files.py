"""A query that is a file: its experts are extracted as those of the index's videos were."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from model.similarity import VideoEmbeddings
from utils.errors import UserError, listed

if TYPE_CHECKING:
    from misc.search.searcher import Searcher


Experts = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
"""What `Searcher.encode_video` takes of a video."""


def embed_file(searcher: "Searcher", path: Path, device: str = "cpu") -> VideoEmbeddings:
    """Embed a video, a picture or a sound as the videos of an index are: (1, ...).

    Raises:
        UserError: as `experts_of_file`.
    """
    return searcher.encode_video(*experts_of_file(searcher, path, device))


def experts_of_file(searcher: "Searcher", path: Path, device: str = "cpu") -> Experts:
    """Extract the experts of a file as those of an index's videos were.

    Experts that the index cannot extract anew, or that see nothing in the file, are missing.

    Raises:
        UserError: nobody recorded how the experts were extracted, or the file cannot be decoded.
    """
    try:
        from misc.extract_experts.one_file import features_of
    except ImportError as error:
        raise UserError(
            "Experts of files are extracted by misc.extract_experts, which this installation lacks."
        ) from error
    told = searcher.index.manifest.extractors
    specs = {name: made_by.get("spec") for name, made_by in told.items()}
    known = [spec for spec in specs.values() if isinstance(spec, str)]
    if not known:
        raise UserError(
            "This index does not know how the experts of its videos were extracted: only features "
            "made by `python3 -m misc.extract_experts` tell; search by a sentence, or --like."
        )
    found = features_of(path, known, device)
    experts, ind = {}, {}
    for expert in searcher.inputs:
        shape = (expert.max_tokens, expert.size) if expert.variable_length else (expert.size,)
        values = torch.zeros(shape)
        if expert.name in found:
            made = torch.from_numpy(found[expert.name]).float()
            if made.shape[-1] != expert.size or (made.dim() == 1) == expert.variable_length:
                raise UserError(
                    f'The expert "{expert.name}" gives {tuple(made.shape)} of {path}, the index '
                    f"takes vectors of size {expert.size}: it was extracted otherwise."
                )
            made = made[: expert.max_tokens] if expert.variable_length else made
            values[: len(made)] = made
        experts[expert.name] = values[None]
        ind[expert.name] = torch.tensor([float(expert.name in found)])
    if not any(bool(there) for there in ind.values()):
        names = listed(expert.name for expert in searcher.inputs)
        raise UserError(f"None of the experts {names} sees anything in {path}.")
    return experts, ind
