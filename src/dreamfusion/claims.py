"""Names and folders that belong to one process at a time.

A name is claimed by making the folder (`mkdir`) or the file (`O_EXCL`): of two processes that want it, the system lets
one have it. A folder in which a process writes is locked by a file in it, `.lock`:

- The lock is the operating system's (`flock`, on Windows `msvcrt.locking`) and ends with the process, however it ends;
  the file holds JSON with `pid`, `host` and `since`, for words alone, and goes when the owner leaves. One that a killed
  process left behind says nothing, as nobody holds it.
- On NFS Linux turns `flock` into a lock of the server's, which other machines see, and which the server drops when it
  loses the client; SMB does alike. On disks that know no locks (some FUSE and cluster file systems) the words count:
  whoever they name is the owner, unless it is a process of this machine that is no more. There the file of another
  machine's dead process must be deleted by hand, and two processes that start in one instant may both succeed.
- Readers ask for no lock: files are replaced as a whole.
"""

import errno
import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from dreamfusion import json_text
from dreamfusion.errors import UserError
from dreamfusion.files import explain_unwritable, numbered
from dreamfusion.runs import LOCK, refuse_occupied

_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class InUse(UserError):
    """A folder in which another process writes."""


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        """Take the lock or raise OSError. It is on a byte beyond the words, as nobody else could read a locked one."""
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _lives(pid: int) -> bool:
        return True  # not asked: every disk there knows locks
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        """Take the lock or raise OSError."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _lives(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Be the only process that writes into a folder, which is made if it is missing and removed if it is left empty.

    Raises UserError if another process, or this one elsewhere, is at it, or if it cannot be written.
    """
    with explain_unwritable(folder):
        made = _made(folder)
    try:
        with _locked(folder / LOCK):
            yield
    finally:
        _remove_empty(made)


def in_use(folder: Path) -> bool:
    """Whether another process writes into a folder now.

    The words say so, and the lock where they could be those of a process that was killed: it is asked for a moment only
    if the named process may be alive, so that a new owner is not turned away by the question.
    """
    path = folder / LOCK
    if not _names_an_owner(path):
        return False
    try:
        with path.open("r+b") as file:
            _lock(file)
    except OSError as error:
        return error.errno in _HELD or path.exists()
    return False


@contextmanager
def new_folder(path: Path, or_next: bool = False) -> Iterator[Path]:
    """Claim and own a folder for new files: `path`, which may be there if it is empty, or `path-1`, `path-2`, ...

    It is removed if it is left empty. Raises UserError for a place that is taken, or cannot be written.
    """
    made = list[Path]()
    try:
        place = _place(path, or_next, made)
        with _locked(place / LOCK):
            refuse_occupied(place)  # nobody was at it before the lock
            yield place
    finally:
        _remove_empty(made)


@contextmanager
def new_files(paths: Sequence[Path], or_next: bool = False) -> Iterator[list[Path]]:
    """Claim the names of new files, or the next free ones; those that are still empty at the end are removed.

    Raises UserError for a name that is taken, or a place that cannot be written.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(_new_file(path, or_next)) for path in paths]


@contextmanager
def _new_file(path: Path, or_next: bool) -> Iterator[Path]:
    place = next((free for free in (numbered(path) if or_next else (path,)) if _is_new(free)), None)
    if place is None:
        raise UserError(f"{path} exists: choose another name, or move it away")
    try:
        yield place
    finally:
        if place.exists() and not place.stat().st_size:
            place.unlink()


def _is_new(file: Path) -> bool:
    """Whether this process made the file."""
    with explain_unwritable(file):
        try:
            file.open("xb").close()
        except FileExistsError:
            return False
    return True


def _place(path: Path, or_next: bool, made: list[Path]) -> Path:
    """The folder that is claimed; `made` gets it if it was missing, and its parents that were."""
    try:
        made += _made(path.parent)
        if or_next:
            return next(free for free in numbered(path) if _is_made(free, made))
        if not _is_made(path, made):
            refuse_occupied(path)
    except OSError as error:
        raise UserError(f"cannot write to {path} ({error.strerror}): choose another --out") from error
    return path


def _is_made(folder: Path, made: list[Path]) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    made.append(folder)
    return True


def _made(folder: Path) -> list[Path]:
    """Make a folder with its parents; returns those that were missing, outermost first. Raises OSError."""
    missing = [path for path in (*reversed(folder.parents), folder) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in reversed(folders):
        try:
            folder.rmdir()
        except OSError:
            return  # there is something in it


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = _acquired(path)
    try:
        yield
    finally:
        ours = _is_at(file, path)
        if sys.platform == "win32":
            file.close()  # an open file cannot be removed there, and one that somebody else has opened stays
        if ours:
            with suppress(OSError):
                path.unlink()
        file.close()


def _acquired(path: Path) -> BinaryIO:
    """The lock file, locked, with the words about this process in it."""
    while True:
        with explain_unwritable(path):
            file = path.open("a+b")
        if not _is_free(file, path):
            file.close()
            raise _in_use(path)
        if _is_at(file, path):
            with explain_unwritable(path):
                file.truncate(0)
                file.write(json.dumps(_own_words()).encode())
                file.flush()
            return file
        file.close()  # the owner before removed it between our opening and locking it: again


def _is_free(file: BinaryIO, path: Path) -> bool:
    """Take the lock, if nobody has it; on disks that know no locks the words say."""
    try:
        _lock(file)
    except OSError as error:
        return error.errno not in _HELD and not _names_an_owner(path)
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False


def _names_an_owner(path: Path) -> bool:
    """Whether the words name a process that may be alive: one of another machine, or of this one that is."""
    there = _words(path)
    return bool(there) and (there["host"] != platform.node() or _lives(int(there["pid"])))


def _own_words() -> dict[str, str]:
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    return {"pid": str(os.getpid()), "host": platform.node(), "since": now}


def _words(path: Path) -> dict[str, str]:
    """What the owner wrote; nothing while it is writing."""
    try:
        words = json_text.read(path)
    except (OSError, ValueError):
        return {}
    if not isinstance(words, dict) or words.keys() != {"pid", "host", "since"}:
        return {}
    told = {name: str(value) for name, value in words.items()}
    return told if re.fullmatch("[0-9]{1,9}", told["pid"]) else {}


def _in_use(path: Path) -> InUse:
    words = _words(path)
    owner = f"process {words['pid']} on {words['host']} since {words['since']}" if words else "another process"
    return InUse(f"{path.parent} is in use by {owner}: wait for it or stop it, or use another folder")
