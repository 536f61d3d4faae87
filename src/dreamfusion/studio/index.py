"""The index: a SQLite file with a row for each task and each event. It can be deleted; the folders rebuild it.

What is searched lies apart from the rest of a task: it must be read whole for every query. One process owns it
(`claims.owned` of its folder), in one thread.
"""

import json
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dreamfusion.errors import UserError
from dreamfusion.files import explain_unwritable
from dreamfusion.studio import items
from dreamfusion.studio.task import State, Task, task_from

LAYOUT = 2
"""of the tables; a file with another one is made again"""
KEPT_EVENTS = 5_000
SORTS = {
    "newest": "created DESC",
    "oldest": "created",
    "prompt": "prompt COLLATE NOCASE, seed",
    "seed": "seed, created DESC",
    "steps": "steps DESC, created DESC",
}
_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""what SQLite raises for it; the second while it says what is damaged, if that is no text"""
_TABLES = """
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, folder TEXT UNIQUE, state TEXT, created REAL, prompt TEXT, seed INTEGER, steps INTEGER,
    owner TEXT, started REAL, stamp INTEGER, words TEXT
);
CREATE TABLE bodies (folder TEXT PRIMARY KEY, body TEXT);
CREATE INDEX tasks_created ON tasks (created);
CREATE INDEX tasks_state ON tasks (state);
CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, body TEXT);
"""


@dataclass(frozen=True)
class Page:
    """Some of the tasks that were asked for."""

    tasks: list[Task]
    total: int


@dataclass(frozen=True)
class Event:
    """Something that happened: to a task ("task", "removed") or to the order of those that wait ("queue")."""

    id: int
    kind: str
    body: str
    """JSON"""


class Index:
    """The tables, opened or made anew; `items` are the runs of batches."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where none can be made."""
        self._path = path
        try:
            self._base = self._opened()
        except _DAMAGE:  # damaged, of another version, or no database at all
            for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
                with explain_unwritable(file):
                    file.unlink(missing_ok=True)
            try:
                self._base = self._opened()
            except sqlite3.Error as error:
                raise UserError(
                    f"{path} cannot be made ({error}): check the folder, its permissions and space"
                ) from error
        self.items = items.Items(self._base)

    def _opened(self) -> sqlite3.Connection:
        base = sqlite3.connect(self._path, isolation_level=None)
        try:
            base.execute("PRAGMA locking_mode = EXCLUSIVE")  # no shared memory: write-ahead logs work on any disk then
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = NORMAL")
            layout = base.execute("PRAGMA user_version").fetchone()[0]
            if layout == 0:
                base.executescript(f"BEGIN; {_TABLES} {items.TABLES} PRAGMA user_version = {LAYOUT}; COMMIT;")
            elif layout != LAYOUT:
                raise sqlite3.DatabaseError("another layout")
            _require_whole(base)
        except _DAMAGE:
            base.close()
            raise
        return base

    def close(self) -> None:
        """Give the file back."""
        self._base.close()

    def get(self, identity: str) -> Task | None:
        """The task with this id."""
        row = self._base.execute(
            "SELECT body FROM tasks JOIN bodies USING (folder) WHERE id = ?", (identity,)
        ).fetchone()
        return task_from(json.loads(row[0])) if row else None

    def put(self, tasks: Iterable[Task]) -> None:
        """Insert or replace, all or none. A folder has one task: the one before goes."""
        known = list(tasks)
        bodies = [(task.folder, json.dumps(task.record())) for task in known]
        with self._base:
            self._base.execute("BEGIN")
            self._base.executemany(f"INSERT OR REPLACE INTO tasks VALUES ({','.join('?' * 11)})", map(_row, known))
            self._base.executemany("INSERT OR REPLACE INTO bodies VALUES (?, ?)", bodies)

    def drop(self, identity: str) -> None:
        """Forget a task."""
        with self._base:
            self._base.execute("BEGIN")
            folder = "SELECT folder FROM tasks WHERE id = ?"
            self._base.execute(f"DELETE FROM bodies WHERE folder = ({folder})", (identity,))
            self._base.execute("DELETE FROM tasks WHERE id = ?", (identity,))

    def known(self) -> dict[str, tuple[str, int, State]]:
        """Of every folder: id, stamp and state."""
        rows = self._base.execute("SELECT folder, id, stamp, state FROM tasks")
        return {folder: (identity, stamp, State(state)) for folder, identity, stamp, state in rows}

    def of_states(self, *states: State) -> list[Task]:
        """All tasks in one of these states."""
        marks = ",".join("?" * len(states))
        query = f"SELECT body FROM tasks JOIN bodies USING (folder) WHERE state IN ({marks})"
        rows = self._base.execute(query, [state.value for state in states])
        return [task_from(json.loads(body)) for (body,) in rows]

    def search(self, words: str, states: Iterable[State], sort: str, first: int, count: int) -> Page:
        """Tasks that hold every word of a query, `count` of them from the `first` one on, and batches of such runs.

        A word with a colon (`seed:3`, `preset:fast`, `state:failed`) must be there as it is, others as a part.
        """
        terms, wanted = terms_of(words), [state.value for state in states]
        where = f"state IN ({','.join('?' * len(wanted))})"
        if terms:
            alike = " AND ".join(["words LIKE ? ESCAPE '\\'"] * len(terms))
            where += f" AND ({alike} OR folder IN (SELECT batch FROM items WHERE {alike}))"
        given = [*wanted, *terms, *terms]
        (total,) = self._base.execute(f"SELECT count(*) FROM tasks WHERE {where}", given).fetchone()
        query = f"SELECT id FROM tasks WHERE {where} ORDER BY {SORTS[sort]}, id LIMIT ? OFFSET ?"
        ids = self._base.execute(query, [*given, count, first]).fetchall()
        return Page([task for (identity,) in ids if (task := self.get(identity))], total)

    def served(self) -> dict[str, float]:
        """When a task of each owner was last started."""
        return dict(self._base.execute("SELECT owner, max(started) FROM tasks GROUP BY owner"))

    def tell(self, kind: str, body: str) -> Event:
        """Write an event down; those of long ago are forgotten."""
        number = self._base.execute("INSERT INTO events (kind, body) VALUES (?, ?)", (kind, body)).lastrowid
        assert number is not None  # it was an INSERT
        if number % 500 == 0:
            self._base.execute("DELETE FROM events WHERE id <= ?", (number - KEPT_EVENTS,))
        return Event(number, kind, body)

    def last_events(self, count: int) -> list[Event]:
        """The newest ones, in their order."""
        rows = self._base.execute("SELECT id, kind, body FROM events ORDER BY id DESC LIMIT ?", (count,))
        return [Event(*row) for row in rows][::-1]


def _require_whole(base: sqlite3.Connection) -> None:
    """Raise DatabaseError for damaged pages, and for rows that hold no task or no text."""
    if base.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("damaged pages")
    same = " AND ".join(f"json_extract(body, '$.{name}') IS {name}" for name in ("id", "folder", "state"))
    lists = " AND ".join(f"json_type(body, '$.{name}') = 'array'" for name in ("files", "cover"))
    rows = base.execute(f"SELECT {same} AND {lists}, body, owner FROM tasks LEFT JOIN bodies USING (folder)")
    if not all(whole for whole, *_ in rows):
        raise sqlite3.DatabaseError("damaged rows")
    base.execute("SELECT kind, body FROM events").fetchall()


def _row(task: Task) -> tuple[object, ...]:
    day = time.strftime("%Y-%m-%d", time.localtime(task.created))
    text = f"{task.prompt} {task.folder} seed:{task.seed} preset:{task.preset} state:{task.state.value} {day}".lower()
    head = (task.id, task.folder, task.state.value, task.created, task.prompt, task.seed, task.steps, task.owner)
    return (*head, task.started, task.stamp, f" {text} ")


def terms_of(words: str) -> list[str]:
    """What LIKE has to find of a query, word by word."""
    return [f"% {word} %" if ":" in word else f"%{word}%" for word in map(_escaped, words.lower().split())]


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
