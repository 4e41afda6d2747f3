"""A submission: a zip with the predictions for the five data sets, named after what it holds."""

import hashlib
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np

from data_loader.sets.description import Counts
from logger.predictions import as_csv, largest_size, parse_predictions
from misc.cvpr2020_challenge.sets import BASELINES, SETS, predictions_file
from utils.errors import UserError
from utils.files import is_there, make_folder, reason, replacing

HASH_DIGITS = 10
LARGEST_ZIP = 64 * 1024**2

_NAME = re.compile(rf"({'|'.join(BASELINES)})-[0-9a-f]{{{HASH_DIGITS}}}-[0-9-]+\.zip")
_SHOWN_NAMES = 3
# No time of its own: the same predictions make the same bytes.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, RuntimeError, ValueError)


def read_folder(folder: Path, counts: Mapping[str, Counts]) -> dict[str, np.ndarray]:
    """Read the predictions `<data set>.csv` of a folder.

    Args:
        folder: of the files.
        counts: size of the retrieval set of each data set to read.

    Returns:
        Data set -> (queries, 10) int64.

    Raises:
        UserError: a file is missing, or holds anything but predictions for that set.
    """
    paths = {name: folder / predictions_file(name) for name in counts}
    missing = [path.name for path in paths.values() if not is_there(path, Path.is_file)]
    if missing:
        raise UserError(f"There is no {', '.join(missing)} in the folder {folder}.")
    found = {}
    for name, path in paths.items():
        try:
            with path.open("rb") as handle:
                content = handle.read(largest_size(counts[name].queries) + 1)
        except OSError as error:
            raise UserError(f"Cannot read {path}: {reason(error)}.") from error
        found[name] = parse_predictions(
            content, counts[name].videos, counts[name].queries, str(path)
        )
    return found


def write_submission(folder: Path, phase: str, predictions: Mapping[str, np.ndarray]) -> Path:
    """Write the zip `<phase>-<10 hex of a content hash>-<date>.zip`; returns its path.

    The hash is of the predictions alone: the same ones have the same, whenever they are packed.

    Raises:
        UserError: the folder cannot be written.
    """
    files = {predictions_file(name): as_csv(predictions[name]) for name in SETS}
    digest = content_hash(files)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            member = zipfile.ZipInfo(name, _NO_TIME)
            archive.writestr(member, text, zipfile.ZIP_DEFLATED)
    path = make_folder(folder) / f"{phase}-{digest}-{date.today().isoformat()}.zip"
    with replacing(path) as handle:
        handle.write(packed.getvalue())
    return path


def content_hash(files: Mapping[str, str]) -> str:
    """Return the first digits of the SHA-256 of names and contents."""
    digest = hashlib.sha256()
    for name, text in sorted(files.items()):
        digest.update(f"{name} {len(text)}\n{text}".encode())
    return digest.hexdigest()[:HASH_DIGITS]


def phase_of(path: Path) -> str | None:
    """Return the phase that the name of a submission tells, None if it has another name."""
    name = _NAME.fullmatch(path.name)
    return name[1] if name else None


def check_is_there(path: Path) -> None:
    """Insist that there is a file.

    Raises:
        UserError: there is none.
    """
    if not is_there(path, Path.is_file):
        raise UserError(f"There is no submission {path}.")


def read_submission(path: Path, counts: Mapping[str, Counts]) -> dict[str, np.ndarray]:
    """Read a zip that anybody may have made; nothing of it is written anywhere.

    Args:
        path: of the zip.
        counts: size of the retrieval set of each data set to read.

    Returns:
        Data set -> (queries, 10) int64.

    Raises:
        UserError: it is no zip of predictions for these sets; says what, and where.
    """
    check_is_there(path)
    try:
        if path.stat().st_size > LARGEST_ZIP:
            raise UserError(f"The submission {path} is larger than any: {LARGEST_ZIP} bytes.")
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            return {
                name: _read_member(archive, members, name, size, path)
                for name, size in counts.items()
            }
    except OSError as error:
        raise UserError(f"Cannot read the submission {path}: {reason(error)}.") from error
    except _DAMAGE as error:
        raise UserError(f"The submission {path} is damaged, or no zip file: {error}.") from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    known = [predictions_file(name) for name in SETS]
    names = archive.namelist()
    odd = [ascii(name[:40]) for name in names if name not in known]
    if odd:
        more = f" and {len(odd) - _SHOWN_NAMES} more" if len(odd) > _SHOWN_NAMES else ""
        raise UserError(
            f"The submission {path} holds {', '.join(odd[:_SHOWN_NAMES])}{more}: only "
            f"{', '.join(known)} belong there, in no folder."
        )
    if len(set(names)) < len(names):
        raise UserError(f"The submission {path} holds a file twice.")
    return dict(zip(names, archive.infolist(), strict=True))


def _read_member(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    dataset: str,
    counts: Counts,
    path: Path,
) -> np.ndarray:
    name = predictions_file(dataset)
    if name not in members:
        raise UserError(f"The submission {path} lacks {name}.")
    if members[name].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"The submission {path} packs {name} by a method other than deflate.")
    # What the archive says of sizes may be a lie: no more is unpacked than predictions take.
    with archive.open(members[name]) as handle:
        content = handle.read(largest_size(counts.queries) + 1)
    return parse_predictions(content, counts.videos, counts.queries, f"{name} in {path}")
