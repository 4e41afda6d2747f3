"""Brings together what the files hold: captions by id, lists, which experts have which videos."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_loader.sets.near_ids import near_miss
from misc.import_data_set.features import Source
from misc.import_data_set.fields import Entry, Known, role_of
from misc.import_data_set.ids import (
    FORMS,
    SEGMENT_TEMPLATES,
    common_form,
    segment_id,
    source_of,
)
from misc.import_data_set.layouts import Found, read_layout
from misc.import_data_set.splits import ROLES, Lists, Splits, complete, draw_lists
from utils.errors import UserError, listed, short

_MANY = 3


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        captions: files of captions, each with the role that stands before it ("" for none).
        features: `name=path` of each expert.
        split_files: lists of videos, each with its role ("" where the file says).
        id_column, caption_column, split_column: of captions and lists.
        segment_ids: template of the ids of segments.
        draw: how many videos go to train, val and test, in proportion.
        seed: of the draw.
        leave_out: whether listed videos without captions are left out.
    """

    captions: list[tuple[str, str]]
    features: list[str]
    split_files: list[tuple[str, str]] = field(default_factory=list)
    id_column: str | None = None
    caption_column: str | None = None
    split_column: str | None = None
    segment_ids: str | None = None
    draw: tuple[int, ...] = (8, 1, 1)
    seed: int = 0
    leave_out: bool = False


@dataclass
class Gathered:
    """What the files hold, by ids of one form.

    Attributes:
        captions: video -> its captions.
        splits: the lists.
        queries: video -> the sentences that a list of test videos gives.
        experts: expert -> for each of its sources, id as written there -> id.
        sources: expert -> its sources.
        form: what is taken off the ids, see `FORMS`.
        changed: an id as it stands in a file, and as it is written; None where none changes.
        found: the files of captions and lists, in the order of reading.
        said: what else the user should know.
    """

    captions: dict[str, list[str]]
    splits: Splits
    queries: dict[str, list[str]]
    experts: dict[str, list[dict[str, str]]]
    sources: dict[str, list[Source]]
    form: str
    changed: tuple[str, str] | None
    found: list[Found]
    said: list[str]

    def has_expert(self, name: str) -> set[str]:
        return {video for ids in self.experts[name] for video in ids.values()}

    def leave_out_absent(self) -> None:
        """Leave out the experts that no video of some list has."""
        for name in [*self.experts]:
            known = self.has_expert(name)
            without = [role for role, ids in self.splits.lists.items() if not known & {*ids}]
            if without:
                del self.experts[name], self.sources[name]
                self.said.append(f"expert {name} is left out: no video of {listed(without)} has it")


def gather(request: Request, sources: Sequence[Source], kept: Lists | None = None) -> Gathered:
    """Read captions and lists, and bring all ids to one form.

    Args:
        request: what the user asks for.
        sources: the features.
        kept: lists that were drawn before.

    Raises:
        UserError: a file cannot be used, ids do not meet, or it is ambiguous what is meant.
    """
    loose = FORMS["folders and endings"]
    expert_ids = frozenset(loose(name) for source in sources for name in source.ids)
    columns = (request.id_column, request.caption_column, request.split_column)
    known = Known(*columns, expert_ids, loose)
    captions = [read_layout(Path(path), known) for _, path in request.captions]
    caption_ids = {loose(entry.video) for found in captions for entry in found.entries}
    # A list has columns of its own: those that the user names may be there or not.
    known = Known(ids=expert_ids | caption_ids, form=loose)
    lists = [read_layout(Path(path), known, False) for _, path in request.split_files]
    raw = [dict.fromkeys(e.video for e in found.entries) for found in (*captions, *lists)]
    raw += [dict.fromkeys(source.ids) for source in sources]
    form = common_form(raw)
    for found in (*captions, *lists):
        _refuse_line_breaks(found)
    table = _Captions(FORMS[form], request.segment_ids)
    table.choose_template(captions, {FORMS[form](name) for s in sources for name in s.ids})
    for (role, path), found in zip(request.captions, captions, strict=True):
        table.add(found.entries, role or (role_of_file(path) if len(captions) > 1 else ""))
    experts: dict[str, list[dict[str, str]]] = {}
    by_name: dict[str, list[Source]] = {}
    for source in sources:
        experts.setdefault(source.name, []).append(
            {name: FORMS[form](name) for name in source.ids if name not in source.missing}
        )
        by_name.setdefault(source.name, []).append(source)
    _refuse_strangers(table.captions, experts)
    given, queries = table.lists(
        [
            (role or role_of_file(path), f)
            for (role, path), f in zip(request.split_files, lists, strict=True)
        ]
    )
    with_expert = {video for parts in experts.values() for ids in parts for video in ids.values()}
    usable = [video for video in table.captions if video in with_expert]
    splits = _splits(request, table, given, usable, kept)
    splits = _without_missing(splits, {*table.captions, *queries}, request.leave_out)
    for video, sentences in queries.items():
        table.captions.setdefault(video, list(sentences))
    return Gathered(
        table.captions,
        splits,
        queries,
        experts,
        by_name,
        form,
        next(((n, FORMS[form](n)) for group in raw for n in group if FORMS[form](n) != n), None),
        [*captions, *lists],
        table.said,
    )


def _refuse_line_breaks(found: Found) -> None:
    """Refuse ids that no list could hold in a line of its own."""
    for entry in found.entries:
        if len(entry.video.strip().splitlines()) > 1:
            raise UserError(
                f'{found.path} has the id "{short(entry.video)}", which goes over several lines: '
                "is a quotation mark missing before it?"
            )


def role_of_file(path: str) -> str:
    """Return the role that the name of a file has in it: "train" for `msrvtt_train.9k.csv`."""
    words = re.findall(r"[A-Za-z]+", Path(path).name)
    roles = {role for word in words if (role := role_of(word))}
    return roles.pop() if len(roles) == 1 else ""


class _Captions:
    """Captions by id, in one form, with the roles that their files say."""

    def __init__(self, form: Callable[[str], str], template: str | None) -> None:
        self.form, self.template = form, template
        self.captions: dict[str, list[str]] = {}
        self.roles: dict[str, str] = {}
        self.segments: dict[str, list[str]] = {}
        self.said: list[str] = []
        self._cuts = False
        self._unknown_words: dict[str, int] = {}

    def source(self, video: str) -> str:
        return source_of(video, self.template)

    def choose_template(self, found: Sequence[Found], known: Collection[str]) -> None:
        """Decide whether captions are about segments that are videos of their own."""
        entries = [e for f in found for e in f.entries if e.start is not None]
        if not entries:
            return
        if self.template is None:
            whole = len({self.form(entry.video) for entry in entries} & {*known})
            counts = {
                t: len({*self._segment_ids(entries, t)} & {*known}) for t in SEGMENT_TEMPLATES
            }
            best = max(counts, key=lambda template: counts[template])
            if counts[best] <= whole:
                return
            self.template = best
            self.said.append(f'the experts have segments: their ids are read as "{best}"')
        self._cuts = True

    def add(self, entries: Sequence[Entry], role: str) -> None:
        """Add the captions of a file; a role that an entry names goes before that of the file."""
        names = self._names(entries)
        for entry, name in zip(entries, names, strict=True):
            self.captions.setdefault(name, []).extend(entry.captions)
            own = role_of(entry.split) if entry.split else role
            if own is None:
                self._unknown_words[entry.split] = self._unknown_words.get(entry.split, 0) + 1
            elif own:
                before = self.roles.setdefault(name, own)
                if before != own:
                    raise UserError(
                        f'The captions say that the video "{short(name)}" belongs to both {before} '
                        f"and {own}: name the lists with --split-files."
                    )

    def _names(self, entries: Sequence[Entry]) -> list[str]:
        if not self._cuts:
            return [self.form(entry.video) for entry in entries]
        names = self._segment_ids(entries, str(self.template))
        for entry, name in zip(entries, names, strict=True):
            segments = self.segments.setdefault(self.form(entry.video), [])
            if name not in segments:
                segments.append(name)
        return names

    def _segment_ids(self, entries: Sequence[Entry], template: str) -> list[str]:
        seen: dict[str, dict[tuple[str, str], int]] = {}
        names = []
        for entry in entries:
            video = self.form(entry.video)
            spans = seen.setdefault(video, {})
            number = spans.setdefault((str(entry.start), str(entry.end)), len(spans))
            values = {"video": video, "number": number, "count": number + 1}
            names.append(segment_id(template, {**values, "start": entry.start, "end": entry.end}))
        return names

    def lists(self, found: Sequence[tuple[str, Found]]) -> tuple[Lists, dict[str, list[str]]]:
        """Return the ids of lists by role, and the sentences that test lists give."""
        lists: Lists = {}
        queries: dict[str, list[str]] = {}
        for role, file in found:
            for entry in file.entries:
                own = role_of(entry.split) if entry.split and not role else role
                if not own:
                    raise UserError(
                        f"The list of videos {file.path} does not say which videos it lists: write "
                        f"--split-files train={file.path}, or val= or test=."
                    )
                video = self.form(entry.video)
                for name in self.segments.get(video, [video]):
                    lists.setdefault(own, []).append(name)
                    if own == "test" and entry.captions:
                        queries.setdefault(name, []).extend(entry.captions)
        return {role: list(dict.fromkeys(ids)) for role, ids in lists.items()}, queries

    def roles_as_lists(self) -> Lists:
        """Return the lists that the captions' own roles make."""
        for word, count in self._unknown_words.items():
            self.said.append(f'{count} records have the split "{short(word)}", which is left aside')
        return {
            r: [v for v, own in self.roles.items() if own == r]
            for r in ROLES
            if r in self.roles.values()
        }


def _splits(
    request: Request, table: _Captions, given: Lists, usable: list[str], kept: Lists | None
) -> Splits:
    """Take the lists of files, else those that the captions name, else draw them."""
    draw, seed = request.draw, request.seed
    if given:
        splits = complete(given, draw, seed, table.source)
        return Splits(splits.lists, ["lists from the files", *splits.said])
    found = table.roles_as_lists()
    if {"train"} < set(found):
        splits = complete(found, draw, seed, table.source)
        return Splits(splits.lists, ["lists from the captions' own splits", *splits.said])
    if request.split_column:
        raise UserError(
            f'The column "{short(request.split_column)}" of --split-column names no training '
            f"videos and others to validate or test on ({listed(found) or 'no known word'}): "
            "write train, val and test in it."
        )
    if len(usable) < _MANY:
        raise UserError(
            "Too few videos have captions and an expert to draw lists for training, validation and "
            f"test of them: there are {len(usable)}, at least {_MANY} are needed."
        )
    before = {video: role for role, ids in (kept or {}).items() for video in ids}
    lists = draw_lists(usable, draw, seed, table.source, before)
    sources = len({table.source(video) for video in usable})
    said = f"lists drawn for seed {seed}"
    if sources < len(usable):
        said += f" by source video: {len(usable)} segments of {sources} videos"
    if empty := [role for role in ROLES if not lists[role]]:
        raise UserError(
            f"No video is left for {empty[0]} where segments of one video stay together: name the "
            "lists with --split-files."
        )
    return Splits(lists, [said], is_drawn=True)


def _without_missing(splits: Splits, there: set[str], leave_out: bool) -> Splits:
    """Leave out listed videos without captions, where the user says so."""
    for role, ids in splits.lists.items():
        missing = [video for video in ids if video not in there]
        if missing and (not leave_out or len(missing) == len(ids)):
            near = near_miss(missing, there)
            raise UserError(
                f"{len(missing)} of the {len(ids)} videos of the list {role} have no captions "
                f"({listed(map(short, missing), 3)}){f'; {near}' if near else ''}: name a file "
                "with their captions too, or leave them out with --leave-out."
            )
    lists = {role: [v for v in ids if v in there] for role, ids in splits.lists.items()}
    left = sum(map(len, splits.lists.values())) - sum(map(len, lists.values()))
    said = [f"{left} listed videos without captions are left out"] if left else []
    return Splits(lists, [*splits.said, *said], splits.is_drawn)


def _refuse_strangers(captions: Collection[str], experts: dict[str, list[dict[str, str]]]) -> None:
    """Insist that each expert has some of the captions' videos."""
    for name, parts in experts.items():
        ids = dict.fromkeys(video for part in parts for video in part.values())
        if not ids.keys() & {*captions}:
            near = near_miss(captions, ids)
            example = next(iter(ids), "none"), next(iter(captions), "none")
            raise UserError(
                f'No video of the captions has the expert "{name}": its ids are like '
                f'"{short(example[0])}", those of the captions like "{short(example[1])}"'
                f"{f'; {near}' if near else ''} (other columns: --id-column; segments: "
                "--segment-ids)."
            )
