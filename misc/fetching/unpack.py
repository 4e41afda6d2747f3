"""Unpacking an archive into a new folder: regular files and folders, and nothing else."""

import os
import tarfile
from collections.abc import Collection, Mapping
from pathlib import Path

from logger.progress import progress
from misc.fetching.member_names import MemberNames, quoted
from misc.fetching.space import check_space
from misc.fetching.tar_reader import ArchiveError, Limits, open_tar
from utils.files import replacing, sync_folder

_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


def unpack(
    archive: Path,
    target: Path,
    folders: Collection[str],
    moved: Mapping[str, str],
    limits: Limits,
) -> list[str]:
    """Unpack a .tar.gz, and return the paths of its files relative to the data folder.

    Owners, permissions and times in the archive are ignored.

    Args:
        archive: the .tar.gz.
        target: an empty folder that stands for the data folder.
        folders: names of folders below it that the archive may write to.
        moved: members that go elsewhere than their name says.
        limits: bounds of what it may unpack to.

    Raises:
        ArchiveError: it is broken, or has a member that is refused.
        UserError: the disk is full.
    """
    names = MemberNames(folders, moved)
    files = []
    with open_tar(archive, limits) as reader, progress(None, None, "unpacking", unit="B") as bar:
        for member in reader.members():
            _check_kind(member)
            parts = names.accept(member.name, member.isdir())
            path = target.joinpath(*parts)
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            reader.check_size(member)
            path.parent.mkdir(parents=True, exist_ok=True)
            check_space(target, member.size, f"the file {'/'.join(parts)} of {archive.name}")
            with replacing(path) as handle:
                for block in reader.content(member):
                    handle.write(block)
                    bar.update(len(block))
            files.append("/".join(parts))
    if not files:
        raise ArchiveError("it holds no files")
    for folder, _, _ in os.walk(target):
        sync_folder(Path(folder))
    return files


def _check_kind(member: tarfile.TarInfo) -> None:
    is_file = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.sparse is None
    if not is_file and member.type != tarfile.DIRTYPE:
        kind = _KINDS.get(member.type, "of a kind that is not unpacked")
        raise ArchiveError(f"its member {quoted(member.name)} is {kind}")
