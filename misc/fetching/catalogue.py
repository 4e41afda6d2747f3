"""What is published: archives of features by data set and release, checkpoints by experiment.

The facts lie in `archives.json` (checksums, access, what an archive holds) and `models.json`
(experiment -> path of its run) beside this file.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from utils.errors import UserError, did_you_mean
from utils.files import read_json

DEFAULT_RELEASE = "features-v2"
CODE_SHOWN_AS = "<access code>"

HOW_TO_GET_A_CODE = (
    "the owners of the films give their data to registered researchers alone: register at "
    "https://sites.google.com/site/describingmovies/download, ask the publishers of the features "
    "for the code, and give it with --access_code"
)


@dataclass(frozen=True)
class Source:
    """A file on a server.

    Attributes:
        url: where it lies; secret where an access code was given.
        shown: the same for people and records, without the code.
        sha1: published sums, any of which is right; empty where none is published.
    """

    url: str
    shown: str
    sha1: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file, without the code."""
        return self.shown.rpartition("/")[2]


@dataclass(frozen=True)
class Archive:
    """The archive of one data set in one release.

    Attributes:
        dataset: name of the data set.
        release: name of the release.
        name: name of the archive without its ending, and of the folder where its state is kept.
        source: where it lies.
        lacks_code: whether it needs an access code and none was given.
        about_gib: size as published, None where none is.
    """

    dataset: str
    release: str
    name: str
    source: Source
    lacks_code: bool
    about_gib: float | None


@dataclass(frozen=True)
class PublishedModel:
    """A published checkpoint with its config.

    Attributes:
        experiment: name of the experiment.
        run: `<group>/seed-<seed>/<timestamp>`, the path of the run below the experiment's.
        release: the release of the features that it belongs to.
        config, checkpoint: where the two files lie.
    """

    experiment: str
    run: str
    release: str
    config: Source
    checkpoint: Source

    @property
    def folder(self) -> Path:
        """Where it goes below the data folder, as if it had been trained here."""
        return Path("saved", "models", self.experiment, self.run)

    @property
    def name(self) -> str:
        """Name of the folder where the state of its fetching is kept."""
        return f"{self.experiment}-{self.run.replace('/', '-')}"


@cache
def _facts() -> dict[str, Any]:
    return read_json(Path(__file__).with_name("archives.json"), "catalogue")


@cache
def _models() -> dict[str, dict[str, str]]:
    return read_json(Path(__file__).with_name("models.json"), "catalogue")


def data_sets() -> list[str]:
    """Names of the published data sets."""
    return list(_facts()["sets"])


def releases(dataset: str | None = None) -> list[str]:
    """Names of all releases, or of those that have an archive of a data set."""
    found = _facts()["releases"]
    return [name for name in found if dataset is None or dataset in found[name]["archives"]]


def folders() -> frozenset[str]:
    """Folders of the published sets below the data folder: where an archive may write."""
    return frozenset(entry["folder"] for entry in _facts()["sets"].values())


def moved_members() -> Mapping[str, str]:
    """Members that lie elsewhere in an archive than where they are looked for."""
    return _facts()["moved"]


def find_data_set(name: str) -> str:
    """Return the name of a published set, given its name or the name of its folder.

    Raises:
        UserError: there is none of that name.
    """
    by_name = {entry["folder"]: known for known, entry in _facts()["sets"].items()}
    by_name |= {known: known for known in by_name.values()}
    if name not in by_name:
        raise UserError(
            f'There is no published data set "{name}"{did_you_mean(name, by_name)}; known are '
            f"{', '.join(data_sets())}."
        )
    return by_name[name]


def find_archive(
    dataset: str,
    release: str | None = None,
    access_code: str | None = None,
    root_url: str | None = None,
) -> Archive:
    """Return the archive of a data set.

    Args:
        dataset: name of the set or of its folder.
        release: a release; by default `features-v2`.
        access_code: what the owners of the data gave, for a set that needs one.
        root_url: a mirror: what stands before `/<release>/` in the URL.

    Raises:
        UserError: there is no such archive, or `root_url` is no http(s) URL.
    """
    dataset = find_data_set(dataset)
    has = releases(dataset)
    if not has:
        raise UserError(
            f"No features of {dataset} are published; archives exist of "
            f"{', '.join(name for name in data_sets() if releases(name))}."
        )
    release = release or DEFAULT_RELEASE
    if release not in has:
        raise UserError(
            f"There is no archive of {dataset} in the release {release}; give --release with one "
            f"of {', '.join(has)}."
        )
    about = _facts()["sets"][dataset]
    published = _facts()["releases"][release]
    entry = published["archives"][dataset]
    name = f"{'' if release == DEFAULT_RELEASE else release + '-'}{about['folder']}-experts"
    # Who knows the hash can fetch the file, so it is as secret as the code.
    secret = hashlib.sha256(access_code.encode()).hexdigest()[:10] + "-" if access_code else ""
    hidden = f"{CODE_SHOWN_AS}-" if access_code else ""
    url, shown = (
        f"{_root(root_url, published['root'])}/{release}/{code}{name}.tar.gz"
        for code in (secret, hidden)
    )
    return Archive(
        dataset=dataset,
        release=release,
        name=name,
        source=Source(url, shown, tuple(entry["sha1"])),
        lacks_code=bool(about.get("access_code")) and not access_code,
        about_gib=None if release.startswith("challenge") else about.get("about_GiB"),
    )


def what_it_holds(dataset: str, release: str) -> frozenset[str] | None:
    """Return what the archive of a set holds, None where that is not published.

    Experts stand there by name ("audio") or by file, those of one split as "<split>/<expert>", text
    features as "text/<name>", and teachers by file.
    """
    holds = _facts()["releases"][release]["archives"][dataset].get("holds")
    return None if holds is None else frozenset(holds)


def models(release: str) -> Mapping[str, str]:
    """Experiments of which a release has a checkpoint -> the paths of their runs."""
    return _models().get(release, {})


def find_model(
    experiment: str, release: str | None = None, root_url: str | None = None
) -> PublishedModel:
    """Return a published checkpoint.

    Args:
        experiment: name of the experiment, such as `msvd-train-full-ce`.
        release: of several checkpoints of that name, the one that belongs to this release.
        root_url: a mirror: what stands before `/models/` in the URL.

    Raises:
        UserError: there is none, or `root_url` is no http(s) URL.
    """
    has = [name for name, runs in _models().items() if experiment in runs]
    if not has:
        known = dict.fromkeys(name for runs in _models().values() for name in runs)
        raise UserError(
            f'No checkpoint of an experiment "{experiment}" is published'
            f"{did_you_mean(experiment, known)}; the names are those of the config: "
            "<folder>-<file without .json>."
        )
    if release is not None and release not in has:
        raise UserError(
            f"The checkpoint of {experiment} belongs to the release {has[0]}, not to {release}."
        )
    release = release or has[0]
    run = _models()[release][experiment]
    root = _root(root_url, _facts()["releases"][release]["root"])
    folder = f"{root}/models/{experiment}/{run}"
    config, checkpoint = (f"{folder}/{name}" for name in ("config.json", "trained_model.pth"))
    return PublishedModel(
        experiment, run, release, Source(config, config), Source(checkpoint, checkpoint)
    )


def other_releases_of_model(model: PublishedModel) -> list[str]:
    """The other releases that have a checkpoint of the same experiment."""
    return [
        name
        for name, runs in _models().items()
        if model.experiment in runs and name != model.release
    ]


def _root(given: str | None, published: str) -> str:
    root = (given or published).rstrip("/")
    try:
        parts = urlsplit(root)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
    if not has_host or parts.scheme not in ("http", "https"):
        raise UserError(f'--root_url must be an http or https address, not "{root}".')
    if parts.query or parts.fragment or parts.username or not root.isprintable() or " " in root:
        raise UserError(
            "--root_url must be a plain address: no user name, spaces, query or fragment."
        )
    return root
