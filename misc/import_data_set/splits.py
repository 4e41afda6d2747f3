"""Which videos are trained on, validated on and tested on: as lists say, or drawn for a seed."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from utils.errors import UserError

ROLES = ("train", "val", "test")
Lists = dict[str, list[str]]
"""Role -> ids of videos."""


@dataclass(frozen=True)
class Splits:
    """The lists of a data set.

    Attributes:
        lists: for each role.
        said: where they come from, for the user.
        is_drawn: whether they are drawn as a whole.
    """

    lists: Lists
    said: list[str] = field(default_factory=list)
    is_drawn: bool = False


def complete(lists: Lists, draw: Sequence[int], seed: int, source: Callable[[str], str]) -> Splits:
    """Give lists of which the training set is there the ones that they lack.

    A missing validation list is drawn from the training videos, never from the test's; a missing
    test list is the validation list.

    Raises:
        UserError: there is no training list, or neither of the others.
    """
    if not lists.get("train") or not (lists.get("val") or lists.get("test")):
        there = " and ".join(role for role in ROLES if lists.get(role)) or "none"
        raise UserError(
            f"A list of training videos and one to validate or test on are needed, {there} is "
            "there: name the files (--split-files train=FILE test=FILE), or leave all lists out to "
            "have them drawn."
        )
    if lists.get("val") and lists.get("test"):
        return Splits({role: lists[role] for role in ROLES})
    if lists.get("val"):
        said = "there is no list of test videos: the test is on the validation videos"
        return Splits({**lists, "test": lists["val"]}, [said])
    drawn = draw_lists(lists["train"], (draw[0], draw[1], 0), seed, source)
    said = (
        f"there is no list of validation videos: {len(drawn['val'])} of the training videos were "
        f"drawn for it (seed {seed}; --split-files val=FILE names others)"
    )
    return Splits({"train": drawn["train"], "val": drawn["val"], "test": lists["test"]}, [said])


def draw_lists(
    videos: Iterable[str],
    draw: Sequence[int],
    seed: int,
    source: Callable[[str], str],
    kept: Mapping[str, str] | None = None,
) -> Lists:
    """Draw lists so that no two segments of one video come into different ones.

    Args:
        videos: the ids.
        draw: how many of what number of videos go to train, val and test.
        seed: of the draw.
        source: id -> the video that it is a part of.
        kept: id -> role of videos that were drawn before; their segments stay together too.
    """
    groups: dict[str, list[str]] = {}
    for video in videos:
        groups.setdefault(source(video), []).append(video)
    kept = kept or {}
    role_of_group = {source(video): role for video, role in kept.items()}
    total = sum(map(len, groups.values()))
    wanted = {
        role: max(1, round(total * share / sum(draw))) if share else 0
        for role, share in zip(ROLES, draw, strict=True)
    }
    counts = dict.fromkeys(ROLES, 0)
    for name, members in groups.items():
        if name in role_of_group:
            counts[role_of_group[name]] += len(members)
    for name in sorted(groups, key=lambda name: _rank(seed, name)):
        if name not in role_of_group:
            # A long video with many segments does not fill more than its list has room for.
            role = next(
                (r for r in ("test", "val") if counts[r] + len(groups[name]) <= wanted[r]), "train"
            )
            role_of_group[name] = role
            counts[role] += len(groups[name])
    chosen = {video: role_of_group[name] for name, members in groups.items() for video in members}
    return {role: [video for video in chosen if chosen[video] == role] for role in ROLES}


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).hexdigest()
