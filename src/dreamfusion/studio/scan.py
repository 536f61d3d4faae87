"""What the run folders under a root say: each as a `Task`, whoever made it. No torch, and no file is changed.

A folder with `config.json` is a run, one with `scene.glb` a scene (`dreamfusion compose`), and one with
`manifest.jsonl` and `drivers/` a batch (`dreamfusion batch`), whose runs are no tasks of their own. `.task.json` is the
studio's own note in the folders that it made, or goes on with: who asked, when, how it went, and of a run that waits,
its configuration.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dreamfusion import json_text
from dreamfusion.claims import in_use
from dreamfusion.files import write_json
from dreamfusion.health import found_in, in_words
from dreamfusion.runs import LOCK, RunFolder
from dreamfusion.studio.batches import Item, Summary, run_place
from dreamfusion.studio.task import State, Task

NOTE = ".task.json"
DEPTH = 3
"""folders below the root in which runs are looked for"""
_TAIL = 4096  # bytes from the end of metrics.jsonl that hold its last whole line
_TIMES = ("made", "created", "queued", "started", "finished")
_NOTED = ("owner", *_TIMES, "error", "attempts", "refining", "told", "retries")

MEDIA = ("preview.png", "turntable.mp4", "turntable.webp", "sheet.png")
FILES = {
    **{name: name for name in ("config.json", "metrics.jsonl", "index.html", "scene.glb", "scene.json", "summary.csv")},
    **{f"mesh.{suffix}": f"mesh.{suffix}" for suffix in ("glb", "json", "obj", "mtl", "png", "ply", "stl", "usdz")},
    **{name: f"media/{name}" for name in MEDIA},
}
"""Names of files that can be asked for, and where they lie in the folder; nothing else is ever served"""


BATCH = {"manifest.jsonl", "drivers"}
"""Names in the folder of a batch"""


def folders(root: Path) -> Iterator[tuple[str, bool]]:
    """All folders of runs, scenes and batches under a root, as seen from there; True for batches. No link is followed.

    Names that are no UTF-8 are passed over: no page could ask for them. A root that is a batch itself is ".".
    """
    pending = [("", 0)]
    while pending:
        place, depth = pending.pop()
        try:
            with os.scandir(root / place) as entries:
                inside = [
                    (entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if _is_text(entry.name)
                ]
        except OSError:
            continue
        names = {name for name, _ in inside}
        if names >= BATCH:
            yield place or ".", True
        elif place and names & {"config.json", "scene.glb", NOTE}:
            yield place, False
        elif depth < DEPTH:
            below = (name for name, is_folder in inside if is_folder and not name.startswith("."))
            pending += [(f"{place}/{name}".lstrip("/"), depth + 1) for name in below]


def _is_text(name: str) -> bool:
    """Whether a name has no halves of characters, which stand for bytes that are no UTF-8."""
    return name == name.encode(errors="ignore").decode()


def stamp_of(folder: Path) -> int:
    """A number that changes when files of the folder do: they are replaced, which changes the time of the folder."""
    names = ("", "/media", f"/{NOTE}", *(["/metrics.jsonl"] if os.path.exists(folder / LOCK) else []))
    return max(_changed(f"{folder}{name}") for name in names) // 1000  # microseconds, which JSON holds exactly


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def read(root: Path, place: str) -> Task | None:
    """The folder as a task; None if it is gone, or is none after all."""
    path = root / place
    try:
        note = _object(path / NOTE)
        task = Task(
            identity(place, note.get("made", 0.0)),
            place,
            created=_created(path),
            files=present(path),
            stamp=stamp_of(path),
        )
        values = _told(note, task)
        config = wanted(path)
        if not config or "sentence" in config:
            return _scene(path, task, values, config, note.get("state"))
        return _run(path, task, values, config, note.get("state"))
    except OSError:
        return None


def _told(note: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """What a note says of a task, as far as it is of the right type."""
    return {name: note[name] for name in _NOTED if json_text.alike(note.get(name), getattr(task, name))}


def identity(place: str, made: object) -> str:
    """The id of a task. A folder that the studio makes again under the same name has another one."""
    return hashlib.sha256(f"{place}\0{made}".encode()).hexdigest()[:16]


def note(root: Path, task: Task, config: Mapping[str, Any] | None = None) -> None:
    """Write the studio's note into the folder, with the `config` of a new run, which stays until the run begins."""
    path = root / task.folder
    values = {name: getattr(task, name) for name in _NOTED}
    waiting = None if (path / "config.json").exists() else config or wanted(path)
    write_json(path / NOTE, {"state": task.state.value, **values, **({"config": waiting} if waiting else {})})


def noted(folder: Path) -> State | None:
    """The state that the studio wrote down last; None in a folder that is not its own."""
    state = _object(folder / NOTE).get("state")
    return State(state) if isinstance(state, str) and state in State.__members__ else None


def wanted(folder: Path) -> dict[str, Any]:
    """The configuration of the folder's run, begun or not; empty if there is none."""
    found = _object(folder / "config.json") or _object(folder / NOTE).get("config")
    return found if isinstance(found, dict) else {}


def present(folder: Path) -> tuple[str, ...]:
    """Which of `FILES` are there, as files and not as links to some."""
    return tuple(name for name in FILES if has(folder, name))


def has(folder: Path, name: str) -> bool:
    """Whether this one of `FILES` is."""
    return _is_file(folder / FILES[name])


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def read_batch(root: Path, place: str, summary: Summary, at_work: bool) -> Task:
    """The folder of a batch as a task; `at_work` says whether somebody hands out its work."""
    path, counts = root / place, dict(summary.counts)
    note = _object(path / NOTE)
    steps, done, running = sum(counts.values()), counts.get("done", 0), counts.get("running", 0)
    task = Task(identity(place, 0.0), place, kind="batch", prompt=path.name, steps=steps, step=done, counts=counts)
    rate = running / summary.seconds if summary.seconds else 0.0
    state = _batch_state(counts, at_work or running > 0, note.get("state"))
    shown = tuple(each for each, name in summary.cover if has(root / run_place(place, name), "preview.png"))
    told = {**_told(note, task), "created": _changed(f"{path}/manifest.jsonl") / 1e9}
    if state is not State.FAILED:
        told["error"] = ""  # of an earlier attempt
    task = replace(task, **told, state=state, rate=rate, cover=shown)
    return replace(task, files=present(path), stamp=stamp_of(path))


def _batch_state(counts: Mapping[str, int], at_work: bool, noted: object) -> State:
    """Of one that no worker of this studio is at: what was begun when the studio ended waits to go on."""
    if noted in (State.PENDING.value, State.IN_PROGRESS.value):
        return State.PENDING
    if at_work:
        return State.IN_PROGRESS
    if not counts.keys() - {"done"}:
        return State.SUCCEEDED
    return State.CANCELED if counts.keys() & {"waiting", "stopped"} else State.FAILED


_STATES = {
    **dict.fromkeys(("aside", "failed"), State.FAILED),
    "running": State.IN_PROGRESS,
    "stopped": State.CANCELED,
    "done": State.SUCCEEDED,
    "waiting": State.PENDING,
}


def read_item(root: Path, name: str, batch: str, place: str, item: Item) -> Task:
    """A run of a batch as a task with the id `name`."""
    own = {"prompt": item.prompt, "negative": item.negative, "seed": item.seed, "steps": item.steps}
    state, there = item.state, read(root, place) or Task(name, place)
    step = max(there.step, state.step)
    task = replace(there, **own, id=name, batch=batch, state=_STATES[item.status], error=state.error, step=step)
    over = state.beat if item.status != "running" else 0.0
    return replace(task, started=over - state.seconds if over and state.seconds else state.began, finished=over)


def _scene(path: Path, task: Task, values: Mapping[str, Any], config: Mapping[str, Any], noted: object) -> Task | None:
    """A scene that is there, or that is being made of a sentence."""
    stage, steps = _joint(path), config.get("joint", 0)
    made = "scene.glb" in task.files and (not steps or (stage / "scene.json").exists())
    if not made and not config:
        return None
    title = str(_object(path / "scene.json").get("title", config.get("sentence", path.name)))
    scene = replace(replace(task, kind="scene", prompt=title, finished=task.created), **values)
    if steps and (learned := _last_line(task, stage / "metrics.jsonl")):
        scene = replace(scene, steps=steps, **learned)
    if noted in (State.PENDING.value, State.IN_PROGRESS.value):
        return replace(scene, state=State(noted))
    left = State.FAILED if noted == State.FAILED.value else State.CANCELED
    return replace(scene, state=State.SUCCEEDED if made else left)


def _run(path: Path, task: Task, values: Mapping[str, Any], config: Mapping[str, Any], noted: object) -> Task:
    told = {
        name: config[name]
        for name in ("prompt", "negative", "seed", "preset", "prior", "steps")
        if json_text.alike(config.get(name), getattr(task, name))
    }
    task = replace(task, **told, **values, **_last_line(task, path / "metrics.jsonl"))
    return replace(task, state=_state(path, task, noted))


def _state(path: Path, task: Task, noted: object) -> State:
    """What the studio noted of its own waiting and failed runs; else what the files tell."""
    if noted in (State.PENDING.value, State.IN_PROGRESS.value):
        return State(noted)
    if in_use(path):
        return State.IN_PROGRESS
    if RunFolder(path).index.exists() and task.step >= task.steps:
        return State.SUCCEEDED
    return State.FAILED if noted == State.FAILED.value else State.CANCELED


def _created(path: Path) -> float:
    """Of a folder without a note: the oldest of its files' times."""
    paths = (path / "config.json", path / "scene.glb", path / "metrics.jsonl")
    return min((file.stat().st_mtime for file in paths if file.exists()), default=0.0)


def log_of(root: Path, task: Task) -> RunFolder:
    """The folder with the log of a run, or of a scene's joint stage."""
    path = root / task.folder
    return RunFolder(_joint(path) if task.kind == "scene" else path)


def _joint(scene: Path) -> Path:
    """Where the joint stage of a scene is (`scenes.joint`, which is slow to import)."""
    return scene / "joint"


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none, or it is damaged."""
    try:
        content = json_text.read(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _last_line(task: Task, metrics: Path) -> dict[str, Any]:
    """`step`, `opacity` and `losses` of the last whole line, and its findings in words."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            record = json_text.parse(file.read().rpartition(b"\n")[0].rpartition(b"\n")[2])
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict) or not json_text.alike(record.get("step"), 0):
        return {}
    names = ("step", "opacity", "losses")
    told = {name: record[name] for name in names if json_text.alike(record.get(name), getattr(task, name))}
    return {**told, "health": in_words(found_in(record))}
