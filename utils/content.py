"""What the readers of untrusted files raise and insist on, whatever the format.

They know what is wrong, not which file it was; `formats` adds that.
"""


class BadContent(ValueError):
    """The content of a file cannot be accepted; `formats` adds the file's name for the user."""


class Truncated(BadContent):
    """The file ends before what its own text announces."""


def short(value: object, limit: int = 60) -> str:
    """Return a name found in a file, cut to a length that fits in one sentence.

    What would move the cursor, or cannot be written at all, stands there as an escape.
    """
    text = str(value)
    text = text if len(text) <= limit else f"{text[:limit]}..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
