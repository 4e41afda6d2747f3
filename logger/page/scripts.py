"""Data for the page's scripts: each file is one assignment of JSON.

Pages opened from the file system may read no other file than a script.
"""

import json
import math
import re
from typing import Any

# Neither HTML nor UTF-8 can carry these; a caption read from JSON may hold them all the same.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def as_text(text: str) -> str:
    """Replace what is no text by U+FFFD."""
    return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


def as_json(value: Any) -> str:
    """Plain numbers (finite ones), texts, lists and dicts as JSON in ASCII.

    In a script it means the same, whatever it holds.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def number(value: float, digits: int = 4) -> float | int | None:
    """A number as short as JSON can spell it; None (null) for what it cannot."""
    if not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else round(value, digits)
