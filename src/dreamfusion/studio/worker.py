"""A worker: `python -m dreamfusion.studio.worker`, which the server starts. One job at a time, in lines of JSON.

    in   {"do": "run", "folder": PATH, "device": "auto", "config": {...}}    a run, new or begun, to its last file
         {"do": "refine", "folder": PATH, "device": "auto", "told": {...}}   its second stage, likewise
         {"do": "export", "folder": PATH, "device": "auto", "format": "stl"} the run's mesh in another format
         {"do": "batch", "folder": PATH, "device": "auto", "share": 1, "retries": 2}   what is left of a batch
         {"do": "plan", "config": {"sentence": ..., "seed": 0, "prior": NAME}}          whether a sentence is understood
         {"do": "scene", "folder": PATH, "device": "auto", "share": 1, "config": {...}} its things, their scene, and
                                                                             its joint stage, if it has one
         {"do": "compose", "scene": {...}, "home": ROOT, "out": PATH}        several in one
         {"stop": true}                                                      save and end the job
    out  {"doing": "mesh"}   {"step": 3, "opacity": 0.1, "losses": {...}, "rate": 9.1, "health": "fog: ..."}
         {"end": "done" | "stopped" | "busy" | "failed", "error": "in words", "out": PATH}

The folder's lock is taken for the time of a job, so whatever else writes into it is waited for ("busy"). When the input
ends, the job is saved and the process ends.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from dreamfusion.claims import InUse, new_folder, owned
from dreamfusion.config import Config
from dreamfusion.config.serialise import from_json
from dreamfusion.errors import UserError
from dreamfusion.health import in_words

if TYPE_CHECKING:
    from dreamfusion.batch.work import KeptPrior
    from dreamfusion.generate import Job
    from dreamfusion.loop import Metrics
    from dreamfusion.scenes.make import Plan

NO_GPU = "-1"
"""CUDA_VISIBLE_DEVICES for the CPU alone"""
EVERY = 1.0
"""seconds between messages about steps"""


class Orders:
    """What comes in: jobs to be done in turn, and requests to stop the present one. Read by a thread of its own."""

    def __init__(self, source: TextIO) -> None:
        self._jobs = SimpleQueue[dict[str, Any] | None]()
        self._stop = threading.Event()
        threading.Thread(target=self._read, args=(source,), daemon=True).start()

    def _read(self, source: TextIO) -> None:
        for line in source:
            message = json.loads(line)
            if message.get("stop"):
                self._stop.set()
            else:
                self._stop.clear()  # it was for the job before
                self._jobs.put(message)
        self._stop.set()
        self._jobs.put(None)

    def next(self) -> dict[str, Any] | None:
        """The next job, when there is one; None at the end."""
        return self._jobs.get()

    def stopped(self) -> bool:
        """Whether the present job is to be saved and ended."""
        return self._stop.is_set()


class Voice:
    """What goes out: at once what is done, and now and then the steps."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._doing = ""
        self.begin()

    def begin(self) -> None:
        """A run begins, or goes on: steps are counted from here for the speed."""
        self._done, self._began, self._spoke, self._healed = 0, time.monotonic(), 0.0, ""

    def send(self, **message: object) -> None:
        """One line; nobody's where the server is no more, and then the input ends too."""
        with suppress(BrokenPipeError):
            self._out.write(json.dumps(message).encode() + b"\n")

    def say(self, doing: str) -> None:
        """A `ProgressCallback`."""
        if doing != self._doing:
            self._doing = doing
            self.send(doing=doing)

    def step(self, steps: int, metrics: "Metrics") -> None:
        """One of `steps` was done."""
        now, self._done = time.monotonic(), self._done + 1
        if metrics.healing is not None:
            self._healed = f"healed: {metrics.healing}"
        if metrics.step == steps or now - self._spoke >= EVERY:
            self._spoke = now
            rate = self._done / max(now - self._began, 1e-9)
            health = in_words(metrics.findings) or self._healed
            self.send(step=metrics.step, opacity=metrics.opacity, losses=metrics.losses, rate=rate, health=health)


def main() -> None:
    """Do what comes in until the input ends."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is for the terminal
    voice, orders = Voice(out), Orders(sys.stdin)
    while (job := orders.next()) is not None:
        voice.send(**_ended(job, voice, orders))


def _ended(job: Mapping[str, Any], voice: Voice, orders: Orders) -> dict[str, object]:
    """The last message about a job."""
    try:
        return JOBS[job["do"]](job, voice, orders.stopped)
    except InUse as error:
        return {"end": "busy", "error": str(error)}
    except UserError as error:
        return {"end": "failed", "error": str(error)}
    except Exception as error:  # the next job may be a better one
        traceback.print_exc()
        return {"end": "failed", "error": f"{type(error).__name__}: {error} (the terminal of the studio shows where)"}


def _run(job: Mapping[str, Any], voice: Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    path = Path(job["folder"])
    with owned(path):
        voice.say("loading")
        from dreamfusion.batch.work import open_job

        config = from_json(Config, job["config"])
        work = open_job(replace(config, device=_device(config, job)), path, _kept_prior())
        done = _worked_off(work, voice, stopped)
    return {"end": "done" if done else "stopped"}


def _refine(job: Mapping[str, Any], voice: Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    path = Path(job["folder"])
    with owned(path):
        voice.say("loading")
        from dreamfusion import generate, refine

        config = generate.config_of(path)
        device = _device(config, job)
        generate.prepare_process(config, device)
        told = replace(refine.told_by(config), **job["told"]) if job["told"] else None
        anew = told not in (None, refine.begun(path))
        work = (refine.begin if anew else refine.open_stage)(path, device, told, parts=_kept_prior(), say=voice.say)
        done = _worked_off(work, voice, stopped)
    return {"end": "done" if done else "stopped"}


def _batch(job: Mapping[str, Any], voice: Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    """What `dreamfusion batch FOLDER` does, with this worker's share of the machine, in processes of its own."""
    from dreamfusion.batch.drive import Drive, Rules, driving
    from dreamfusion.batch.folder import BatchFolder
    from dreamfusion.batch.local import LocalWorkers
    from dreamfusion.batch.manifest import Manifest
    from dreamfusion.batch.report import write_report
    from dreamfusion.batch.worker import MakeRuns

    folder, rules = BatchFolder(Path(job["folder"])), Rules(max(job["retries"], Rules().retries))
    voice.say("loading")
    count, devices = _places(job["device"], job["share"])
    with (
        driving(folder, "1-of-1") as go,
        Manifest(folder) as manifest,
        LocalWorkers(count, MakeRuns(), devices) as workers,
    ):
        items = (manifest[number] for number in range(len(manifest)))
        tally = Drive(folder, workers, rules, voice.say)(items, len(manifest), go, stopped)
    with suppress(InUse):
        write_report(folder)
    if tally.left:
        return {"end": "stopped"}
    return {"end": "failed", "error": f"{tally.failed} of {tally.total} failed"} if tally.failed else {"end": "done"}


def _plan(job: Mapping[str, Any], voice: Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    _planned(job, Path("runs"))
    return {"end": "done"}


def _scene(job: Mapping[str, Any], voice: Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    """What `dreamfusion scene SENTENCE` does, with this worker's share of the machine."""
    path = Path(job["folder"])
    with owned(path):
        voice.say("loading")
        from dreamfusion.scenes.make import SCENE, make_scene

        steps = job["config"].get("joint", 0)
        if not (steps and (path / SCENE).exists()):
            count, _ = _places(job["device"], job["share"])
            if make_scene(_planned(job, path / "runs"), path, count, voice.say, stopped) is None:
                return {"end": "stopped"}
        done = not steps or _joint(path, steps, job, voice, stopped)
    return {"end": "done" if done else "stopped"}


def _joint(home: Path, steps: int, job: Mapping[str, Any], voice: Voice, stopped: Callable[[], bool]) -> bool:
    """What is left of the joint stage of the scene in a folder; False if it was stopped."""
    from dreamfusion import generate
    from dreamfusion.scenes import joint

    told = generate.config_of(joint.read(home / joint.SCENE).runs[0])
    device = _device(told, job)
    generate.prepare_process(told, device)
    work = joint.open_stage(home, steps, device, _kept_prior(), voice.say)
    with owned(work.folder.path):
        done = _worked_off(work, voice, stopped, files=False)
        if done:
            joint.write(work, home, voice.say)
    return done


def _planned(job: Mapping[str, Any], runs: Path) -> "Plan":
    """Raises UserError for a sentence that is not understood, and for a joint stage that cannot be."""
    from dreamfusion.scenes.make import plan

    config = job["config"]
    settings = {name: str(config[name]) for name in ("seed", "prior")} | {"device": job["device"]}
    return plan(config["sentence"], settings, {}, runs, 1, config.get("joint", 0) > 0)


def _places(device: str, share: int) -> tuple[int, list[str]]:
    """Runs at a time for one of `share` workers of the studio, and CUDA_VISIBLE_DEVICES for them (`LocalWorkers`)."""
    from dreamfusion.batch.local import visible_gpus
    from dreamfusion.runtime import available_cores

    gpus = visible_gpus(device.partition(":")[0])
    if not gpus:
        return max(1, available_cores() // share), ["" if device == "auto" else NO_GPU]
    _, colon, number = device.partition(":")
    chosen = [gpus[int(number)]] if colon else gpus
    return len(chosen), chosen


def _worked_off(work: "Job", voice: Voice, stopped: Callable[[], bool], files: bool = True) -> bool:
    from dreamfusion.batch.work import Watch, work_off

    steps = work.run.config.steps
    voice.begin()
    voice.send(step=work.run.step, steps=steps)
    return work_off(work, Watch(voice.say, partial(voice.step, steps), stopped), files)


@cache
def _kept_prior() -> "KeptPrior":
    """The prior of the last run, which the next one may want too."""
    from dreamfusion.batch.work import KeptPrior

    return KeptPrior()


def _export(job: Mapping[str, Any], voice: Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    from dreamfusion import generate, refine

    config = generate.config_of(Path(job["folder"]))
    device = _device(config, job)
    generate.prepare_process(config, device)
    with owned(Path(job["folder"])):
        folder, run = refine.shown(Path(job["folder"]), device)
        path = folder.mesh.with_suffix(f".{job['format']}")
        generate.export_mesh(run, [path], generate.own_mesh_options(run.config), say=voice.say)
    return {"end": "done"}


def _compose(job: Mapping[str, Any], voice: Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    from dreamfusion import compose
    from dreamfusion.files import write_json

    with new_folder(Path(job["out"]), or_next=True) as out:
        home = os.path.relpath(job["home"], out)
        assets = [{**asset, "file": f"{home}/{asset['file']}"} for asset in job["scene"]["assets"]]
        scene = {"title": job["scene"]["title"], "assets": assets}
        compose.write(compose.parse(scene, out / "scene.json"), out, voice.say)
        write_json(out / "scene.json", scene)
    return {"end": "done", "out": str(out)}


def _device(config: Config, job: Mapping[str, Any]) -> str:
    """The run's own device, or the worker's where it leaves that open."""
    return job["device"] if config.device == "auto" else config.device


JOBS: dict[str, Callable[[Mapping[str, Any], Voice, Callable[[], bool]], dict[str, object]]] = {
    "run": _run,
    "refine": _refine,
    "export": _export,
    "batch": _batch,
    "plan": _plan,
    "scene": _scene,
    "compose": _compose,
}

if __name__ == "__main__":
    main()
