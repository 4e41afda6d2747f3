"""Puts a data set together: made beside its folder, checked there, and moved in when it is whole.

`dataset.json` keeps what was asked for (`made_by`). A file that would come out the same is left as
it lies, so that what was packed of it stays valid, and nothing is removed or replaced that this
tool has not written.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_loader.formats.apart import watched
from data_loader.sets.description import FILE_NAME, find_description
from logger.progress import PackingBar, progress
from misc.check_data_set.problems import check_data_set
from misc.check_data_set.report import line_of
from misc.check_data_set.use import use_by
from misc.import_data_set.asked import (
    TOOL,
    Making,
    earlier,
    joined,
    made_before,
    recorded,
    recorded_making,
    relative,
)
from misc.import_data_set.config import make_config, protocol
from misc.import_data_set.features import Source, find_features
from misc.import_data_set.gather import Gathered, Request, gather
from misc.import_data_set.report import ids_table, recognised
from misc.import_data_set.splits import ROLES, Lists
from misc.import_data_set.text import (
    ENCODED,
    OWN_VECTORS,
    encode,
    is_word_vectors,
    make_vectors,
    refer_to_vectors,
    text_lengths,
)
from utils.config import Config
from utils.errors import UserError, short
from utils.files import (
    PATH_ERRORS,
    alone,
    check_writable,
    exists,
    make_folder,
    read_json,
    reason,
    replacing,
    safe_name,
    write_json,
)

_CONFIG, _CAPTIONS, _QUERIES, _REQUEST = "config.json", "captions.json", "queries.json", "request"


def import_data_set(
    output: Path,
    request: Request,
    making: Making,
    add: bool = False,
    device: str | None = None,
    leave_out_experts: bool = False,
) -> Iterator[str]:
    """Make a data set, or bring one that was made here up to date; says what it does.

    Args:
        output: its folder.
        request: what to read.
        making: what to make of it.
        add: whether the sources come to those of before.
        device: that encodes the captions.
        leave_out_experts: whether those that no video of some list has are left out, not refused.

    Raises:
        UserError: a source cannot be used, something else lies in the folder, or the data set would
            not pass the check; nothing has changed then.
    """
    try:
        place = output.resolve()
    except PATH_ERRORS as error:
        raise UserError(f"Cannot write {output}: {reason(error)}.") from error
    check_writable(place)
    before = made_before(place, add)
    kept: Lists | None = None
    if add:
        request, making = (
            joined(before["request"], place, request),
            earlier(before["making"], place, making),
        )
        if before.get("is_drawn"):
            kept = {role: _lines(place / "splits" / f"{role}.txt") for role in ROLES}
    sources = [
        find_features(spec, making.aggregate)
        for spec in progress(request.features, description="features")
    ]
    gathered = gather(request, sources, kept)
    if leave_out_experts:
        gathered.leave_out_absent()
    yield from recognised(gathered)
    yield ""
    yield from ids_table(gathered)
    yield ""
    make_folder(place.parent)
    with alone(place, f"importing into {output}"), _staging(place, request, making) as folder:
        maker = _Maker(output, place, folder, gathered, request, making, before)
        maker.make(device)
        maker.check()
        changed = maker.move_in()
    yield from maker.said
    yield f"{output}: {', '.join(changed)}" if changed else f"{output}: nothing has changed"


class _Maker:
    """Makes the files of a data set in a folder beside its own."""

    def __init__(
        self,
        output: Path,
        place: Path,
        folder: Path,
        gathered: Gathered,
        request: Request,
        making: Making,
        before: dict[str, Any],
    ) -> None:
        self.output, self.place, self.folder = output, place, folder
        self.gathered, self.request, self.making = gathered, request, making
        self.before: dict[str, str] = before.get("files", {})
        self.files: dict[str, str] = {}
        self.said: list[str] = []

    def make(self, device: str | None) -> None:
        captions, splits = self.gathered.captions, self.gathered.splits
        entry: dict[str, Any] = {}
        if self.gathered.queries:
            entry["test_caption_index"] = self._queries()
        self._json(_CAPTIONS, captions)
        for role in ROLES:
            self._text(f"splits/{role}.txt", "".join(f"{v}\n" for v in splits.lists[role]))
        experts = {
            name: self._expert(name, sources) for name, sources in self.gathered.sources.items()
        }
        text, text_entry = self._text_features(device)
        description: dict[str, Any] = {
            "name": self.making.name or self.place.name,
            "experts": experts,
            "captions": _CAPTIONS,
            "text_features": {text: text_entry},
            "splits": {
                "val": {"train": "splits/train.txt", "val": "splits/val.txt"},
                "test": {"train": "splits/train.txt", "val": "splits/test.txt", **entry},
            },
        }
        self._config(description, text, text_entry)
        description["made_by"] = {
            "tool": TOOL,
            "request": asdict(recorded(self.request, self.place)),
            "making": asdict(recorded_making(self.making, self.place)),
            "is_drawn": splits.is_drawn,
            "files": self.files,
        }
        write_json(self.folder / FILE_NAME, description)

    def check(self) -> None:
        """Insist that the data set passes the check.

        Raises:
            UserError: it does not; the message has the first problem.
        """
        config = Config.from_file(self.folder / _CONFIG)
        description = find_description(str(self.folder))
        report = check_data_set(description, use=use_by(config, description))
        if report.problems:
            more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
            line = line_of(report.problems[0], 3).replace(str(self.folder), str(self.output))
            raise UserError(f"Nothing was imported, {line.rstrip('.')}{more}.")

    def move_in(self) -> list[str]:
        """Let the new files take the place of the old ones; return those that have changed."""
        mark = self.folder / _REQUEST
        if not self.place.exists():
            mark.unlink()
            self.folder.rename(self.place)
            return ["made"]
        changed = []
        files = (path for path in self.folder.rglob("*") if not path.is_dir() and path != mark)
        paths = sorted(files)
        # What describes the others comes last.
        for path in sorted(paths, key=lambda path: path.name == FILE_NAME):
            name = path.relative_to(self.folder).as_posix()
            target = self.place / name
            if path.is_symlink() or (target.is_file() and _digest(path) == _digest(target)):
                continue
            make_folder(target.parent)
            path.replace(target)
            is_new = name not in {*self.before, FILE_NAME}
            changed.append(f"{name} is new" if is_new else f"{name} has changed")
        for name in self.before.keys() - self.files.keys():
            (self.place / name).unlink(missing_ok=True)
            changed.append(f"{name} is gone")
        return changed

    # --- Files ------------------------------------------------------------------------------------

    def _queries(self) -> str:
        """Let the sentences of the list of test videos be their queries.

        A single sentence stands among the video's captions, and an index names it; several take
        their place.
        """
        captions, index = self.gathered.captions, {}
        several = max(map(len, self.gathered.queries.values())) > 1
        for video in self.gathered.splits.lists["test"]:
            sentences = self.gathered.queries.get(video)
            if not sentences:
                raise UserError(
                    f'The list of test videos gives sentences, but none for "{short(video)}": give '
                    "one to each video, or leave the column out."
                )
            if several:
                captions[video] = list(sentences)
                continue
            if sentences[0] not in captions[video]:
                captions[video] = [*captions[video], sentences[0]]
            index[video] = captions[video].index(sentences[0])
        if several:
            raise UserError(
                "The list of test videos gives several sentences for a video: give it as captions, "
                "--captions train=FILE test=FILE."
            )
        self._json(_QUERIES, index)
        return _QUERIES

    def _expert(self, name: str, sources: list[Source]) -> dict[str, Any]:
        """Refer to an expert's files as they lie, or write them anew where their ids change."""
        sizes = {source.size for source in sources}
        if len(sizes) > 1:
            shown = ", ".join(map(str, sorted(sizes)))
            raise UserError(f'The sources of the expert "{name}" have vectors of sizes {shown}.')
        entries = []
        for number, (source, ids) in enumerate(
            zip(sources, self.gathered.experts[name], strict=True), 1
        ):
            entry = source.entry(self.place)
            if entry is not None:
                entry["file"] = relative(str(source.path), self.place)
                self._let_stand(entry["file"])
            if entry is None or any(old != new for old, new in ids.items()):
                ending = f"-{number}" if len(sources) > 1 else ""
                entry = self._features(f"features/{safe_name(name, 100)}{ending}.npz", source, ids)
            entries.append(entry)
        if len(entries) == 1:
            return entries[0]
        merged = {**entries[0], "parts": [entry["file"] for entry in entries]}
        del merged["file"]
        if any(entry.get("variable_length") for entry in entries):
            merged["variable_length"] = True
        return merged

    def _features(self, name: str, source: Source, ids: Mapping[str, str]) -> dict[str, Any]:
        wanted = {old: new for old, new in ids.items() if new in self.gathered.captions}
        recipe = _digest_of([list(map(_state, source.files)), wanted, source.aggregate])
        if not self._reuse(name, recipe):
            make_folder((self.folder / name).parent)
            with watched(PackingBar()) if sys.stderr.isatty() else nullcontext():
                source.write(self.folder / name, wanted)
        return source.entry_of(name)

    def _let_stand(self, file: str) -> None:
        """Let what lies in the data set's own folder be found while that is checked elsewhere."""
        if not file.startswith("../"):
            make_folder((self.folder / file).parent)
            (self.folder / file).symlink_to(self.place / file)

    def _text_features(self, device: str | None) -> tuple[str, dict[str, Any]]:
        """Return the name and the entry of the text features."""
        encoder, captions = self.making.text_encoder, self.gathered.captions
        if encoder is None:
            training = self.gathered.splits.lists["train"]
            texts = [text for video in training for text in captions[video]]
            recipe = _digest_of(texts)
            if self._reuse(OWN_VECTORS, recipe):
                return "words", self._old_entry("words")
            self.said.append(
                "the word vectors are made of the training captions alone; an encoder that has "
                "read more does better (--text-encoder)"
            )
            return "words", make_vectors(self.folder / OWN_VECTORS, texts)
        if is_word_vectors(encoder):
            return "words", refer_to_vectors(Path(encoder), self.place, captions)
        recipe = _digest_of([captions, encoder, _state(Path(encoder))])
        there = {name: self._reuse(name, recipe) for name in (ENCODED, f"{ENCODED}.json")}
        if all(there.values()):
            return "text", self._old_entry("text")
        for name in there:
            (self.folder / name).unlink(missing_ok=True)
        return "text", encode(self.folder, encoder, device, "float32")

    def _config(self, description: dict[str, Any], text: str, entry: dict[str, Any]) -> None:
        gathered, lists = self.gathered, self.gathered.splits.lists
        held = [video for role in ("val", "test") for video in lists[role]]
        rules = protocol(
            self.making.captions_as, max(len(gathered.captions[video]) for video in held)
        )
        lengths: dict[str, Any] = {
            name: [n for s in sources if s.lengths is not None for n in s.lengths]
            for name, sources in gathered.sources.items()
            if description["experts"][name].get("variable_length")
        }
        counts = text_lengths(
            self.folder, entry, (c for texts in gathered.captions.values() for c in texts)
        )
        if self.making.captions_as == "paragraph":
            numbers = iter(counts)
            counts = [sum(next(numbers) for _ in t) for t in gathered.captions.values()]
        lengths["text"] = counts
        training = len(lists["train"])
        config = make_config(
            self.output, description, text, lengths, training, rules, self.making.videos
        )
        told = rules.said
        if gathered.queries:
            told = "the sentence that the test list gives is the query"
        self.said.append(f"protocol: {told} (--captions-as {self.making.captions_as})")
        written = self.place / _CONFIG
        if (
            _CONFIG in self.before
            and exists(written)
            and (_digest(written) != self.before[_CONFIG])
        ):
            self.said.append(f"{_CONFIG} was changed since it was written, and stays as it is")
            (self.folder / _CONFIG).symlink_to(written)
            self.files[_CONFIG] = self.before[_CONFIG]
            return
        self._json(_CONFIG, config)

    def _json(self, name: str, value: Any) -> None:
        self._claim(name)
        write_json(self.folder / name, value)
        self.files[name] = _digest(self.folder / name)

    def _text(self, name: str, text: str) -> None:
        self._claim(name)
        make_folder((self.folder / name).parent)
        with replacing(self.folder / name, "w", encoding="utf-8") as handle:
            handle.write(text)
        self.files[name] = _digest(self.folder / name)

    def _reuse(self, name: str, recipe: str) -> bool:
        """Whether a file of before was made of the same; it stays where it is then."""
        self._claim(name)
        self.files[name] = recipe
        if self.before.get(name) != recipe or not (self.place / name).is_file():
            return False
        make_folder((self.folder / name).parent)
        (self.folder / name).symlink_to(self.place / name)
        return True

    def _claim(self, name: str) -> None:
        """Insist that a file may be written: it is not there, or this tool has written it."""
        if name not in self.before and exists(self.place / name):
            raise UserError(
                f"{self.output / name} is there and was not written by this tool: choose another "
                "--output, or move it away."
            )

    def _old_entry(self, name: str) -> dict[str, Any]:
        return read_json(self.place / FILE_NAME, "description")["text_features"][name]


# --- The folder in which it is made ---------------------------------------------------------------


@contextmanager
def _staging(place: Path, request: Request, making: Making) -> Iterator[Path]:
    """Give an empty folder beside the data set's, which is gone afterwards.

    Encoding captions may take long: what an interrupted import has encoded is gone on with if the
    next one asks for the same.

    Raises:
        UserError: something that this tool has not made lies there.
    """
    folder = place.with_name(f".{place.name}.importing")
    mark = folder / _REQUEST
    asked = json.dumps([asdict(request), asdict(making)])
    if exists(folder):
        _insist_on_own(folder)
        same = mark.is_file() and mark.read_text(encoding="utf-8") == asked
        _empty(folder, f"{ENCODED}.parts" if same else "")
    make_folder(folder)
    mark.write_text(asked, encoding="utf-8")
    keep = False
    try:
        yield folder
    except KeyboardInterrupt:
        keep = (folder / f"{ENCODED}.parts").is_dir()
        raise
    finally:
        if not keep and folder.is_dir():
            _empty(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path, keep: str = "") -> None:
    """Remove all but the mark, by which even a half of it is known as ours."""
    for path in folder.iterdir():
        if path.name not in (keep, _REQUEST):
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink()


def _insist_on_own(folder: Path) -> None:
    """Refuse a folder with content that no import has left there: it would be emptied."""
    is_folder = folder.is_dir() and not folder.is_symlink()
    # An import that is killed at its very end has taken the mark away and not yet moved the folder.
    if not is_folder or not (
        (folder / _REQUEST).is_file() or not any(folder.iterdir()) or made_before(folder, add=False)
    ):
        raise UserError(f"{folder} is in the way of the import: move it away.")


def _state(path: Path) -> Any:
    """Return what changes when a file, or one in a folder, changes; None where there is none."""
    if not exists(path):
        return None
    if not path.is_dir():
        facts = path.stat()
        return [facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns]
    inner = sorted(p for p in path.rglob("*") if p.is_file())
    return _digest_of([[str(p.relative_to(path)), *_state(p)] for p in inner])


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode("utf-8", "surrogatepass")).hexdigest()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1] if exists(path) else []
