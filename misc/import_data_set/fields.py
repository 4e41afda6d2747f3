"""Which fields of records hold what: the video, its captions, its split, start and end."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from data_loader.formats.records import ID_FIELDS, VAGUE_ID_FIELDS, plain
from utils.errors import BadContent, did_you_mean, listed, short

CAPTION_FIELDS = (
    *("caption", "captions", "sentence", "sentences", "text", "texts", "desc", "description"),
    *("descriptions", "encap", "chcap", "goldencaption", "query", "queries", "annotation"),
)
VAGUE_CAPTION_FIELDS = ("name", "title", "sent", "label", "raw", "comment")
SPLIT_FIELDS = ("split", "subset", "partition")
START_FIELDS = ("start", "starttime", "startsec", "begin")
END_FIELDS = ("end", "endtime", "endsec", "stop")
SPAN_FIELDS = ("segment", "segments", "timestamp", "timestamps", "span", "ts")
NAMED_FIELDS = (*ID_FIELDS, *CAPTION_FIELDS, *SPLIT_FIELDS, *START_FIELDS, *END_FIELDS)

_LOOKED_AT = 1000
_LIKE_A_SENTENCE = 2.5  # words, on average
_ROLES = {
    "train": ("train", "training", "trn", "trainset", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev", "val1", "valset"),
    "test": ("test", "testing", "tst", "eval", "testset", "val2"),
}


class Entry(NamedTuple):
    """One record's captions.

    Attributes:
        video: the id as it stands there.
        captions: what was said of it.
        split: the word for its split, empty where nothing says.
        start, end: of the segment that the captions are about, None where nothing says.
    """

    video: str
    captions: list[str]
    split: str = ""
    start: Any = None
    end: Any = None


@dataclass(frozen=True)
class Known:
    """What is known before a file is read.

    Attributes:
        id_column, caption_column, split_column: as the user named them.
        ids: of the experts' videos, in a form.
        form: brings an id to that form.
    """

    id_column: str | None = None
    caption_column: str | None = None
    split_column: str | None = None
    ids: frozenset[str] = frozenset()
    form: Callable[[str], str] = str

    def has(self, value: Any) -> bool:
        """Whether a value is the id of a video."""
        return self.form(str(value)) in self.ids


@dataclass(frozen=True)
class Fields:
    """The chosen fields, None where there is none; `others` are captions too (`caption_2`)."""

    video: str | None
    caption: str | None
    split: str | None = None
    start: str | None = None
    end: str | None = None
    span: str | None = None
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = (
            ("ids of videos", self.video),
            ("captions", " and ".join(filter(None, (self.caption, *self.others)))),
            ("splits", self.split),
            ("segments", self.span or (self.start and f"{self.start} and {self.end}")),
        )
        return ", ".join(f"{what} from {short(field)}" for what, field in said if field)


def role_of(word: str) -> str | None:
    """Return "train", "val" or "test" for the many words for them, None for any other word."""
    return next((role for role, words in _ROLES.items() if plain(word) in words), None)


def choose_fields(
    records: Iterable[dict[str, Any]],
    names: list[str],
    known: Known,
    has_names: bool = True,
    needs_caption: bool = True,
) -> Fields:
    """Decide which fields of records hold what.

    Args:
        records: the first of them are looked at.
        names: of the fields.
        known: what the user says, and the ids that the experts have.
        has_names: whether the names say anything.
        needs_caption: whether records without captions are of no use.

    Raises:
        BadContent: several fields would do, or none; the sentence names the flag that decides.
    """
    sample = list(islice(records, _LOOKED_AT))
    video = _named(names, known.id_column, "--id-column") or _id_field(
        sample, names, known, has_names
    )
    rest = [name for name in names if name != video]
    caption = _named(names, known.caption_column, "--caption-column") or _caption_field(
        sample, rest, has_names, needs_caption
    )
    rest = [name for name in rest if name != caption]
    others = _of_the_same_name(caption, rest) if has_names and not known.caption_column else ()
    split = _named(names, known.split_column, "--split-column") or first_field(rest, SPLIT_FIELDS)
    start, end = first_field(rest, START_FIELDS), first_field(rest, END_FIELDS)
    if not (start and end):
        start = end = None
    return Fields(video, caption, split, start, end, first_field(rest, SPAN_FIELDS), others)


def entries_of(
    records: Iterable[dict[str, Any]], fields: Fields, video: str | None = None, split: str = ""
) -> Iterator[Entry]:
    """Give the captions of records.

    Args:
        records: of the fields.
        fields: which of them to read.
        video: the id where no field holds it.
        split: the word for the split where no field holds it.
    """
    for record in records:
        name = video if fields.video is None else id_text(record.get(fields.video))
        if not name:
            continue
        columns = (fields.caption, *fields.others) if fields.caption else ()
        texts = [text for column in columns for text in captions_of(record.get(column))]
        role = str(record.get(fields.split) or "") if fields.split else split
        spans = _spans(record, fields)
        if isinstance(spans, list) and len(spans) == len(texts):
            for text, (start, end) in zip(texts, spans, strict=True):
                yield Entry(name, [text], role, start, end)
        else:
            start, end = spans if isinstance(spans, tuple) else (None, None)
            yield Entry(name, texts, role, start, end)


def captions_of(value: Any) -> list[str]:
    """Return a text, texts, lists of tokens or records of them; nothing for anything else."""
    items = value if isinstance(value, list) else [value]
    items = [_caption_in(item) if isinstance(item, dict) else item for item in items]
    texts = [" ".join(item) if _is_texts(item) else item for item in items]
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]


def _caption_in(record: dict[str, Any]) -> Any:
    named = (
        value
        for wanted in (CAPTION_FIELDS, VAGUE_CAPTION_FIELDS)
        for name, value in record.items()
        if plain(str(name)) in wanted
    )
    return next(named, None)


def id_text(value: Any) -> str:
    """Return an id as text, empty where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).strip()


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _spans(record: dict[str, Any], fields: Fields) -> tuple[Any, Any] | list[tuple[Any, Any]]:
    """Return a start and an end, or several of them."""
    if fields.start and fields.end:
        return record.get(fields.start), record.get(fields.end)
    value = record.get(fields.span) if fields.span else None
    if isinstance(value, list):
        if len(value) == 2 and not any(isinstance(item, list) for item in value):
            return value[0], value[1]
        if all(isinstance(item, list) and len(item) == 2 for item in value):
            return [(start, end) for start, end in value]
    return None, None


def _named(names: list[str], wanted: str | None, flag: str) -> str | None:
    """Return the field that the user names."""
    if wanted is None or wanted in names:
        return wanted
    same = [name for name in names if plain(name) == plain(wanted)]
    if len(same) != 1:
        raise BadContent(
            f'{flag} "{short(wanted)}" is none of the fields{did_you_mean(wanted, names)}: '
            f"there are {listed(map(short, names), 12)}"
        )
    return same[0]


def first_field(names: Iterable[str], wanted: Collection[str]) -> str | None:
    return next((name for name in names if plain(name) in wanted), None)


def _id_field(
    sample: list[dict[str, Any]], names: list[str], known: Known, has_names: bool
) -> str | None:
    """Return the field of ids: the one with ids that the experts have, or the one so named."""
    clear = [name for name in names if plain(name) in ID_FIELDS]
    vague = [name for name in names if plain(name) in VAGUE_ID_FIELDS]
    candidates = clear or vague if has_names else names
    if known.ids:
        counts = {name: sum(known.has(r.get(name)) for r in sample) for name in names}
        most = max(counts.values(), default=0)
        # A field of plain numbers may meet ids by chance, so names that say something go first.
        for group in (candidates, names):
            best = [name for name in group if counts[name] == most > 0]
            if len(best) == 1:
                return best[0]
            candidates = best or candidates
    if not has_names:
        single = [name for name in candidates if _words(sample, name) == 1]
        return single[0] if single else None
    if len(candidates) > 1:
        raise BadContent(_ambiguous("ids of the videos", candidates, "--id-column"))
    return candidates[0] if candidates else None


def _caption_field(
    sample: list[dict[str, Any]], names: list[str], has_names: bool, needed: bool
) -> str | None:
    if not has_names:
        longest = max(names, key=lambda name: _words(sample, name), default=None)
        return longest if longest and _words(sample, longest) > 1 else None
    for wanted in (CAPTION_FIELDS, VAGUE_CAPTION_FIELDS):
        found = [name for name in names if plain(name) in wanted]
        held = [name for name in found if any(captions_of(r.get(name)) for r in sample)]
        if len(held) > 1 and needed:
            raise BadContent(_ambiguous("captions", held, "--caption-column"))
        if held:
            return held[0]
        if found or not needed:  # a list's column called "name" is no caption
            return found[0] if found else None
    texts = [name for name in names if _words(sample, name) >= _LIKE_A_SENTENCE]
    if len(texts) > 1 and not {*texts[1:]} <= {*_of_the_same_name(texts[0], texts)}:
        raise BadContent(_ambiguous("captions", texts, "--caption-column"))
    return texts[0] if texts else None


def _of_the_same_name(name: str | None, names: Iterable[str]) -> tuple[str, ...]:
    """Return the other names that differ from one by a number at their end alone."""
    stem = name.rstrip("0123456789") if name else None
    if stem == name:
        return ()
    return tuple(n for n in names if n != name and n.rstrip("0123456789") == stem)


def _words(sample: list[dict[str, Any]], name: str) -> float:
    counts = [len(str(record[name]).split()) for record in sample if record.get(name)]
    return sum(counts) / len(counts) if counts else 0


def _ambiguous(what: str, names: list[str], flag: str) -> str:
    shown = ", ".join(f'"{short(name)}"' for name in names)
    return f'several fields may hold the {what} ({shown}): choose with {flag} "{short(names[0])}"'
