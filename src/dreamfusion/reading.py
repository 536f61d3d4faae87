"""Reading files that people and other programs wrote: what is wrong with one is said in a line that names it."""

import os
import re
import stat
from pathlib import Path
from typing import Any, Literal

from dreamfusion import json_text
from dreamfusion.errors import UserError
from dreamfusion.permissions import permitted


def read_json(path: Path, advice: str = "restore the file") -> Any:
    """The content of a JSON file (`json_text.read`).

    Raises UserError, which ends in `advice`, if it cannot be read or is no JSON.
    """
    with permitted(path):
        try:
            return json_text.read(path)
        except PermissionError:
            raise
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as JSON ({_reason(error)}): {advice}") from error


def read_lines(path: Path, advice: str) -> list[str]:
    """The lines of a text file in UTF-8, with or without a byte order mark. Raises UserError as `read_json` does."""
    with permitted(path):
        try:
            return path.read_text(encoding="utf-8-sig").splitlines()
        except PermissionError:
            raise
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as text ({_reason(error)}): {advice}") from error


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
