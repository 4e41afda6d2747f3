"""The whole way of features and checkpoints, from a command line to files in their places."""

import errno
import fcntl
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from misc import sync_experts
from misc.fetching import catalogue, disk, fetch
from misc.fetching.catalogue import find_archive, find_model
from misc.fetching.disk import Part
from misc.fetching.download import Patience
from misc.fetching.plan import archive_plan, needs
from misc.sync_experts import INTERRUPTED
from tests import fetch_server as act
from tests.conftest import ROOT, SHARED
from tests.fetch_server import FileServer, serving
from tests.hostile_archives import file, link, packed
from utils.command_line import run_main

FIRST, SECOND = "challenge-release-1", "challenge-release-2"
CODE = "open-sesame"
HASH = hashlib.sha256(CODE.encode()).hexdigest()[:10]


def features(release: str, dataset: str = "MSVD") -> dict[str, bytes]:
    """Files of an archive, below the data folder."""
    return {
        f"{dataset}/{release}/aggregated_text_feats/w2v.pkl": f"w2v {release}".encode() * 9000,
        f"{dataset}/{release}/train_list.txt": b"train",
        f"{dataset}/raw-captions.pkl": b"captions",
    }


def archive(files: dict[str, bytes]) -> bytes:
    return packed(file(f"data/{name}", content) for name, content in files.items())


def path_of(release: str, dataset: str = "MSVD") -> str:
    return f"/{release}/{release}-{dataset}-experts.tar.gz"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as running:
        for release in (FIRST, SECOND):
            running.files[path_of(release)] = archive(features(release))
        yield running


class User:
    """Somebody with a data folder and a command line."""

    def __init__(self, server: FileServer, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.server = server
        self.data = data
        self._capsys = capsys
        self.said = ""

    def run(self, *flags: str) -> int:
        def main(arguments: list[str]) -> None:
            sync_experts.main(arguments, Patience(connect=30, read=30, sleep=lambda _: None))

        places = ["--root_url", self.server.root, "--data_dir", str(self.data)]
        code = run_main(main, [*flags, *places], INTERRUPTED)
        captured = self._capsys.readouterr()
        self.said = captured.out + captured.err
        return code

    def sync(self, release: str = FIRST, dataset: str = "MSVD") -> int:
        return self.run("--dataset", dataset, "--release", release)

    def has(self) -> dict[str, bytes]:
        """Files in the data folder, but for the state of fetching."""
        files = (path for path in self.data.rglob("*") if path.is_file())
        found = {path.relative_to(self.data).as_posix(): path.read_bytes() for path in files}
        return {name: content for name, content in found.items() if not name.startswith(".fetch")}

    def state(self, name: str = f"{FIRST}-MSVD-experts") -> list[str]:
        return sorted(path.name for path in (self.data / ".fetch" / name).glob("*"))


@pytest.fixture
def user(server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> User:
    return User(server, tmp_path / "data", capsys)


def test_features_come_to_their_places_and_are_not_fetched_again(user: User) -> None:
    assert user.sync() == 0
    assert user.has() == features(FIRST)
    assert user.state() == ["record.json"]
    record = json.loads((user.data / ".fetch" / f"{FIRST}-MSVD-experts/record.json").read_text())
    content = user.server.files[path_of(FIRST)]
    assert record["sha1"] == hashlib.sha1(content).hexdigest()
    assert sorted(record["files"]) == sorted(features(FIRST))
    assert user.sync() == 0
    assert "complete already" in user.said
    assert len(user.server.requests) == 1


def test_two_releases_share_a_folder(user: User) -> None:
    (user.data / "MSVD" / FIRST).mkdir(parents=True)
    (user.data / "MSVD" / FIRST / "own.npy").write_bytes(b"own")
    assert user.sync(FIRST) == 0 and user.sync(SECOND) == 0
    own = {f"MSVD/{FIRST}/own.npy": b"own"}
    assert user.has() == {**features(FIRST), **features(SECOND), **own}


def test_files_that_were_removed_are_fetched_again(user: User) -> None:
    user.sync()
    (user.data / "MSVD/raw-captions.pkl").unlink()
    assert user.sync() == 0
    assert user.has() == features(FIRST)
    assert len(user.server.requests) == 2


def test_a_published_sum_is_insisted_on(user: User) -> None:
    user.server.files["/features-v2/MSVD-experts.tar.gz"] = archive(features(FIRST))
    assert user.run("--dataset", "MSVD") == 2
    assert "999ef6e34c9d" in user.said
    assert user.has() == {}


def test_a_hostile_archive_leaves_nothing(user: User) -> None:
    good = [file("data/MSVD/x", b"good")]
    user.server.files[path_of(FIRST)] = packed([*good, link("data/MSVD/y", "/etc/passwd")])
    assert user.sync() == 2
    assert "'data/MSVD/y' is a symbolic link" in user.said
    assert user.has() == {}
    assert user.state() == []
    user.server.files[path_of(FIRST)] = archive(features(FIRST))
    assert user.sync() == 0
    assert user.has() == features(FIRST)


def test_a_folder_that_lies_on_another_disk(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    (user.data / "MSVD").mkdir(parents=True)
    real = Path.replace

    def replace(source: Path, target: Path) -> Path:
        inside = [path.is_relative_to(user.data / ".fetch") for path in (source, target)]
        if inside == [True, False]:
            raise OSError(errno.EXDEV, "another disk")
        return real(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert user.sync() == 0
    assert user.has() == features(FIRST)
    assert user.state() == ["record.json"]


def test_files_that_vanish_while_others_are_moved_come_again(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, fetch, "write_json", 2)  # of the record: everything is moved
        assert user.sync() == 130
    (user.data / "MSVD/raw-captions.pkl").unlink()
    assert user.sync() == 0
    assert user.has() == features(FIRST)
    assert len(user.server.requests) == 1


@pytest.mark.parametrize("blocker", ["MSVD", f"MSVD/{FIRST}/train_list.txt/x"])
def test_what_is_in_the_way_is_named_before_anything_is_moved(user: User, blocker: str) -> None:
    path = user.data / blocker
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert user.sync() == 2
    assert "move it away" in user.said
    assert user.has() == {blocker: b"mine"}
    path.unlink()
    if path.parent != user.data:
        path.parent.rmdir()
    assert user.sync() == 0
    assert user.has() == features(FIRST)
    assert len(user.server.requests) == 1


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, count: int) -> None:
    """End the process, as far as it can see, when a function is called for the n-th time."""
    real: Callable[..., object] = getattr(owner, name)
    calls = iter(range(1, 10**6))

    def dying(*args: object, **options: object) -> object:
        if next(calls) == count:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(owner, name, dying)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Path, "replace"),
        (Path, "mkdir"),
        (Path, "unlink"),
        (Path, "rmdir"),
        (os, "fsync"),
        (Part, "sum"),
        (disk, "_merge"),
    ],
)
def test_stopped_at_any_moment_the_next_run_completes(
    user: User, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    wanted = {**features(SECOND), **features(FIRST)}
    for count in itertools.count(1):
        user.data = user.data.with_name(f"data-{count}")
        user.sync(SECOND)  # so that folders are merged, not only moved
        user.server.requests.clear()
        with monkeypatch.context() as patch:
            kill_at(patch, owner, name, count)
            code = user.sync(FIRST)
        if code == 0:
            assert count > 1, "it was never called, so this says nothing"
            return
        assert code == 130 and INTERRUPTED in user.said
        assert all(wanted[path] == content for path, content in user.has().items())
        assert "record.json" not in user.state() or user.has() == wanted
        held = (user.data / ".fetch" / f"{FIRST}-MSVD-experts/archive.tar.gz").is_file()
        assert user.sync(FIRST) == 0
        assert user.has() == wanted
        assert user.state() == ["record.json"]
        if held:  # all bytes had come: a kill after the download costs no other one
            assert len(user.server.requests) == 1


KILLING = """
import os, signal, sys
from pathlib import Path
from misc import sync_experts
real, calls = {owner}.{name}, iter(range({count}))
def dying(*args, **options):
    if next(calls, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **options)
{owner}.{name} = dying
sync_experts.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("owner", "name", "count"),
    [("os", "fsync", 5), ("Path", "replace", 3), ("Path", "replace", 5), ("Path", "rmdir", 0)],
)
def test_a_killed_process_leaves_what_the_next_one_completes(
    user: User, owner: str, name: str, count: int
) -> None:
    user.sync(SECOND)
    program = KILLING.format(owner=owner, name=name, count=count)
    flags = ["--dataset", "MSVD", "--release", FIRST]
    places = ["--root_url", user.server.root, "--data_dir", str(user.data)]
    command = [sys.executable, "-c", program, *flags, *places]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert "record.json" not in user.state()
    assert user.sync() == 0
    assert user.has() == {**features(SECOND), **features(FIRST)}
    assert user.state() == ["record.json"]
    assert len(user.server.requests) == 2


def test_two_runs_at_once_fetch_once(user: User) -> None:
    command = [sys.executable, "misc/sync_experts.py", "--dataset", "MSVD", "--release", FIRST]
    places = ["--root_url", user.server.root, "--data_dir", str(user.data)]
    runs = [subprocess.Popen([*command, *places], cwd=ROOT) for _ in range(2)]
    runs.append(subprocess.Popen([*command[:-1], SECOND, *places], cwd=ROOT))
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert user.has() == {**features(FIRST), **features(SECOND)}
    assert len(user.server.requests) == 2


def test_one_run_at_a_time_moves_files(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_locked(source: Path, target: Path) -> None:
        [lock] = (user.data / ".fetch").glob(".lock.*.tmp")
        with lock.open("r+") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        disk.place(source, target)

    monkeypatch.setattr(fetch, "place", is_locked)
    assert user.sync() == 0
    assert user.has() == features(FIRST)


def test_it_runs_as_a_module_too(user: User) -> None:
    command = [sys.executable, "-m", "misc.sync_experts", "--dataset", "msvd"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith('error: There is no published data set "msvd" (did you mean "MS')
    assert done.stderr.count("\n") == 1


def test_a_set_that_needs_a_code(user: User) -> None:
    user.server.files[f"/high-quality/{HASH}-high-quality-LSMDC-experts.tar.gz"] = archive(
        features("high-quality", "LSMDC")
    )
    assert user.sync("high-quality", "LSMDC") == 2
    assert "access code" in user.said and "describingmovies/download" in user.said
    assert user.server.requests == []
    lsmdc = ("--dataset", "LSMDC", "--release", "high-quality", "--access_code")
    assert user.run(*lsmdc, "wrong") == 2
    assert "check the access code" in user.said
    faults = (act.status(503), act.reset(100), act.redirect("/no"), act.status(403))
    for fault in (*faults, act.broken_headers):
        user.server.faults.clear()
        user.server.faults.extend([fault, act.status(404)])
        user.run(*lsmdc, CODE)
        assert HASH not in user.said and CODE not in user.said
    user.server.faults.clear()
    assert user.run(*lsmdc, CODE) == 0
    assert user.has() == features("high-quality", "LSMDC")
    assert user.run(*lsmdc, CODE, "--dry_run") == 0
    assert "<access code>-high-quality-LSMDC-experts.tar.gz" in user.said
    texts = [path.read_text(errors="replace") for path in user.data.rglob("*") if path.is_file()]
    for text in (user.said, *texts, *(str(path) for path in user.data.rglob("*"))):
        assert HASH not in text and CODE not in text


def test_a_checkpoint_comes_with_its_config(user: User) -> None:
    model = find_model("msvd-train-full-ce")
    folder = f"/models/msvd-train-full-ce/{model.run}"
    config, weights = b'{"arch": {}}', b"PK\x03\x04" + bytes(200_000)
    user.server.files |= {f"{folder}/config.json": config, f"{folder}/trained_model.pth": weights}
    user.server.faults.extend([None, act.piece(100_000)])
    assert user.run("--model", "msvd-train-full-ce") == 0
    below = f"saved{folder}"
    wanted = {f"{below}/config.json": config, f"{below}/trained_model.pth": weights}
    assert user.has() == wanted
    assert f"--resume {user.data / below / 'trained_model.pth'}" in user.said
    assert user.server.requests[-1][1]["Range"] == "bytes=100000-"
    asked = len(user.server.requests)
    assert user.run("--model", "msvd-train-full-ce") == 0
    assert len(user.server.requests) == asked and user.has() == wanted


@pytest.mark.parametrize(("name", "what"), [("config.json", "config"), ("trained_model.pth", "no")])
def test_a_page_of_a_login_is_no_checkpoint(user: User, name: str, what: str) -> None:
    model = find_model("msvd-train-full-ce")
    folder = f"/models/msvd-train-full-ce/{model.run}"
    good = {"config.json": b"{}", "trained_model.pth": b"\x80\x02x"}
    user.server.files |= {f"{folder}/{file}": content for file, content in good.items()}
    user.server.files[f"{folder}/{name}"] = b"<html>Please log in</html>"
    assert user.run("--model", "msvd-train-full-ce") == 2
    assert what in user.said and f"{folder}/{name}" in user.said
    assert user.has() == {}
    user.server.files[f"{folder}/{name}"] = good[name]
    assert user.run("--model", "msvd-train-full-ce") == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--dataset", "msrvt"], 'did you mean "MSRVTT"'),
        (["--dataset", "VaTeX"], "VaTeX"),
        (["--dataset", "QuerYD", "--release", "high-quality"], "one of features-v2."),
        (["--model", "msvd-train-full-c"], 'did you mean "msvd-train-full-ce"'),
        (["--model", "msvd-train-full-ce", "--release", FIRST], "the release"),
        (["--model", "msvd-train-full-ce", "--access_code", "x"], "checkpoints"),
        (["--dataset", "MSVD", "--root_url", "ftp://host/x"], "http or https"),
        (["--dataset", "MSVD", "--root_url", "file:///etc"], "http or https"),
        (["--dataset", "MSVD", "--root_url", "www.host.org"], "http or https"),
        (["--dataset", "MSVD", "--root_url", "http://a:b@host/"], "plain address"),
        (["--dataset", "MSVD", "--root_url", "http://host:99999/"], "http or https"),
    ],
)
def test_a_slip_on_the_command_line_is_one_sentence(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(sync_experts.main, flags) == 2
    said = capsys.readouterr()
    assert expected in said.err and said.err.count("\n") == 1 and said.out == ""


@pytest.mark.parametrize("flags", [[], ["--dataset", "MSVD", "--model", "x"], ["--relase", "x"]])
def test_wrong_flags_end_with_2(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        sync_experts.main(flags)
    assert end.value.code == 2


def test_a_dry_run_says_all_and_touches_nothing(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert user.run("--dataset", "MSVD", "--dry_run") == 0
    for text in (
        f"{user.server.root}/features-v2/MSVD-experts.tar.gz",
        "about 2.1 GiB",
        "999ef6e34c9d9ffe15363ade90400741bae5cb34 or 6071827257c14de455b3a13fe1e885c2a7887c9e",
        f"--release {FIRST}",
    ):
        assert text in user.said
    assert user.run("--model", "msvd-train-full-ce", "--dry_run") == 0
    assert f"{user.server.root}/models/msvd-train-full-ce/5bb8dda1/seed-0/" in user.said
    assert user.run("--dataset", "LSMDC", "--dry_run") == 0
    assert "needs a code: " in user.said
    assert user.server.requests == [] and not user.data.exists()


def write_config(folder: Path, name: str, experts: list[str], text: str, **loader: object) -> None:
    base = {"data_loader": {"args": {"dataset_name": "MSVD", "split_name": "dev", **loader}}}
    path = folder / "msvd" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / "base_msvd.json").write_text("{}", encoding="utf-8")
    values = {**base, "experts": {"modalities": experts, "text_feat": text}}
    path.write_text(json.dumps({"inherit_from": str(folder / "base_msvd.json"), **values}))


def test_which_configs_need_an_archive(tmp_path: Path) -> None:
    senet = {"imagenet.senet154.0": {"fps": 25, "pixel_dim": 256, "stride": 1, "offset": 0}}
    for entry in senet.values():
        entry.update(temporal="avg", type="embed")
    write_config(tmp_path, "old", ["face", "ocr"], "openai")
    write_config(tmp_path, "new", [*senet], "gpt2-xl", feat_aggregation=senet)
    write_config(tmp_path, "both", ["face"], "w2v")
    write_config(tmp_path, "unknown", ["face", "gaze"], "openai")
    write_config(tmp_path, "contest", ["face"], "w2v", root_feat_folder=FIRST)
    write_config(tmp_path, "other", ["face"], "w2v", dataset_name="DiDeMo")
    (tmp_path / "msvd" / "broken.json").write_text("{", encoding="utf-8")

    def found(release: str) -> dict[str, tuple[tuple[str, ...], bool]]:
        entries = needs("MSVD", release, tmp_path)
        return {need.config.stem: (need.also, need.unknown) for need in entries}

    high = "high-quality"
    assert found("features-v2") == {
        "old": ((), False),
        "both": ((high,), False),
        "unknown": ((high,), True),
    }
    assert found(high) == {"new": ((), False), "both": (("features-v2",), False)}
    assert found(FIRST) == {"contest": ((), False)}
    assert found(SECOND) == {}


def test_a_dry_run_names_the_configs(tmp_path: Path) -> None:
    write_config(tmp_path / "configs", "train-full-ce", ["face"], "w2v")
    said = archive_plan(find_archive("MSVD"), tmp_path, tmp_path / "configs").splitlines()
    assert "  needed by 1 config" in said
    assert "    configs/msvd/train-full-ce.json  (and the release high-quality)" in said
    assert "Also there: --release high-quality, needed by 1 config" in said


def test_names_of_archives() -> None:
    assert find_archive("ActivityNet") == find_archive("activity-net")
    urls = [find_archive("activity-net", release).source.url for release in catalogue.releases()]
    root = "http://www.robots.ox.ac.uk/~vgg/research"
    assert urls == [
        f"{root}/collaborative-experts/data/features-v2/activity-net-experts.tar.gz",
        f"{root}/teachtext/data-hq/high-quality/high-quality-activity-net-experts.tar.gz",
        f"{root}/collaborative-experts/data/{FIRST}/{FIRST}-activity-net-experts.tar.gz",
        f"{root}/collaborative-experts/data/{SECOND}/{SECOND}-activity-net-experts.tar.gz",
    ]
    secret = find_archive("LSMDC", access_code=CODE, root_url="https://mirror.org/a/").source
    assert secret.url == f"https://mirror.org/a/features-v2/{HASH}-LSMDC-experts.tar.gz"
    assert secret.shown == "https://mirror.org/a/features-v2/<access code>-LSMDC-experts.tar.gz"


@pytest.fixture
def reference() -> Path:
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip("the folder of reference values is not here")
    return folder


def test_archives_are_those_published(reference: Path) -> None:
    published = json.loads((reference / "archives.json").read_text(encoding="utf-8"))["releases"]
    assert list(published) == catalogue.releases()
    for release, entry in published.items():
        known = {catalogue.find_data_set(name): facts for name, facts in entry["archives"].items()}
        assert {name for name in catalogue.data_sets() if release in catalogue.releases(name)} == {
            *known
        }
        for name, facts in known.items():
            source = find_archive(name, release).source
            assert source.url == f"{entry['root']}/{release}/{facts['file']}"
            assert source.sha1 == tuple(facts["sha1"])
            assert not facts.get("access_code") or find_archive(name, release).lacks_code


def test_checkpoints_are_those_published(reference: Path) -> None:
    zoo = json.loads((reference / "model_zoo.json").read_text(encoding="utf-8"))
    for name, release in (("collaborative-experts", "features-v2"), ("teachtext", "high-quality")):
        for experiment, entry in zoo[name].items():
            model = find_model(experiment, release)
            assert model.config.url == entry["config"]
            assert model.checkpoint.url == entry["checkpoint"]


def test_what_archives_hold_is_in_their_lists(reference: Path) -> None:
    endings = {"features-v2": "tar_include.txt", "high-quality": "tar_include_hq.txt"}
    for path in (reference / "archives").iterdir():
        for release in catalogue.releases():
            ending = f"-{endings.get(release, f'{release}-tar_include.txt')}"
            folder = path.name.removesuffix(ending)
            by_name = {name.lower(): name for name in catalogue.folders()}
            if folder.lower() in by_name:
                dataset = catalogue.find_data_set(by_name[folder.lower()])
                members = path.read_text(encoding="utf-8").split()
                held = catalogue.what_it_holds(dataset, release)
                assert held
                for thing in held:
                    if "/" in thing and not thing.startswith(("text/", "miech/")):
                        assert any(member.endswith(f"/{thing}") for member in members), thing
                text = {thing for thing in held if thing.startswith("text/")}
                assert bool(text) == any("/aggregated_text_feats/" in name for name in members)
