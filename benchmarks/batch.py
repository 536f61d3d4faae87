"""What a batch costs beside its runs, and what it survives.

    python benchmarks/batch.py rows [--count 1000000]         a list of so many rows: manifest, hand-out, report
    python benchmarks/batch.py kills [--count 200]            workers and drivers killed at random, runs of nothing
    python benchmarks/batch.py lost [--nodes 100]             a simulated cluster that loses 5 % of its nodes an hour
    python benchmarks/batch.py runs [--prompts 6 --steps 20]  real runs: one worker, two, and two on Ray
    python benchmarks/batch.py ceiling [--prompts 8 --steps 100]  two plain runs at once against one, beside two workers
    python benchmarks/batch.py equal [--prompts 6 --steps 20] real runs, undisturbed and killed: are they equal?

Each writes what it found into `benchmarks/results/batch.json`, under its own name.
"""

import argparse
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

# What is slow to load the measures import: workers load this file too.
from batch_runs import EVERY, Counted, done_steps  # type: ignore[import-not-found]  # noqa: E402
from batch_simulated import Clock, Cluster  # type: ignore[import-not-found]  # noqa: E402
from dreamfusion.batch import drive as drive_module  # noqa: E402
from dreamfusion.batch.drive import Drive, Rules, driving  # noqa: E402
from dreamfusion.batch.folder import BatchFolder, Item  # noqa: E402
from dreamfusion.batch.local import LocalWorkers  # noqa: E402
from dreamfusion.batch.state import State, States  # noqa: E402
from dreamfusion.config import Config  # noqa: E402

COLOURS = ("red", "blue", "green", "yellow", "white")
KEPT = 24
"""steps of a run of nothing"""
SECONDS = 0.1
"""of each"""


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def rows(place: Path, count: int) -> dict[str, object]:
    """Seconds and peak memory of each stage of a list of so many rows, before and after all is made."""
    from dreamfusion.batch.new_manifest import Count, manifest_lines, write_manifest
    from dreamfusion.batch.report import write_report
    from dreamfusion.batch.resolve import Resolver
    from dreamfusion.batch.rows import read_rows
    from training.nouns import nouns

    words = sorted({one.noun for one in nouns()})
    with (place / "rows.csv").open("w") as file:
        file.write("prompt,seed\n")
        file.writelines(f"a {COLOURS[n % 5]} {words[n // 5 % len(words)]},{n}\n" for n in range(count))
    folder, found = BatchFolder(place / "out"), dict[str, object]()
    folder.path.mkdir()

    def timed(name: str, stage: Callable[[], object]) -> None:
        begun, worked = time.monotonic(), time.process_time()
        stage()
        passed, worked = time.monotonic() - begun, time.process_time() - worked
        found[name] = {"seconds": round(passed, 1), "of a core": round(worked, 1), "peak MB": round(peak_mb())}
        print(name, found[name], flush=True)

    def manifest() -> None:
        lines = manifest_lines(read_rows(place / "rows.csv"), Resolver({}, 1), Count(), print)
        write_manifest(lines, folder, place / "part")

    timed("manifest", manifest)
    timed("the same command again", manifest)
    found["manifest MB"] = round(folder.manifest.stat().st_size / 1e6)
    timed("report", lambda: write_report(folder))
    found["report MB"] = [round(path.stat().st_size / 1e6) for path in (folder.summary, folder.index)]
    return found


def lost(place: Path, nodes: int) -> dict[str, object]:
    """Efficiency with 4 workers a node, runs of 90 s, checkpoints every 18 s, new nodes after 300 s."""
    states: dict[str, State] = {}
    States.read = lambda self, name: states.get(name, State())  # type: ignore[method-assign]
    States.write = lambda self, name, state: states.update({name: state})  # type: ignore[method-assign]
    cluster = Cluster(Clock(), states, nodes=nodes, each=4, lost_every=72_000.0)
    drive_module.saved_step = lambda path: 1 + int(cluster.done.get(path.name, 0))
    count = 10 * 3600 // 90 * nodes * 4
    items = (Item(f"{n:08x}", Config(prompt="a ball"), place / f"{n:08x}") for n in range(count))
    folder, begun = BatchFolder(place / "out"), time.monotonic()
    with driving(folder, "1-of-1") as go:
        tally = Drive(folder, cluster, Rules(), lambda _: None, clock=cluster.clock)(items, count, go, lambda: False)
    efficiency = count * cluster.run_seconds / (cluster.clock.now * nodes * 4)
    return {
        "runs": count,
        "made": tally.made,
        "nodes lost": cluster.lost,
        "hours": round(cluster.clock.now / 3600, 2),
        "efficiency": round(efficiency, 4),
        "seconds to simulate": round(time.monotonic() - begun, 1),
    }


def drive_nothing(out: Path, count: int) -> None:
    """The driver of `kills`: runs of nothing in two workers."""
    folder = BatchFolder(out)
    items = [
        Item(f"{n:04x}", Config(prompt="a ball", steps=KEPT, seed=n), folder.run(f"{n:04x}")) for n in range(count)
    ]
    with driving(folder, "1-of-1") as go, LocalWorkers(2, Counted(out / "log", SECONDS)) as workers:
        Drive(folder, workers, Rules(retries=10), lambda _: None)(iter(items), count, go, lambda: False)


def kills(place: Path, count: int) -> dict[str, object]:
    """So many SIGKILLs, of a worker (3 of 4) or of the driver, one every second or two; then what is left is made."""
    out, runs, chance = place / "out", 60, random.Random(0)
    out.mkdir()
    told = Counter[str]()
    driver = None
    while told.total() < count:
        if driver is None or driver.poll() is not None:
            if driver is not None and driver.returncode == 0:
                runs += 20  # all is made; more of it
            driver = subprocess.Popen([sys.executable, __file__, "drive", "--out", str(out), "--count", str(runs)])
        time.sleep(chance.uniform(0.5, 2.5))
        workers = children(driver.pid)
        if chance.random() < 0.75 and workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            told["workers"] += 1
        elif workers:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            told["drivers"] += 1
    if driver is not None:
        driver.wait()
    subprocess.run([sys.executable, __file__, "drive", "--out", str(out), "--count", str(runs)], check=True)
    done = done_steps(out / "log")
    again = {name: len(steps) - KEPT for name, steps in done.items()}
    states = [States(BatchFolder(out)).read(f"{n:04x}") for n in range(runs)]
    results = {BatchFolder(out).run(f"{n:04x}").joinpath("index.html").read_text().split()[-1] for n in range(runs)}
    return {
        "runs": runs,
        "killed": dict(told),
        "made": sum(state.status == "done" for state in states),
        "right results": len(results) == runs
        and all(sorted(set(steps)) == list(range(KEPT)) for steps in done.values()),
        "steps done": sum(map(len, done.values())),
        "steps done twice": sum(again.values()),
        "checkpoint interval": EVERY,
        "most in one attempt": max(longest_again(steps) for steps in done.values()),
        "files left over": [path.name for path in out.rglob("*") if ".part" in path.name or path.suffix == ".go"],
    }


def longest_again(steps: list[int]) -> int:
    """The most steps that a run went back at once."""
    return max([one - other + 1 for one, other in itertools.pairwise(steps)] + [0])


def children(process: int) -> list[int]:
    """The worker processes of a driver."""
    try:
        threads = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        return [int(child) for child in threads if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


def batch(place: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """A batch of the prompts in `place` that has begun."""
    command = [sys.executable, "-m", "dreamfusion", "batch", str(place / "prompts.txt"), "--out", str(out)]
    return subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)


def write_prompts(place: Path, count: int) -> None:
    nouns = ("chair", "frog", "car", "house", "tree", "boat", "lamp", "fox")
    words = [f"a {colour} {noun}" for noun in nouns for colour in COLOURS]
    (place / "prompts.txt").write_text("\n".join(words[:count]))


def tensors(out: Path) -> dict[str, bytes]:
    """What the runs of a batch ended with, by name."""
    return {path.parts[-3]: path.read_bytes() for path in sorted((out / "runs").rglob("checkpoint/*.safetensors"))}


def equal(place: Path, prompts: int, steps: int) -> dict[str, object]:
    """Whether runs end the same, bit for bit, if workers, the driver and the whole Ray cluster are killed meanwhile."""
    write_prompts(place, prompts)
    settings = [f"steps={steps}", "threads=1", f"checkpoint_steps={max(1, steps // 4)}", "preview_seconds=0"]
    common = ["--jobs", "2", "--no-files", "--set", *settings]
    batch(place, place / "undisturbed", *common).wait()
    wanted = tensors(place / "undisturbed")
    found: dict[str, object] = {"prompts": prompts, "steps": steps, "made": len(wanted)}
    ways = {"local": disturbed_locally}
    if find_spec("ray"):
        ways["ray"] = disturbed_on_ray
    for way, disturbed in ways.items():
        out = place / way
        killed = disturbed(lambda *options, out=out: batch(place, out, *options, *common), out)
        found[way] = {"killed": killed, "equal": tensors(out) == wanted}
        print(way, found[way], flush=True)
    return found


Start = Callable[..., "subprocess.Popen[bytes]"]


def disturbed_locally(start: Start, out: Path) -> list[str]:
    """A worker dies, then the driver; the same command goes on."""
    driver = start()
    kill_one(lambda: children(driver.pid), out, 1)
    kill_one(lambda: [driver.pid], out, 2)
    driver.wait()
    start().wait()
    return ["a worker", "the driver"]


def disturbed_on_ray(start: Start, out: Path) -> list[str]:
    """A worker dies, then the driver, then the whole cluster, which is started again; the same command goes on."""
    ray = [str(Path(sys.executable).with_name("ray"))]
    head = [*ray, "start", "--head", "--num-cpus", "2", "--include-dashboard", "false"]
    options = ["--executor", "ray", "--address", "auto"]
    subprocess.run(head, check=True, capture_output=True)
    driver = start(*options)
    kill_one(ray_workers, out, 1)
    kill_one(lambda: [driver.pid], out, 2)
    driver.wait()
    driver = start(*options)
    kill_one(list, out, 3)
    subprocess.run([*ray, "stop", "--force"], check=True, capture_output=True)
    driver.wait()
    subprocess.run(head, check=True, capture_output=True)
    start(*options).wait()
    subprocess.run([*ray, "stop", "--force"], check=True, capture_output=True)
    return ["a worker", "the driver", "the cluster"]


def kill_one(candidates: Callable[[], list[int]], out: Path, checkpoints: int) -> None:
    """Wait until so many runs have checkpoints, and a moment more; then kill one of the processes, if there are any."""
    while len(list((out / "runs").rglob("checkpoint.json"))) < checkpoints:
        time.sleep(0.1)
    time.sleep(1.0)
    for process in candidates()[:1]:
        os.kill(process, signal.SIGKILL)


def ray_workers() -> list[int]:
    """Processes that make runs for Ray on this machine."""
    named = ((path, path.read_bytes()) for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    return [int(path.parent.name) for path, name in named if name.startswith(b"ray::_Worker")]


def runs(place: Path, prompts: int, steps: int, files: bool) -> dict[str, object]:
    """Seconds of one batch of so many prompts with one worker, with two, and with two on Ray where it is installed.

    `overhead`: the share of the first one's time that none of its runs took (starting, loading, handing out).
    """
    write_prompts(place, prompts)
    ways = {"1 worker": ["--jobs", "1"], "2 workers": ["--jobs", "2"]}
    if find_spec("ray"):
        ways["2 workers on Ray"] = ["--jobs", "2", "--executor", "ray"]
    found: dict[str, object] = {"prompts": prompts, "steps": steps, "files": files}
    results = []
    for way, options in ways.items():
        out, begun = place / way, time.monotonic()
        settings = ["--set", f"steps={steps}", "threads=1", "preview_seconds=0"]
        batch(place, out, *options, "--files" if files else "--no-files", *settings).wait()
        passed = time.monotonic() - begun
        states = [States(BatchFolder(out)).read(path.name) for path in (out / "runs").glob("*/*")]
        worked = sum(state.seconds for state in states)
        found[way], found[f"overhead, {way}"] = round(passed, 1), round(passed * int(options[1]) / worked - 1, 4)
        print(way, found[way], flush=True)
        results.append(tensors(out))
    found["equal tensors"] = all(result == results[0] for result in results) and len(results[0]) == prompts
    return found


def make_plainly(place: Path, count: int, steps: int) -> None:
    """So many runs one after the other in this process; says when its prior is there, waits for a line, tells seconds.

    What a batch's worker does without its states, orders and looks, so as fast as this machine makes runs.
    """
    from dataclasses import replace

    from dreamfusion.batch.watch import Watch
    from dreamfusion.batch.work import KeptPrior, open_job, work_off
    from dreamfusion.config.presets import preset

    config, kept = replace(preset("fast"), threads=1, preview_seconds=0.0, steps=5), KeptPrior()

    def make(name: str, steps: int) -> None:
        work_off(open_job(replace(config, prompt="a red chair", steps=steps), place / name, kept), Watch(), files=False)

    make("first", 5)
    print("ready", flush=True)
    input()
    begun = time.monotonic()
    for number in range(count):
        make(str(number), steps)
    print(time.monotonic() - begun)


def plain_seconds(place: Path, at_once: int, count: int, steps: int) -> float:
    """Until each of so many processes, which begin together, has made so many runs."""
    command = [sys.executable, __file__, "plain", "--count", str(count), "--steps", str(steps), "--out"]
    places = [Path(tempfile.mkdtemp(dir=place)) for _ in range(at_once)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen([*command, str(one)], stdin=pipe, stdout=pipe, text=True) for one in places]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return max(float(process.communicate()[0]) for process in processes)


def ceiling(place: Path, prompts: int, steps: int) -> dict[str, object]:
    """How much more two processes get done than one: with no machinery between them (three times), and as a batch."""
    count = max(1, prompts // 4)
    found: dict[str, object] = {}
    for turn in range(3):
        alone, both = (plain_seconds(place, at_once, count, steps) for at_once in (1, 2))
        found[f"plain, turn {turn + 1}"] = {
            "seconds alone": round(alone, 1),
            "seconds of two at once": round(both, 1),
            "throughput of two": round(2 * alone / both, 3),
        }
        print(found[f"plain, turn {turn + 1}"], flush=True)
    batched = runs(place, prompts, steps, files=False)
    return found | batched | {"throughput of two workers": round(batched["1 worker"] / batched["2 workers"], 3)}  # type: ignore[operator]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rows", "kills", "lost", "runs", "ceiling", "equal", "drive", "plain"])
    parser.add_argument("--count", type=int)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--no-files", dest="files", action="store_false", help="without mesh and page")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.what == "drive":
        return drive_nothing(options.out, options.count)
    if options.what == "plain":
        return make_plainly(options.out, options.count, options.steps)
    place = Path(tempfile.mkdtemp())
    measures: dict[str, Callable[[], dict[str, object]]] = {
        "rows": lambda: rows(place, options.count or 1_000_000),
        "kills": lambda: kills(place, options.count or 200),
        "lost": lambda: lost(place, options.nodes),
        "ceiling": lambda: ceiling(place, options.prompts, options.steps),
        "equal": lambda: equal(place, options.prompts, options.steps),
        "runs": lambda: runs(place, options.prompts, options.steps, options.files),
    }
    found = measures[options.what]()

    import torch

    from machine import as_json, machine

    shutil.rmtree(place)
    print(json.dumps(found, indent=2))
    results = ROOT / "benchmarks" / "results" / "batch.json"
    everything = json.loads(results.read_text()) if results.exists() else {}
    results.write_text(as_json({**everything, options.what: found | {"machine": machine(torch.device("cpu"))}}) + "\n")


if __name__ == "__main__":
    main()
