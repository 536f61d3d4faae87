"""Files: read and written whole or not at all; what the system has against it is said in words."""

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal

from dreamfusion import json_text
from dreamfusion.errors import DiskFull, UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""what the system calls it"""


def numbered(path: Path) -> Iterator[Path]:
    """`path`, then with `-1`, `-2`, ... before its suffix: names to try in turn."""
    yield path
    for copy in count(1):
        yield path.with_name(f"{path.stem}-{copy}{path.suffix}")


def require_new_file(path: Path, suffixes: Collection[str], option: str = "--out", or_next: bool = False) -> None:
    """Raise UserError unless a file can be made at `path` that replaces none and whose suffix is one of these.

    With `or_next` the name may be taken.
    """
    if path.suffix.lower() not in suffixes:
        raise UserError(f"cannot write {path}: use one of the suffixes {', '.join(suffixes)}")
    if path.exists() and not or_next:
        raise UserError(f"{path} exists: choose another {option}, or move it away")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}: make it, or choose another {option}")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write to {path.parent}: choose another {option}")


@contextmanager
def explain_unwritable(path: Path) -> Iterator[None]:
    """Turn what the system has against writing `path` into a UserError; every other error passes unchanged."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise  # a library's own complaint, not the system's
        if isinstance(error, PermissionError):
            raise UserError(denial(path)) from error
        full = error.errno in DISK_FULL
        reason = "the disk is full" if full else error.strerror
        advice = "free some space" if full else "check the folder and its permissions"
        kind = DiskFull if full else UserError
        raise kind(f"{reason}, {path} was not written: {advice}; what was saved before is intact") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, of the same suffix; when the block ends well, that file becomes `path`.

    A kill or an error at any moment leaves the old file as it was. A place where nothing can be written raises
    UserError.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    with explain_unwritable(path):
        try:
            yield part
            with part.open("r+b") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, or nothing."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 file, or nothing; line ends stay as they are."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a whole JSON file, indented, keys in their order; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(dict(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def rounded(value: Any) -> Any:
    """The same content for a file, its numbers with the four digits that mean something."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def remove_parts(folder: Path) -> None:
    """Delete what killed writers left half-written in a folder (`replacing`, checkpoints). Call as its owner."""
    for path in folder.rglob(".*"):
        if ".part" in path.name and path.is_file():
            path.unlink(missing_ok=True)


def listed(files: Sequence[Path]) -> str:
    """Paths and sizes for people, one file a line."""
    return "\n".join(f"{path}  ({_size_text(path.stat().st_size)})" for path in files)


def _size_text(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def read_json(path: Path, advice: str = "restore the file") -> Any:
    """The content of a JSON file (`json_text.read`).

    Raises UserError, which ends in `advice`, if it cannot be read or is no JSON.
    """
    return _read(path, json_text.read, "JSON", advice)


def read_lines(path: Path, advice: str) -> list[str]:
    """The lines of a text file in UTF-8, with or without a byte order mark. Raises UserError as `read_json` does."""
    return _read(path, lambda file: file.read_text(encoding="utf-8-sig").splitlines(), "text", advice)


def _read(path: Path, read: Callable[[Path], Any], kind: str, advice: str) -> Any:
    with permitted(path):
        try:
            return read(path)
        except PermissionError:
            raise
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as {kind} ({_reason(error)}): {advice}") from error


def expanded(name: str) -> Path:
    """The path that a user gave, `~` expanded where there is such a home."""
    return Path(os.path.expanduser(name))


def kind_of_place(path: Path) -> Literal["folder", "file", "nothing"]:
    """What is there; nothing also where no file could have that name. Raises PermissionError."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        raise
    except (OSError, ValueError):
        return "nothing"
    return "folder" if stat.S_ISDIR(mode) else "file"


def visible(folder: Path) -> list[Path]:
    """What is in a folder, in the order of names, without the dot files that systems leave behind (`._x`, .DS_Store).

    Raises OSError as `Path.iterdir` does.
    """
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _reason(error: Exception) -> str:
    """Without the name of the file, which the system's errors repeat."""
    return (isinstance(error, OSError) and error.strerror) or re.sub(r"\s+", " ", str(error))


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
