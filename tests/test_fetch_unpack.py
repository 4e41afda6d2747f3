"""Unpacking what strangers packed: the good whole, the hostile not at all."""

import errno
import gzip
import random
import shutil
import tarfile
import tracemalloc
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from misc.fetching import catalogue
from misc.fetching.unpack import ArchiveError, Limits, unpack
from tests.hostile_archives import file, folder, link, packed, tar_bytes
from utils.errors import UserError

GOOD = [
    folder("data/MSVD"),
    file("data/MSVD/structured-symlinks/aggregated_face/face-avg.pickle", b"f" * 5000),
    file("data/MSVD/structured-symlinks/train_list.txt", b""),
    file("data/MSVD/structured-symlinks/test_list.txt", b"x" * 512),
]
SETS = {"MSVD", "MSRVTT"}
SMALL = Limits(members=50, size=1 << 22, ratio=50)


def unpacked(tmp_path: Path, content: bytes, limits: Limits = SMALL) -> dict[str, bytes]:
    """Unpack, and return what lies in the target; insist that nothing lies beside it."""
    shutil.rmtree(tmp_path / "room", ignore_errors=True)
    target = tmp_path / "room" / "deep" / "target"
    target.mkdir(parents=True)
    archive = tmp_path / "set.tar.gz"
    archive.write_bytes(content)
    try:
        names = unpack(archive, target, SETS, {}, limits)
    finally:
        room = [path for path in (tmp_path / "room").rglob("*") if not path.is_dir()]
        assert all(target in path.parents and not path.is_symlink() for path in room)
        assert not [path.name for path in room if path.name.endswith(".tmp")]
    found = {str(path.relative_to(target)): path.read_bytes() for path in room}
    assert sorted(found) == sorted(names)
    return found


def refused(tmp_path: Path, members: list, reason: str) -> None:
    with pytest.raises(ArchiveError, match=reason):
        unpacked(tmp_path, packed([*GOOD, *members]))


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./", "././"])
def test_files_come_out_as_they_went_in(tmp_path: Path, layout: int, prefix: str) -> None:
    for info, _ in (members := [file(info.name, content) for info, content in GOOD[1:]]):
        info.name = prefix + info.name
    assert unpacked(tmp_path, packed(members, layout)) == {
        info.name.removeprefix(prefix).removeprefix("data/"): content for info, content in members
    }


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names_are_kept(tmp_path: Path, layout: int) -> None:
    name = "MSVD/" + "/".join(["a" * 150] * 5) + "/größe-视频.npy"
    assert unpacked(tmp_path, packed([file(f"data/{name}")], layout)) == {name: b"features"}


def test_permissions_owners_and_times_are_not_taken_over(tmp_path: Path) -> None:
    unpacked(tmp_path, packed([file("data/MSVD/x", mode=0o6777, uid=0, mtime=0)]))
    found = (tmp_path / "room/deep/target/MSVD/x").stat()
    assert found.st_mode & 0o6111 == 0
    assert found.st_mtime > 0


def test_a_member_that_is_known_to_be_misnamed_goes_where_it_is_looked_for(tmp_path: Path) -> None:
    ((wrong, right),) = catalogue.moved_members().items()
    archive = tmp_path / "set.tar.gz"
    archive.write_bytes(packed([file(wrong)]))
    (tmp_path / "target").mkdir()
    args = (catalogue.folders(), catalogue.moved_members(), SMALL)
    assert unpack(archive, tmp_path / "target", *args) == [right.removeprefix("data/")]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "//data/MSVD/x",
        "data/MSVD/../../../x",
        "../data/MSVD/x",
        "data/../../x",
        "data/MSVD/..",
        "data/MSVD/./x",
        "data/MSVD//x",
        "./../x",
        "data/MSVD/a\\..\\..\\x",
        "data/MSVD/C:x",
        "C:/data/MSVD/x",
        "data/MSVD/a\nb",
        "data/MSVD/\x1b[2Jx",
        "data/MSVD/\u202egnp.x",
        "data/MSVD/x.",
        "data/MSVD/x ",
        "data/MSVD/" + "x" * 201,
        "data/MSVD/" + "x/" * 20 + "x",
        "MSVD/x",
        "x",
        "data/x",
        "data/saved/models/x.pth",
        "data/.fetch/MSVD-experts/record.json",
        "Data/MSVD/x",
        "data/msvd/x",
        "data/MSVD",
        "data",
    ],
)
@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, layout: int) -> None:
    with pytest.raises(ArchiveError, match="its member"):
        unpacked(tmp_path, packed([file(name)], layout))


def test_a_name_with_nul_or_no_text_is_refused(tmp_path: Path) -> None:
    # tarfile cuts other names at NUL; a pax header hands it through.
    nul = file("data/MSVD/y", pax_headers={"path": "data/MSVD/a\0b"})
    refused(tmp_path, [nul], "invisible character|makes no sense")
    bad = file("data/MSVD/y\udcff")
    with pytest.raises(ArchiveError, match="invisible character"):
        unpacked(tmp_path, packed([bad], tarfile.GNU_FORMAT))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.CONTTYPE, "of a kind"),
        (b"Z", "of a kind"),
    ],
)
def test_what_is_no_file_or_folder_is_refused(tmp_path: Path, kind: bytes, reason: str) -> None:
    for target in ("/etc/passwd", "../../x", GOOD[1][0].name):
        refused(tmp_path, [link("data/MSVD/x", target, kind)], reason)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    refused(
        tmp_path,
        [link("data/MSVD/out", str(tmp_path / "room")), file("data/MSVD/out/stolen")],
        "a symbolic link",
    )


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    old = tar_bytes([file("data/MSVD/x", b"")], tarfile.GNU_FORMAT)
    header = bytearray(old[:512])
    header[156:157] = b"S"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(ArchiveError, match=r"of a kind|makes no sense"):
        unpacked(tmp_path, gzip.compress(bytes(header) + old[512:]))
    for headers in (
        {"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999999"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9999999999"},
    ):
        sparse = file("data/MSVD/x", b"1\n0\n1\n".ljust(1024, b"\0"), pax_headers=headers)
        refused(tmp_path, [sparse], "of a kind|makes no sense")


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ("data/MSVD/a/X", "twice"),
        ("./data/MSVD/a/X", "twice"),
        ("data/MSVD/a/x", "spelling"),
        ("data/MSVD/A/y", "spelling"),
        ("data/MSVD/a/X/y", "file and a folder"),
        ("data/MSVD/a", "file and a folder"),
    ],
)
def test_two_members_of_one_place_are_refused(tmp_path: Path, second: str, reason: str) -> None:
    refused(tmp_path, [file("data/MSVD/a/X"), file(second)], reason)


def test_two_ways_to_write_an_accent_are_one_name(tmp_path: Path) -> None:
    refused(tmp_path, [file("data/MSVD/\u00e9"), file("data/MSVD/e\u0301")], "in its spelling")


def test_a_folder_may_be_named_twice(tmp_path: Path) -> None:
    members = [folder("data/MSVD/a"), folder("./data/MSVD/a/"), file("data/MSVD/a/x"), *GOOD]
    assert "MSVD/a/x" in unpacked(tmp_path, packed([folder("."), folder("data"), *members]))


def test_bombs_are_refused(tmp_path: Path) -> None:
    zeros = bytes(3 << 20)
    bomb = packed([file("data/MSVD/x", zeros)])
    with pytest.raises(ArchiveError, match="more than"):
        unpacked(tmp_path, bomb)
    many = [file(f"data/MSVD/{index}", b"") for index in range(51)]
    refused(tmp_path, many, "more than 50 members")
    noise = packed([file("data/MSVD/x", random.Random(0).randbytes(5 << 20))])
    with pytest.raises(ArchiveError, match=r"4.0 MiB"):
        unpacked(tmp_path, noise)


def test_zeros_after_the_end_are_counted_too(tmp_path: Path) -> None:
    bomb = gzip.compress(tar_bytes(GOOD) + bytes(8 << 20))
    with pytest.raises(ArchiveError, match="more than"):
        unpacked(tmp_path, bomb)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_header_of_gigabytes_takes_no_memory(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("data/MSVD/x")
    header.type, header.size = kind, 3 << 30
    block = header.tobuf(tarfile.GNU_FORMAT)
    content = gzip.compress(tar_bytes(GOOD)[:-10240] + block + bytes(64 << 20), 1)
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="too large"):
        unpacked(tmp_path, content, Limits())
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_headers_upon_headers_end(tmp_path: Path) -> None:
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 1
    pair = long.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")
    with pytest.raises(ArchiveError, match="too large"):
        unpacked(tmp_path, gzip.compress(pair * 5000 + tar_bytes(GOOD)))


@pytest.mark.parametrize("size", ["-1", "-1024", "99999999999999999999", "9" * 5000, "1.5", "x"])
def test_sizes_that_are_none_end_clearly(tmp_path: Path, size: str) -> None:
    content = packed([file("data/MSVD/x", b"y" * 600, pax_headers={"size": size}), *GOOD])
    with pytest.raises(ArchiveError):
        unpacked(tmp_path, content)


def test_a_broken_header_is_not_the_end(tmp_path: Path) -> None:
    whole = tar_bytes([file("data/MSVD/x"), file("data/MSVD/y")])
    broken = bytearray(whole)
    broken[1024 + 148 : 1024 + 156] = b"0000000\0"
    with pytest.raises(ArchiveError, match="is broken"):
        unpacked(tmp_path, gzip.compress(bytes(broken)))
    without_end = whole[:2048]
    with pytest.raises(ArchiveError, match="is broken"):
        unpacked(tmp_path, gzip.compress(without_end))


def test_an_archive_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = packed(GOOD)
    assert unpacked(tmp_path, whole)
    for end in range(0, len(whole), 7):
        with pytest.raises(ArchiveError):
            unpacked(tmp_path, whole[:end])


@pytest.mark.parametrize("content", [b"", b"<html>Log in</html>", tar_bytes(GOOD), packed([])])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"is broken|no files"):
        unpacked(tmp_path, content)
    with pytest.raises(ArchiveError, match="no files"):
        unpacked(tmp_path, packed([folder("data/MSVD")]))


TAR = tar_bytes([*GOOD, file("data/MSVD/" + "long/" * 14 + "x" * 120)])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_mutation_leads_outside_or_ends_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = bytearray(TAR)
    for _ in range(data.draw(st.integers(1, 8))):
        block = data.draw(st.integers(0, len(TAR) // 512 - 1)) * 512
        field = data.draw(st.sampled_from([(0, 100), (100, 24), (124, 12), (156, 1), (157, 100)]))
        new = data.draw(st.binary(max_size=field[1]) | st.sampled_from([b"../../x", b"/x", b"-1"]))
        changed[block + field[0] : block + field[0] + len(new)] = new
        header = changed[block : block + 512]
        header[148:156] = b" " * 8
        changed[block + 148 : block + 156] = b"%06o\0 " % sum(header)
    folder = tmp_path_factory.mktemp("mutated")
    try:
        unpacked(folder, gzip.compress(bytes(changed), 1))
    except ArchiveError:
        pass
    finally:
        shutil.rmtree(folder)


def test_a_full_disk_is_noticed_before_a_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9000, 4001, 4999))
    with pytest.raises(UserError, match=r"face-avg.pickle .*4.9 KiB"):
        unpacked(tmp_path, packed(GOOD))


def test_a_disk_that_fills_up_meanwhile_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    archive = packed(GOOD)
    monkeypatch.setattr(tarfile, "copyfileobj", full)
    with pytest.raises(UserError, match="no space"):
        unpacked(tmp_path, archive)
