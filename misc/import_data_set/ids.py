"""Ids of videos as captions, lists and experts write them, brought to one form.

Folders and the endings of files are taken off and the Unicode form is made the same (NFC), unless
that makes two ids of one source the same: then the form that takes off less is used for all.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping

from utils.errors import UserError

_ENDING = re.compile(
    r"(?<=[^/\\.])\.(mp4|avi|mkv|webm|mov|flv|m4v|mpe?g|wmv|3gp|ogv|gif|wav|mp3|flac|m4a|ogg|jpe?g"
    r"|png|npy|npz|pth?|pkl|pickle|h5|hdf5|safetensors|txt)$",
    re.IGNORECASE,
)
_FOLDERS = re.compile(r"^.*[/\\](?=.)", re.DOTALL)
_FIELD = re.compile(r"\{(\w+)\}")
# `<video>_<start>_<end>`, as the clips of MSVD are called.
_START_AND_END = re.compile(r"(.+)[_-]\d+(?:\.\d+)?[_-]\d+(?:\.\d+)?", re.DOTALL)

SEGMENT_FIELDS = ("video", "number", "count", "start", "end")
# Under which names features keep the segments of a video, the likeliest first.
SEGMENT_TEMPLATES = (
    *("{video}_{number}", "{video}_{count}", "{video}_{start}_{end}"),
    *("{video}-{number}", "{video}-{count}", "{video}-{start}-{end}"),
)


def _no_spaces(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip().removeprefix("\ufeff")) or name


def _without(*patterns: re.Pattern[str]) -> Callable[[str], str]:
    """Return what takes these off for as long as there are any."""

    def form(name: str) -> str:
        shorter = _no_spaces(name)
        for pattern in patterns:
            shorter = pattern.sub("", shorter)
        return name if shorter == name else form(shorter)

    return form


# What is taken off -> how; the first is used unless it makes two ids the same.
FORMS: dict[str, Callable[[str], str]] = {
    "folders and endings": _without(_FOLDERS, _ENDING),
    "endings": _without(_ENDING),
    "folders": _without(_FOLDERS),
    "spaces": _without(),
    "nothing": lambda name: name,
}


def common_form(sources: Iterable[Collection[str]]) -> str:
    """Return the name of the first form in which the ids of each source stay different."""
    sources = [set(source) for source in sources]
    for name, form in FORMS.items():
        if all(len(set(map(form, ids))) == len(ids) for ids in sources):
            return name
    raise AssertionError("ids that differ stay different where nothing is taken off")


def segment_id(template: str, values: Mapping[str, object]) -> str:
    """Return the id of a segment: `{video}_{number}` with the values put in."""
    texts = {name: _written(value) for name, value in values.items() if name != "video"}
    return _FIELD.sub(lambda match: texts.get(match[1], str(values["video"])), template)


def check_template(template: str) -> None:
    """Insist that a template names known parts, the video among them.

    Raises:
        UserError: it does not.
    """
    fields = set(_FIELD.findall(template))
    if "video" not in fields or fields == {"video"} or not fields <= {*SEGMENT_FIELDS}:
        raise UserError(
            f'--segment-ids "{template}" must name {{video}} and at least one more of '
            f"{', '.join(f'{{{name}}}' for name in SEGMENT_FIELDS[1:])}, as in "
            '"{video}_{number}" (number counts from 0, count from 1).'
        )


def source_of(video: str, template: str | None) -> str:
    """Return the video that a segment was cut from; a video that is no segment is its own.

    Args:
        video: the id.
        template: of ids of segments; without one, ids that end in a start and an end are known.
    """
    pattern = _START_AND_END if template is None else _pattern(template)
    match = pattern.fullmatch(video)
    return match[1] if match else video


def _pattern(template: str) -> re.Pattern[str]:
    """Return what recognises the ids that a template makes; its first group is the video."""
    parts = _FIELD.split(template)
    seen = False
    made = []
    for place, part in enumerate(parts):
        if place % 2 == 0:
            made.append(re.escape(part))
        elif part == "video":
            made.append("(?:.+)" if seen else "(.+)")
            seen = True
        else:
            made.append(r"[\d.:]+")
    return re.compile("".join(made), re.DOTALL)


def _written(value: object) -> str:
    """Write a time as names of files have it: without a fraction of zero."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
