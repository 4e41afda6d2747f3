"""Videos beside the rankings page: links, copies, odd ids, and no way out of the folder."""

import errno
import os
import tempfile
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logger.page.data import Retrieved
from tests.rankings_html import Page, make_videos, ranking, write
from utils.errors import UserError

ODD_IDS = ["a b", "q\"'<>&", "#1?x=2", "100%41", "é€🎉", "season 1/clip", "-", ".hidden", "a..b"]


def test_odd_ids_lead_to_their_files_and_unplayable_ones_say_so(tmp_path):
    videos = make_videos(tmp_path / "v", *(f"{name}.mp4" for name in ODD_IDS), "w.webm", "old.avi")
    ids = [*ODD_IDS, "w", "old", "gone"]
    path = write(
        tmp_path / "web", [ranking(video_id=i, retrieved=[]) for i in ids], video_folder=videos
    )
    page = Page(path)
    files = [f"videos/{i}.mp4" for i in ODD_IDS] + ["videos/w.webm", "videos/old.avi"]
    assert [unquote(url) for url in page.urls()] == files
    assert all((path.parent / name).is_file() for name in files)
    assert not any(set(url) & set(" #?\"'<>&") for url in page.urls())
    assert page.words("p", "no-media") == [".avi file: browsers cannot play it", "no video"]


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.sampled_from(["..", ".", "", "v", "secret", "inner", "a"]), max_size=5),
    separator=st.sampled_from(["/", "\\", "%2f"]),
    absolute=st.booleans(),
)
def test_no_id_leads_outside_the_video_folder(parts, separator, absolute):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        make_videos(root, "secret.mp4", "v/a.mp4", "v/inner/a.mp4", "v/secret/secret.mp4", ".mp4")
        video_id = (f"{root}/" if absolute else "") + separator.join(parts)
        path = write(root / "web", [ranking(video_id=video_id)], video_folder=root / "v")
        for url in Page(path).urls():
            target = (path.parent / unquote(url)).resolve()
            assert target.is_relative_to(root / "v")
        honest = (root / "v" / f"{video_id}.mp4").is_file()
        plain = "/".join(p for p in parts if p not in ("", ".", "..")) == video_id
        assert bool(Page(path).urls()) == (honest and plain)


def test_ids_that_no_file_can_bear_have_no_video(tmp_path):
    videos = make_videos(tmp_path / "v", "v0.mp4")
    ids = ["x" * 5000, "nul\0byte", "\ud800", "", "v0/", "/v0"]
    page = Page(
        write(
            tmp_path / "web", [ranking(video_id=i, retrieved=[]) for i in ids], video_folder=videos
        )
    )
    assert page.words("p", "no-media") == ["no video"] * len(ids)


def test_the_link_is_relative_and_replaces_an_older_one(tmp_path):
    old, new = make_videos(tmp_path / "old", "v0.mp4"), make_videos(tmp_path / "new", "v0.mp4")
    link = tmp_path / "web" / "videos"
    for videos in (old, new, new):
        write(tmp_path / "web", [ranking()], video_folder=videos)
        assert link.is_symlink() and link.resolve() == videos
        assert not link.readlink().is_absolute()
    (tmp_path / "new").rename(tmp_path / "moved")  # the link now leads nowhere
    write(tmp_path / "web", [ranking()], video_folder=tmp_path / "moved")
    assert (link / "v0.mp4").is_file()
    assert sorted(p.name for p in old.iterdir()) == ["v0.mp4"]


def test_where_links_are_impossible_only_shown_videos_are_copied(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    elsewhere = make_videos(tmp_path / "elsewhere", "keep.mp4")
    videos = make_videos(tmp_path / "v", "v0.mp4", "in/v1.mp4", "unseen.mp4")
    link = tmp_path / "web" / "videos"
    link.parent.mkdir()
    link.symlink_to(elsewhere)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    shown = [ranking(retrieved=[Retrieved("in/v1", 0.1), Retrieved("gone", 0.0)])]
    write(tmp_path / "web", shown, video_folder=videos)

    def copied():
        return sorted(str(p.relative_to(link)) for p in link.rglob("*") if p.is_file())

    assert copied() == ["in/v1.mp4", "v0.mp4"] and not link.is_symlink()
    assert [p.name for p in elsewhere.iterdir()] == ["keep.mp4"]
    # A second page adds its own; a video that has changed is copied again.
    (videos / "v0.mp4").write_bytes(b"new")
    os.utime(videos / "v0.mp4", (2**32, 2**32))
    monkeypatch.undo()
    write(tmp_path / "web", [ranking(retrieved=[Retrieved("unseen", 0.1)])], video_folder=videos)
    assert copied() == ["in/v1.mp4", "unseen.mp4", "v0.mp4"]
    assert (link / "v0.mp4").read_bytes() == b"new"


def test_a_picture_beside_a_video_is_its_thumbnail(tmp_path):
    names = ["v0.mp4", "v0.png", "v1.mp4", "v2.jpg"]
    videos = make_videos(tmp_path / "v", *names)
    page = Page(write(tmp_path / "web", [ranking()], video_folder=videos))
    pictures = [e["attrs"]["src"] for e in page.elements if e["tag"] == "img"]
    assert pictures == ["videos/v0.png"]  # v1 has none, and v2 no video
    assert page.words("p", "no-media") == ["no video"]


def test_videos_may_already_lie_beside_the_page(tmp_path):
    videos = make_videos(tmp_path / "videos", "v0.mp4")
    write(tmp_path, [ranking()], video_folder=videos)
    assert not videos.is_symlink() and (videos / "v0.mp4").read_bytes() == b"v0.mp4"


def test_a_missing_video_folder_is_a_warning_and_a_page_without_videos(tmp_path, caplog):
    page = Page(write(tmp_path / "web", [ranking()], video_folder=tmp_path / "none"))
    assert str(tmp_path / "none") in caplog.text
    assert page.words("p", "no-media") == ["no video"] * 3
    assert not (tmp_path / "web" / "videos").is_symlink()


def test_folders_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot create"):
        write(tmp_path / "file", [])
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "videos").write_text("mine")
    with pytest.raises(UserError, match="in the way"):
        write(tmp_path / "web", [ranking()], video_folder=make_videos(tmp_path / "v", "v0.mp4"))
    assert (tmp_path / "web" / "videos").read_text() == "mine"
