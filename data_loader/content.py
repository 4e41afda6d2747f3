"""What the readers of untrusted files raise: they know what is wrong, not which file it was."""


class BadContent(ValueError):
    """The content of a file cannot be accepted; `formats` adds the file's name for the user."""


class Truncated(BadContent):
    """The file ends before what its own text announces."""


def short(value: object, limit: int = 60) -> str:
    """Return a name found in a file, cut to a length that fits in one sentence."""
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
