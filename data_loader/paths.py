"""Looking for files whose names come from users and from descriptions."""

from pathlib import Path

from data_loader.errors import UserError
from data_loader.files import reason


def exists(path: Path) -> bool:
    """Tell whether there is a file or folder, for any path that somebody may name.

    Raises:
        UserError: the system does not tell: a name is too long, a folder may not be entered.
    """
    try:
        return path.exists()
    except OSError as error:
        raise UserError(f"Cannot look for {path}: {reason(error)}.") from error
