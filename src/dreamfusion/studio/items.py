"""The runs of batches in the index: a row for each, so that pages of them are found without reading a directory."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from dreamfusion.batch.state import State as Standing
from dreamfusion.studio.batches import STATUSES, Change, Item, Summary

TABLES = """
CREATE TABLE items (
    batch TEXT, name TEXT, id TEXT UNIQUE, rank INTEGER, number INTEGER, words TEXT, error TEXT, seconds REAL,
    wanted TEXT, state TEXT, PRIMARY KEY (batch, name)
);
CREATE INDEX items_order ON items (batch, rank, number);
"""
_WANTED = ("name", "number", "line", "prompt", "negative", "seed", "steps")
COVER = 4
"""runs whose pictures stand for their batch"""
_DONE, _RUNNING = STATUSES.index("done"), STATUSES.index("running")
_COLUMNS = "batch, id, rank, wanted, state"


@dataclass(frozen=True)
class Row:
    """An item and the batch that it belongs to, by its folder."""

    batch: str
    id: str
    item: Item


class Items:
    """The rows. What they hold is read from the directories again when a studio starts."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self._base = base
        base.execute("DELETE FROM items")

    def put(self, batch: str, items: Iterable[tuple[str, Item]]) -> None:
        """Insert items with their ids, or replace them, all or none."""
        with self._base:
            self._base.execute("BEGIN")
            rows = [_row(batch, identity, item) for identity, item in items]
            self._base.executemany(f"INSERT OR REPLACE INTO items VALUES ({','.join('?' * 10)})", rows)

    def change(self, batch: str, changes: Iterable[Change]) -> None:
        """Items stand otherwise; those that are not known are left out."""
        rows = [
            (
                STATUSES.index(each.status),
                _lower(each.state.error),
                each.state.seconds,
                _json(each.state),
                batch,
                each.name,
            )
            for each in changes
        ]
        query = "UPDATE items SET rank = ?, error = ?, seconds = ?, state = ? WHERE batch = ? AND name = ?"
        with self._base:
            self._base.execute("BEGIN")
            self._base.executemany(query, rows)

    def drop(self, batch: str) -> None:
        """Forget all items of a batch."""
        self._base.execute("DELETE FROM items WHERE batch = ?", (batch,))

    def running(self, batch: str) -> list[Change]:
        """The items that are being made."""
        query = "SELECT name, state FROM items WHERE batch = ? AND rank = ?"
        rows = self._base.execute(query, (batch, _RUNNING))
        return [Change(name, "running", Standing(**json.loads(state))) for name, state in rows]

    def summary(self, batch: str) -> Summary:
        """How all of them stand."""
        counts = dict(self._base.execute("SELECT rank, count(*) FROM items WHERE batch = ? GROUP BY rank", (batch,)))
        done = "FROM items WHERE batch = ? AND rank = ?"
        (seconds,) = self._base.execute(f"SELECT avg(seconds) {done}", (batch, _DONE)).fetchone()
        cover = self._base.execute(f"SELECT id, name {done} ORDER BY number LIMIT ?", (batch, _DONE, COVER))
        told = {status: counts[rank] for rank, status in enumerate(STATUSES) if rank in counts}
        return Summary(told, seconds or 0.0, tuple(cover))

    def most_failures(self, batch: str) -> int:
        """Failures in a row of the item that has most of them."""
        query = "SELECT max(json_extract(state, '$.failures')) FROM items WHERE batch = ? AND rank = 0"
        return int(self._base.execute(query, (batch,)).fetchone()[0] or 0)

    def get(self, identity: str) -> Row | None:
        """The item with this id."""
        row = self._base.execute(f"SELECT {_COLUMNS} FROM items WHERE id = ?", (identity,)).fetchone()
        return _read(row) if row else None

    def search(self, batch: str, terms: Sequence[str], status: str, first: int, count: int) -> tuple[list[Row], int]:
        """Items that hold every term (for LIKE), all of them or those of one status: a page, and how many.

        They come in the order of STATUSES and of the list.
        """
        where = "batch = ?" + " AND rank = ?" * bool(status) + " AND (words || error) LIKE ? ESCAPE '\\'" * len(terms)
        given = [batch, *([STATUSES.index(status)] if status else []), *terms]
        (total,) = self._base.execute(f"SELECT count(*) FROM items WHERE {where}", given).fetchone()
        query = f"SELECT {_COLUMNS} FROM items WHERE {where} ORDER BY rank, number LIMIT ? OFFSET ?"
        return [_read(row) for row in self._base.execute(query, [*given, count, first])], total


def _row(batch: str, identity: str, item: Item) -> tuple[object, ...]:
    words = f" {item.prompt} seed:{item.seed} line:{item.line} ".lower()
    wanted = json.dumps({name: getattr(item, name) for name in _WANTED})
    error, seconds = _lower(item.state.error), item.state.seconds
    rank = STATUSES.index(item.status)
    return batch, item.name, identity, rank, item.number, words, error, seconds, wanted, _json(item.state)


def _read(row: tuple[str, str, int, str, str]) -> Row:
    batch, identity, rank, wanted, state = row
    item = Item(**json.loads(wanted), status=STATUSES[rank], state=Standing(**json.loads(state)))
    return Row(batch, identity, item)


def _json(state: Standing) -> str:
    return json.dumps(asdict(state))


def _lower(error: str) -> str:
    return f"{error.lower()} "
