"""A studio in this process, with a worker that makes nothing (`studio_worker`), and a client that says anything."""

import asyncio
import http.client
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from dreamfusion.batch.folder import BatchFolder
from dreamfusion.batch.state import State as Standing
from dreamfusion.batch.state import States
from dreamfusion.config.presets import preset
from dreamfusion.config.serialise import to_json
from dreamfusion.studio import lane
from dreamfusion.studio.serve import Address, Server, opened

WORKER = (sys.executable, str(Path(__file__).with_name("studio_worker.py")))


@dataclass(frozen=True)
class Answer:
    """Of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """Speaks to a studio as its own page does, unless told otherwise."""

    port: int
    headers: Mapping[str, str] = field(default_factory=dict)
    patience: float = 20.0
    """seconds for an answer"""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None, **headers: str | None) -> Answer:
        """`headers`: names with `_` for `-`; None leaves one away that the page would send."""
        own = {"Host": self.host, **({} if method == "GET" else self.writing()), **self.headers}
        own |= {name.replace("_", "-"): value for name, value in headers.items()}  # type: ignore[arg-type]
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.patience)
        try:
            connection.putrequest(method, path, skip_host=True)
            content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
            for name, value in own.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def writing(self) -> dict[str, str]:
        return {"Origin": f"http://{self.host}", "Content-Type": "application/json"}

    def get(self, path: str, **headers: str | None) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: object = None, **headers: str | None) -> Answer:
        return self.ask("POST", path, {} if body is None else body, **headers)

    def make(self, prompt: str, **more: object) -> dict[str, Any]:
        """A new task."""
        answer = self.post("/api/tasks", {"prompt": prompt, "steps": 5, **more})
        assert answer.status == 201, answer.body
        return answer.json

    def until(self, identity: str, *states: str) -> dict[str, Any]:
        """The task once it is in one of these states."""
        for _ in range(1000):
            task = self.get(f"/api/tasks/{identity}").json
            if task["state"] in states:
                return task
            time.sleep(0.02)
        pytest.fail(f"{task['state']} for ever: {task}")


def free_port() -> int:
    with socket.socket() as connection:
        connection.bind(("127.0.0.1", 0))
        return connection.getsockname()[1]


@contextmanager
def studio_at(root: Path, tokens: Sequence[str] = (), workers: int = 1, priors: Sequence[str] = ()) -> Iterator[Client]:
    """A studio that serves `root`; it ends, as after Ctrl-C, with the block."""
    port, started = free_port(), Queue[Server]()

    def run() -> None:
        address = Address(port=port, tokens=tuple(tokens))
        with opened(root, address, ("cpu",) * workers, priors) as server:
            started.put(server)
            asyncio.run(server.serve())

    thread = threading.Thread(target=run)
    thread.start()
    server = started.get(timeout=20)
    headers = {"Authorization": f"Bearer {tokens[0]}"} if tokens else {}
    client = Client(port, headers)
    try:
        client.get("/api/health")  # the socket listens already: this waits
        yield client
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def fake_worker(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workers that make nothing; returns the folder with what their runs leave."""
    monkeypatch.setattr(lane, "WORKER", WORKER)
    products = tmp_path_factory.mktemp("products")
    (products / "media").mkdir()
    (products / "mesh.glb").write_bytes(b"glTF")
    (products / "media" / "preview.png").write_bytes(b"png")
    monkeypatch.setenv("STUDIO_PRODUCTS", str(products))
    return products


def run_folder(path: Path, prompt: str = "a fox", steps: int = 3, done: int = 3, **config: object) -> Path:
    """A run as the command line leaves it: finished if all steps are done."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(
        json.dumps({**to_json(preset("fast")), "prompt": prompt, "steps": steps, **config})
    )
    lines = [json.dumps({"step": n, "losses": {"opacity": 1.0 / n}, "opacity": 0.5}) for n in range(1, done + 1)]
    (path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if done == steps:
        (path / "index.html").write_text("<p>page</p>")
        (path / "mesh.glb").write_bytes(b"glTF")
    return path


def batch_folder(path: Path, runs: Mapping[str, Standing], steps: int = 5) -> BatchFolder:
    """A batch as `dreamfusion batch` leaves it: a run for each prompt in its state; what is done has files."""
    folder, names = BatchFolder(path), [f"{number:032x}" for number in range(len(runs))]
    (path / "drivers" / "1-of-1").mkdir(parents=True)
    config = to_json(replace(preset("fast"), steps=steps))
    lines: list[dict[str, Any]] = [{"settings": "s", "config": config}]
    for number, (name, prompt) in enumerate(zip(names, runs, strict=True), 1):
        told = {"prompt": prompt, "negative": "", "seed": number, "understood": []}
        lines.append({"id": name, "line": number, **told, "settings": "s"})
    folder.manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for name, (prompt, state) in zip(names, runs.items(), strict=True):
        if state != Standing():
            States(folder).write(name, state)
        if state.status == "done":
            run = run_folder(folder.run(name), prompt, steps, steps)
            (run / "media").mkdir()
            (run / "media" / "preview.png").write_bytes(b"png")
    return folder


def events_of(client: Client, after: int | None = None, seconds: float = 5.0, until: str = "") -> list[dict[str, Any]]:
    """Events of a stream: id, kind and data, until one of them holds the text `until`."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=seconds)
    headers = {"Host": client.host, **client.headers, **({} if after is None else {"Last-Event-ID": str(after)})}
    found = list[dict[str, Any]]()
    try:
        connection.request("GET", "/api/events", headers=headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        block: dict[str, str] = {}
        for raw in response:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                block[name] = value
                continue
            if "event" in block:
                found.append({"id": int(block["id"]), "kind": block["event"], "data": json.loads(block["data"])})
                if until and until in block["data"]:
                    break
            block = {}
    except TimeoutError:
        pass
    finally:
        connection.close()
    return found
