"""Archives as the tests need them: well made, and made to do harm."""

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"features", **changes: object) -> Member:
    """A regular file, with other header fields where `changes` says so."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def folder(name: str) -> Member:
    return file(name, b"", type=tarfile.DIRTYPE)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return file(name, b"", type=kind, linkname=target)


def tar_bytes(members: Iterable[Member], layout: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed archive. Names stand in it as they are, whatever they are."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=layout) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def packed(members: Iterable[Member], layout: int = tarfile.PAX_FORMAT) -> bytes:
    """A .tar.gz."""
    return gzip.compress(tar_bytes(members, layout), 1, mtime=0)


def write(path: Path, members: Iterable[Member]) -> Path:
    path.write_bytes(packed(members))
    return path
