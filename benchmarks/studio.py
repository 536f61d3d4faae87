"""What the studio costs: many pages and programs beside a run, many runs in the gallery, an idle server.

    python benchmarks/studio.py [--streams 200] [--requests 2000] [--seconds 60] [--runs 10000] [--only load ...]

`load`: `streams` event streams and `requests` a minute on loopback while the fast preset runs: milliseconds of the
requests, events that a stream missed, and steps a second in turns without and with the load (the clients compute on
the same cores). `gallery`: a root with so many runs: seconds to the first answer, milliseconds of the first page and of
searches, memory. `batch`: a root with one batch of so many runs: seconds until it is shown, of the clock and of a core;
milliseconds of its pages and searches, of the clock and of a core; seconds until a change is told; what looking at it
costs. `idle_mb`: of the server without runs. Times are medians and 99th percentiles.
"""

import argparse
import asyncio
import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from dreamfusion.batch.folder import BatchFolder
from dreamfusion.batch.state import State as Standing
from dreamfusion.batch.state import States
from dreamfusion.config.presets import preset
from dreamfusion.config.serialise import to_json
from machine import as_json, machine

PORT = 7899
HOST = f"127.0.0.1:{PORT}"
NOUNS = ("chair", "fox", "hamburger", "taxi", "castle", "robot", "lamp", "pear")
COLOURS = ("red", "blue", "green", "yellow", "purple")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--requests", type=int, default=2000, help="a minute")
    parser.add_argument("--seconds", type=float, default=60, help="of each turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", choices=("load", "gallery", "batch"), default=("load", "gallery", "batch"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/studio.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
        if "load" in arguments.only:
            result["idle_mb"], result["load"] = measured_load(Path(folder) / "few", arguments)
        if "gallery" in arguments.only:
            result["gallery"] = measured_gallery(Path(folder) / "many", arguments.runs)
        if "batch" in arguments.only:
            result["batch"] = measured_batch(Path(folder) / "batch", arguments.runs)
            result["batch"]["machine"] = machine(torch.device("cpu"))
        if arguments.only != ["batch"]:
            result["machine"] = machine(torch.device("cpu"))
    arguments.out.write_text(as_json(result) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


@contextmanager
def server(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "dreamfusion", "studio", "--root", str(root), "--port", str(PORT), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with suppress(OSError):
                    ask("GET", "/api/health")
                    break
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()


def ask(method: str, path: str, body: object = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    headers = {"Host": HOST, "Origin": f"http://{HOST}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    content = connection.getresponse().read()
    connection.close()
    return json.loads(content) if content else None


def megabytes(process: subprocess.Popen[bytes]) -> float:
    """Of main memory, as the kernel counts it (Linux)."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGESIZE") / 1e6, 1)


def spread(milliseconds: list[float]) -> dict[str, float]:
    ordered = sorted(milliseconds)
    return {
        "count": len(ordered),
        "median_ms": round(statistics.median(ordered), 2),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 2),
        "most_ms": round(ordered[-1], 2),
    }


# Load beside a run


def measured_load(root: Path, arguments: argparse.Namespace) -> tuple[float, dict[str, Any]]:
    with server(root) as process:
        time.sleep(2)
        idle = megabytes(process)
        task = ask("POST", "/api/tasks", {"prompt": "a hamburger", "steps": 100_000, "preview_seconds": 5})
        while ask("GET", f"/api/tasks/{task['id']}")["step"] < 30:  # the first steps are cheaper, and torch must load
            time.sleep(0.5)
        rates: dict[str, list[float]] = {"quiet": [], "loaded": []}
        times, missed, received = list[float](), 0, 0
        for _ in range(arguments.turns):
            rates["quiet"].append(rate(task["id"], lambda: time.sleep(arguments.seconds)))
            found: list[Any] = []
            rates["loaded"].append(rate(task["id"], lambda found=found: found.append(asyncio.run(loaded(arguments)))))
            turn_times, turn_missed, turn_received = found[0]
            times, missed, received = [*times, *turn_times], missed + turn_missed, received + turn_received
        busy = megabytes(process)
        ask("POST", f"/api/tasks/{task['id']}/cancel", {})
        quiet, beside = (statistics.mean(rates[name]) for name in ("quiet", "loaded"))
        return idle, {
            "streams": arguments.streams,
            "requests_a_minute": arguments.requests,
            "requests": spread(times),
            "events_received": received,
            "events_missed": missed,
            "steps_a_second": {name: [round(value, 3) for value in values] for name, values in rates.items()},
            "slower_by": round(1 - beside / quiet, 4),
            "server_mb": busy,
        }


def rate(task: str, wait: Any) -> float:
    """Steps a second of a running task meanwhile."""
    first, began = ask("GET", f"/api/tasks/{task}")["step"], time.monotonic()
    wait()
    return (ask("GET", f"/api/tasks/{task}")["step"] - first) / (time.monotonic() - began)


async def loaded(arguments: argparse.Namespace) -> tuple[list[float], int, int]:
    """Milliseconds of all requests; events that streams missed, and received."""
    after = ask("GET", "/api/health")["last_event"]
    streams = [asyncio.create_task(numbers(after)) for _ in range(arguments.streams)]
    end, times = time.monotonic() + arguments.seconds, list[float]()
    paths = ("/api/tasks", "/api/queue", "/api/health", "/api/tasks?query=red+fox", "/api/understand?prompt=a+red+fox")
    pause = 60 / arguments.requests
    due = time.monotonic()
    while (due := due + pause) < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        times.append(await timed(random.choice(paths)))
    last = ask("GET", "/api/health")["last_event"]
    await asyncio.sleep(2)
    for stream in streams:
        stream.cancel()
    seen = [found for found in await asyncio.gather(*streams, return_exceptions=True) if isinstance(found, set)]
    wanted = set(range(after + 1, last + 1))
    missed = sum(len(wanted - found) for found in seen) + (len(streams) - len(seen)) * len(wanted)
    return times, missed, sum(map(len, seen))


async def timed(path: str) -> float:
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
    return 1000 * (time.perf_counter() - began)


async def numbers(after: int) -> set[int]:
    """Of the events of one stream, until it is cancelled."""
    found = set[int]()
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT, limit=1 << 20)
    writer.write(f"GET /api/events HTTP/1.1\r\nHost: {HOST}\r\nLast-Event-ID: {after}\r\n\r\n".encode())
    with suppress(asyncio.CancelledError):
        while line := await reader.readline():
            if line.startswith(b"id: "):
                found.add(int(line[4:]))
    writer.close()
    return found


# A large gallery


def measured_gallery(root: Path, count: int) -> dict[str, Any]:
    draw = random.Random(0)
    config = to_json(preset("fast"))
    for number in range(count):
        prompt = f"a {draw.choice(COLOURS)} {draw.choice(NOUNS)}"
        path = root / f"{prompt.replace(' ', '-')}-{number}"
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps({**config, "prompt": prompt, "seed": number}), encoding="utf-8")
        (path / "metrics.jsonl").write_text('{"step": 500, "losses": {}, "opacity": 0.5}\n', encoding="utf-8")
        (path / "index.html").touch()
    began = time.monotonic()
    with server(root) as process:
        first_start, total = time.monotonic() - began, ask("GET", "/api/tasks")["total"]
        page = [asked("/api/tasks?sort=" + draw.choice(["newest", "prompt", "seed"])) for _ in range(50)]
        words = [f"{draw.choice(COLOURS)} {draw.choice(NOUNS)}" for _ in range(40)] + [f"seed:{n}" for n in range(10)]
        search = [asked("/api/tasks?query=" + word.replace(" ", "+")) for word in words]
        memory = megabytes(process)
    began = time.monotonic()
    with server(root):
        second_start = time.monotonic() - began
    shutil.rmtree(root)
    return {
        "runs": total,
        "first_start_s": round(first_start, 2),
        "next_start_s": round(second_start, 2),
        "page": spread(page),
        "search": spread(search),
        "server_mb": memory,
    }


# A large batch


def measured_batch(root: Path, count: int) -> dict[str, Any]:
    draw, folder = random.Random(0), BatchFolder(root / "batch")
    folder.driver("1-of-1").mkdir(parents=True)
    states, names = States(folder), [f"{draw.getrandbits(128):032x}" for _ in range(count)]
    with folder.manifest.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"settings": "s", "config": to_json(preset("fast"))}) + "\n")
        for line, name in enumerate(names, 1):
            prompt = f"a {draw.choice(COLOURS)} {draw.choice(NOUNS)}"
            told = {"id": name, "line": line, "prompt": prompt, "negative": "", "seed": line, "understood": []}
            file.write(json.dumps({**told, "settings": "s"}) + "\n")
    for number, name in enumerate(names):
        if number % 10 < 6:
            states.write(name, Standing("done", 1, step=500, seconds=46.0))
        elif number % 50 == 6:
            states.write(name, Standing("failed", 3, 3, error="the loss is not finite"))
    began = time.monotonic()
    with server(root) as process:
        while not (tasks := ask("GET", "/api/tasks")["tasks"]):
            time.sleep(0.05)
        shown, of_a_core = time.monotonic() - began, cpu_seconds(process)
        runs = f"/api/tasks/{tasks[0]['id']}/runs"
        page = measured(process, [f"{runs}?page={draw.randint(1, count // 24)}" for _ in range(100)])
        words = [f"{draw.choice(COLOURS)}+{draw.choice(NOUNS)}" for _ in range(100)]
        search = measured(process, [f"{runs}?query={word}" for word in words])
        gallery = measured(process, ["/api/tasks"] * 100)
        before, seconds = cpu_seconds(process), 30
        time.sleep(seconds)
        looking = (cpu_seconds(process) - before) / seconds
        written = time.monotonic()
        states.write(names[9], Standing("done", 1, step=500, seconds=46.0))
        while ask("GET", "/api/tasks")["tasks"][0]["step"] == tasks[0]["step"]:
            time.sleep(0.05)
        told, memory = time.monotonic() - written, megabytes(process)
    shutil.rmtree(root)
    return {
        "runs": count,
        "shown_after_s": round(shown, 2),
        "shown_after_cpu_s": round(of_a_core, 2),
        "page": page,
        "search": search,
        "gallery": gallery,
        "change_told_after_s": round(told, 2),
        "looking_share_of_a_core": round(looking, 4),
        "server_mb": memory,
    }


def measured(process: subprocess.Popen[bytes], paths: list[str]) -> dict[str, float]:
    before = cpu_seconds(process)
    times = [asked(path) for path in paths]
    return {**spread(times), "cpu_ms": round(1000 * (cpu_seconds(process) - before) / len(paths), 2)}


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Of a core so far, as the kernel counts it (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def asked(path: str) -> float:
    began = time.perf_counter()
    ask("GET", path)
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
