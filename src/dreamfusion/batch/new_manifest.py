"""From the rows of a list to the manifest of a batch (`manifest`), which is written once or found to be the same."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dreamfusion.batch.folder import BatchFolder
from dreamfusion.batch.manifest import OWN, Manifest
from dreamfusion.batch.resolve import Resolver, name_of
from dreamfusion.batch.rows import Row
from dreamfusion.config.serialise import to_json
from dreamfusion.errors import UserError
from dreamfusion.files import explain_unwritable


@dataclass
class Count:
    """What a list came to."""

    items: int = 0
    repeated: int = 0
    """asked for before, and made once"""
    bad: int = 0


def write_manifest(lines: Iterator[dict[str, Any]], folder: BatchFolder, part: Path) -> None:
    """Write a new manifest, by way of the file `part`, or compare it with the one that is there.

    Raises UserError if that one holds other items, and for a disk that is full.
    """
    if folder.manifest.exists():
        _require_equal(lines, folder)
        return
    with explain_unwritable(folder.manifest):
        try:
            with part.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(values, ensure_ascii=False) + "\n" for values in lines)
            part.replace(folder.manifest)
        finally:
            part.unlink(missing_ok=True)


def _require_equal(lines: Iterator[dict[str, Any]], folder: BatchFolder) -> None:
    with Manifest(folder) as there:
        wanted = (values for values in lines if "id" in values)
        for new, number in zip_longest(wanted, range(len(there))):
            if new is None or number is None or new["id"] != there.record(number)["id"]:
                row = f"line {new['line']} of the list" if new else "the end of the list"
                raise UserError(
                    f"{folder.path} holds another batch ({row} differs): choose another --out, or go on with that one,"
                    f" as it is, with `dreamfusion batch {folder.path}`"
                )


def manifest_lines(
    rows: Iterator[Row], resolver: Resolver, count: Count, bad: Callable[[int, str], None]
) -> Iterator[dict[str, Any]]:
    """The lines of the manifest of such rows; `bad` is told of each row that cannot be made, with its line.

    `count` holds the sums when all lines were taken.
    """
    seen, told = set[int](), set[str]()
    for row in rows:
        try:
            if row.wrong:
                raise UserError(row.wrong)
            wishes = list(resolver(row.values))
        except UserError as error:
            count.bad += 1
            bad(row.line, str(error))
            continue
        for wish, settings in wishes:
            name = name_of(wish.prompt, wish.negative, wish.seed, settings.digest)
            if int(name, 16) in seen:
                count.repeated += 1
                continue
            seen.add(int(name, 16))
            if settings.digest not in told:
                told.add(settings.digest)
                yield {"settings": settings.digest, "config": to_json(settings.config)}
            count.items += 1
            yield {"id": name, "line": row.line, **_own(wish), "settings": settings.digest}


def _own(wish: Any) -> Mapping[str, Any]:
    return {name: getattr(wish, name) for name in OWN}
