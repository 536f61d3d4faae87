"""What a batch is to make: one line for each run, resolved, and never changed once it is there.

JSON lines of two kinds. `settings` lines hold a whole configuration but for words and seed, and come before the items
that refer to them; item lines hold `id`, the `line` of the list they come from, `prompt`, `negative`, `seed`, what is
`understood` otherwise than typed, and the name of their `settings`. Whoever reads them reads line by line
(`new_manifest` writes them).
"""

import re
from array import array
from dataclasses import replace
from functools import lru_cache
from typing import Any

from dreamfusion import json_text
from dreamfusion.batch.folder import BatchFolder, Item
from dreamfusion.config import Config
from dreamfusion.config.serialise import from_file
from dreamfusion.errors import UserError
from dreamfusion.files import permitted

OWN = ("prompt", "negative", "seed", "understood")
"""What an item has for itself; all other settings it may share"""
_SETTINGS = b'{"settings": '
_ITEM = {"id": "", "line": 0, "prompt": "", "negative": "", "seed": 0, "settings": ""}
_NAME = re.compile("[0-9a-z]+")


class Manifest:
    """The items of a batch by number; in memory is only where in the file each of them lies. A context manager."""

    def __init__(self, folder: BatchFolder) -> None:
        """Raises UserError if there is no manifest that can be read."""
        self._folder, self._path = folder, folder.manifest
        self._items, self._where = array("Q"), dict[str, int]()
        self._settings = lru_cache(maxsize=1024)(self._read_settings)
        if not self._path.is_file():
            raise UserError(f"{folder.path} holds no batch (no {self._path.name}): give a list of prompts and --out")
        with permitted(self._path):
            self._file = self._path.open("rb")

    def __enter__(self) -> "Manifest":
        try:
            self._find()
        except UserError:
            self._file.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _find(self) -> None:
        place = 0
        for line in self._file:
            if line.startswith(_SETTINGS):
                self._where[str(self._parsed(line)["settings"])] = place
            else:
                self._items.append(place)
            place += len(line)
        if not self._items:
            raise self._damaged()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> Item:
        """Raises UserError for a damaged line."""
        values = self.record(number)
        try:
            own = {name: values[name] for name in OWN}
            said = from_file(Config, own, self._path)
            config = replace(self._settings(values["settings"]), **{name: getattr(said, name) for name in OWN})
            return Item(values["id"], config, self._folder.run(values["id"]), values["line"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged() from error

    def record(self, number: int) -> dict[str, Any]:
        """An item's line as it is. Raises UserError if it lacks something."""
        values = self._parsed(self._line(self._items[number]))
        if not all(json_text.alike(values.get(name), usual) for name, usual in _ITEM.items()):
            raise self._damaged()
        if not _NAME.fullmatch(values["id"]):  # names a folder
            raise self._damaged()
        return values

    def _line(self, place: int) -> bytes:
        self._file.seek(place)
        return self._file.readline()

    def _read_settings(self, name: str) -> Config:
        config = self._parsed(self._line(self._where[name]))["config"]
        if not isinstance(config, dict):
            raise self._damaged()
        return from_file(Config, config, self._path)

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            values = json_text.parse(line)
        except ValueError as error:
            raise self._damaged() from error
        if not isinstance(values, dict):
            raise self._damaged()
        return values

    def _damaged(self) -> UserError:
        return UserError(f"{self._path} is damaged: restore it, or begin a new batch with another --out")
