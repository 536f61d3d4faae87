"""Files that the system does not let this process reach: what to say of them."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamfusion.errors import UserError


@contextmanager
def permitted(path: Path = Path()) -> Iterator[None]:
    """Turn "permission denied" into a UserError that names the file, or `path` if the system names none.

    Also a decorator of functions that read files.
    """
    try:
        yield
    except PermissionError as error:
        raise UserError(denial(Path(os.fsdecode(error.filename)) if error.filename else path)) from error


def require_reachable(path: Path) -> None:
    """Raise UserError if the system does not even tell whether there is something at `path`."""
    with permitted(path):
        try:
            path.stat()
        except PermissionError:
            raise
        except OSError:
            return  # it tells: there is nothing, or nothing whole


def denial(path: Path) -> str:
    """What to say of a file whose use is not permitted, with the folder or file that stands in the way."""
    barrier = _barrier(path.absolute())
    try:
        found = barrier.stat()
        how = f"{barrier} is {stat.filemode(found.st_mode)} of user {_user(found.st_uid)}"
    except OSError:
        how = f"{barrier} is closed"
    return f"permission denied for {path} ({how}): ask its owner for access, or choose another place"


def _barrier(path: Path) -> Path:
    """The first folder on the way that cannot be entered, or the file, or else its folder."""
    closed = (folder for folder in reversed(path.parents) if not _may(folder, os.X_OK))
    own = path if os.path.lexists(path) and not _may(path, os.R_OK | os.W_OK) else path.parent
    return next(closed, own)


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _user(number: int) -> str:
    """The name of a user, or the number of one without."""
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):  # no such list on Windows; containers know few names
        return str(number)
