"""The studio with its real worker: what it makes is what the command line makes, also after a kill."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dreamfusion.cli.main import run
from dreamfusion.compose import compose, read
from dreamfusion.config.serialise import to_json
from dreamfusion.runs import RunFolder
from studio_parts import Client, free_port

PATIENCE = 90.0  # seconds, on a busy machine


@contextmanager
def serve(root: Path, prior: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The command; killed at the end, if it has not ended."""
    command = [sys.executable, "-m", "dreamfusion", "studio", "--root", str(root), "--port", str(port), "--no-browser"]
    with subprocess.Popen([*command, "--priors", str(prior), "--workers", "cpu"]) as process:
        try:
            yield process
        finally:
            process.kill()


def until(client: Client, identity: str, ready) -> dict:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            task = client.get(f"/api/tasks/{identity}").json
            if ready(task):
                return task
        except OSError:
            pass
        time.sleep(0.05)
    pytest.fail("it takes too long")


@pytest.mark.timeout(400)
def test_a_killed_studio_ends_with_the_mesh_of_an_undisturbed_run(tiny_config, tiny_prior, tmp_path):
    config = replace(tiny_config, prompt="a red chair", prior=str(tiny_prior), steps=40, checkpoint_steps=10)
    wanted = {name: value for name, value in to_json(config).items() if name not in ("version", "custom", "understood")}
    del wanted["prior_sha256"], wanted["memory"]
    port = free_port()
    client = Client(port, patience=PATIENCE)
    with serve(tmp_path / "studio", tiny_prior, port) as server:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                task = client.post("/api/tasks", wanted)
                break
            except OSError:
                time.sleep(0.1)
        assert task.status == 201, task.body
        identity = task.json["id"]
        until(client, identity, lambda task: task["step"] >= 12)
        server.send_signal(signal.SIGKILL)
    with serve(tmp_path / "studio", tiny_prior, port) as server:
        done = until(client, identity, lambda task: task["state"] in ("SUCCEEDED", "FAILED"))
        assert done["state"] == "SUCCEEDED", done["error"]
        made = client.post(f"/api/tasks/{identity}/exports", {"format": "stl"})
        assert "mesh.stl" in made.json["files"], made.body
        assets = [{"id": identity, "position": [x, 0, 0]} for x in (0, 1)]
        scene = client.post("/api/scenes", {"title": "two chairs", "assets": assets}).json
        assert scene["files"] == ["index.html", "scene.glb", "scene.json"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
    (tmp_path / "config.json").write_text(json.dumps(to_json(config)))
    assert run(["generate", "--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "plain")]) == 0
    studio, plain = RunFolder(tmp_path / "studio" / "a-red-chair-0"), RunFolder(tmp_path / "plain")
    assert studio.metrics.read_bytes() == plain.metrics.read_bytes()
    assert studio.mesh.read_bytes() == plain.mesh.read_bytes()
    scene_file = tmp_path / "studio" / "two-chairs" / "scene.json"
    assert len(compose(read(scene_file)).roots) == 2  # `dreamfusion compose` takes it
