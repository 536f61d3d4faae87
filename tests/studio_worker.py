"""A worker of the studio that makes nothing: the real one's lines and locks around steps of milliseconds, no torch.

Started as a program (`studio_parts`). The prompt says how it goes: "a cloud" has no surface, "a bomb" ends the process,
"a snake" is slow. What lies in the folder that STUDIO_PRODUCTS names is what a run leaves.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dreamfusion.batch.drive import driving
from dreamfusion.batch.folder import BatchFolder
from dreamfusion.batch.manifest import Manifest
from dreamfusion.batch.state import States
from dreamfusion.batch.watch import Watch
from dreamfusion.batch.worker import Order, carry_out
from dreamfusion.claims import owned
from dreamfusion.config import Config
from dreamfusion.errors import UserError
from dreamfusion.files import write_json
from dreamfusion.runs import RunFolder
from dreamfusion.studio import worker

PRODUCTS = Path(os.environ.get("STUDIO_PRODUCTS", "/nowhere"))


def run(job: Mapping[str, Any], voice: worker.Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    """Steps in `metrics.jsonl`, then copies of the products."""
    folder, config = RunFolder(Path(job["folder"])), job["config"]
    with owned(folder.path):
        write_json(folder.config, {**config, "version": "fake"})
        folder.media.mkdir(exist_ok=True)
        if config["prompt"] == "a bomb":
            os._exit(1)
        done = len(folder.read_metrics())
        voice.begin()
        for step in range(done + 1, config["steps"] + 1):
            time.sleep(0.02 if config["prompt"] == "a snake" else 0.001)
            folder.log({"step": step, "losses": {"distillation": 1 / step}, "opacity": 0.5})
            voice.send(step=step, opacity=0.5, losses={"distillation": 1 / step}, rate=100.0)
            if stopped():
                return {"end": "stopped"}
        voice.say("mesh")
        if config["prompt"] == "a cloud":
            raise UserError("no mesh and no page were made: the scene is empty")
        shutil.copytree(PRODUCTS, folder.path, dirs_exist_ok=True)
        (folder.path / "index.html").write_text("<p>page</p>")
    return {"end": "done"}


def export(job: Mapping[str, Any], voice: worker.Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    """An empty file of that format."""
    (Path(job["folder"]) / f"mesh.{job['format']}").write_text("solid")
    return {"end": "done"}


def compose(job: Mapping[str, Any], voice: worker.Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    """The first object as the scene."""
    out = Path(job["out"])
    out.mkdir()
    shutil.copy(Path(job["home"]) / job["scene"]["assets"][0]["file"] / "mesh.glb", out / "scene.glb")
    (out / "scene.json").write_text(json.dumps(job["scene"]))
    return {"end": "done", "out": str(out)}


def refine(job: Mapping[str, Any], voice: worker.Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    """Steps of a second stage, and another mesh."""
    folder = RunFolder(Path(job["folder"]))
    with owned(folder.path):
        voice.begin()
        for step in range(1, 8):
            time.sleep(0.1)  # time enough to be stopped by a busy machine
            voice.send(step=step, steps=7, opacity=0.5, losses={}, rate=100.0)
            if stopped():
                return {"end": "stopped"}
        told = f", refined{json.dumps(job['told'])}"  # what follows a GLB is no part of it
        folder.mesh.write_bytes((PRODUCTS / "mesh.glb").read_bytes() + told.encode())
    return {"end": "done"}


def batch(job: Mapping[str, Any], voice: worker.Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    """The runs of a batch that are left, in this process, under the real one's locks; "refused" ones fail again."""
    folder, failed = BatchFolder(Path(job["folder"])), 0
    with driving(folder, "1-of-1") as go, Manifest(folder) as manifest:
        for item in (manifest[number] for number in range(len(manifest))):
            state = States(folder).read(item.name)
            if stopped():
                return {"end": "stopped"}
            if state.failures > max(job["retries"], 2):
                failed += 1
            elif state.status != "done":
                failed += carry_out(Order(item, folder.path, go, 600.0), made).outcome == "failed"
                voice.say(f"{item.config.prompt} made")
    return {"end": "failed", "error": f"{failed} failed"} if failed else {"end": "done"}


def plan(job: Mapping[str, Any], voice: worker.Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    """Understands everything but snow."""
    if "snow" in job["config"]["sentence"]:
        raise UserError("lost at 'snow'")
    return {"end": "done"}


def scene(job: Mapping[str, Any], voice: worker.Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    """Three things, one after the other, then the first product as the scene, and the steps of a joint stage."""
    out = Path(job["folder"])
    with owned(out):
        for number in range(0 if (out / "scene.json").exists() else 3):
            voice.say(f"{number}/3")
            time.sleep(0.3 if "slow" in job["config"]["sentence"] else 0.01)
            if stopped():
                return {"end": "stopped"}
        shutil.copy(PRODUCTS / "mesh.glb", out / "scene.glb")
        write_json(out / "scene.json", {"title": job["config"]["sentence"], "assets": []})
        voice.say("page")
        return joint(RunFolder(out / "joint"), job["config"]["joint"], voice, stopped)


def joint(folder: RunFolder, steps: int, voice: worker.Voice, stopped: Callable[[], bool]) -> dict[str, object]:
    """Its log in its own folder, its pictures in the scene's."""
    if not steps:
        return {"end": "done"}
    folder.path.mkdir(exist_ok=True)
    shutil.copytree(PRODUCTS / "media", folder.path.parent / "media", dirs_exist_ok=True)
    done = len(folder.read_metrics())
    voice.begin()
    voice.send(step=done, steps=steps)
    for step in range(done + 1, steps + 1):
        time.sleep(0.02)
        folder.log({"step": step, "losses": {"distillation": 1 / step}, "opacity": 0.25})
        voice.send(step=step, opacity=0.25, losses={"distillation": 1 / step}, rate=50.0)
        if stopped():
            return {"end": "stopped"}
    write_json(folder.path / "scene.json", {})
    return {"end": "done"}


def made(config: Config, path: Path, watch: Watch) -> bool:
    """A run of a batch."""
    time.sleep(0.3 if "slow" in config.prompt else 0.01)
    if "refused" in config.prompt:
        raise UserError("no")
    write_json(path / "config.json", {"prompt": config.prompt, "steps": config.steps})
    shutil.copytree(PRODUCTS, path, dirs_exist_ok=True)
    (path / "index.html").write_text("<p>page</p>")
    return True


if __name__ == "__main__":
    worker.JOBS.update(run=run, refine=refine, export=export, compose=compose, batch=batch, plan=plan, scene=scene)
    worker.main()
