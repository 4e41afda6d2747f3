"""Which encoder a name or a path stands for."""

from pathlib import Path

from misc.text_embeddings.captions import Captions
from misc.text_embeddings.hugging_face import transformer_job
from misc.text_embeddings.job import Job, Settings
from misc.text_embeddings.known_encoders import KNOWN, KnownEncoder
from misc.text_embeddings.model_folder import HUB_NAME
from misc.text_embeddings.word_encoders import mil_nce_job, word_table_job
from utils.errors import UserError, did_you_mean
from utils.files import is_there

_TABLE_SUFFIXES = (".bin", ".txt", ".vec", ".tsv", ".gz", ".zip")
_TEXT_MODELS = Path("data/text_models")
_DICTIONARY = "s3d_dict.npy"
_MIL_NCE = "howto100m_mil_nce"


def make_job(settings: Settings, captions: Captions) -> Job:
    """Return the job that an encoder's name stands for.

    Raises:
        UserError: there is no such encoder, it cannot be used, or its vectors have another size
            than those of the published encoder of that name.
    """
    known = KNOWN.get(settings.encoder)
    if known is None:
        return _job_of_path(settings, captions)
    job = _job_of_known(settings, known, captions)
    if job.size != known.size:
        raise UserError(
            f'"{settings.encoder}" has vectors of size {known.size}, what was given has '
            f"{job.size}: give its own weights, or name your encoder by its path alone."
        )
    return job


def dictionary_path(settings: Settings, weights: Path) -> Path:
    """Return the words of MIL-NCE, by default beside its weights."""
    return settings.dictionary or weights.with_name(_DICTIONARY)


def weights_path(settings: Settings) -> Path:
    """Return the file of word vectors, or of MIL-NCE, that an encoder's name stands for."""
    known = KNOWN.get(settings.encoder)
    if known is None or not known.file:
        return Path(settings.encoder)
    return settings.weights or _TEXT_MODELS / known.file


def _job_of_known(settings: Settings, known: KnownEncoder, captions: Captions) -> Job:
    name, weights = settings.encoder, settings.weights
    if known.make:
        return known.make(settings, captions)
    if known.file:
        weights = weights_path(settings)
        if not is_there(weights, Path.is_file):
            raise UserError(
                f'The weights of "{name}" are expected at {weights}, where there is no file: put '
                "them there, or give --weights."
            )
        if name != _MIL_NCE:
            return word_table_job(settings, weights, captions.texts)
        return mil_nce_job(settings, weights, dictionary_path(settings, weights), captions.texts)
    if weights:
        if not is_there(weights, Path.is_dir):
            raise UserError(f"--weights {weights} is no folder; that of a model was expected.")
        return transformer_job(settings, str(weights), captions)
    if known.instead:
        raise UserError(f'"{name}" cannot be had by its name: {known.instead}.')
    return transformer_job(settings, known.hub, captions)


def _job_of_path(settings: Settings, captions: Captions) -> Job:
    name = settings.encoder
    settings.refuse("an encoder that is given by its path", "weights")
    path = Path(name)
    if is_there(path, Path.is_file):
        if path.suffix not in _TABLE_SUFFIXES:
            raise UserError(
                f"{path} is no encoder: a folder of a Hugging Face model was expected, or word "
                f"vectors in a file ending in {', '.join(_TABLE_SUFFIXES)}."
            )
        return word_table_job(settings, path, captions.texts)
    # What has an ending or several parts is meant as a path, not as a name on the hub.
    is_name = HUB_NAME.fullmatch(name) and path.suffix not in _TABLE_SUFFIXES
    if not is_there(path, Path.is_dir) and not is_name:
        raise UserError(
            f'There is no encoder "{name}"{did_you_mean(name, KNOWN)}: give the folder of a '
            "Hugging Face model or its name on the hub, a file of word vectors, or one of "
            f"{', '.join(KNOWN)}."
        )
    return transformer_job(settings, name, captions)
