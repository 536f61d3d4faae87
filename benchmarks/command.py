"""What a user waits for: the whole main job as a process of its own, and the command line's help.

    python benchmarks/command.py [--prompt "a hamburger"] [--times 3] [--out benchmarks/results/command.json]

Medians over some runs of `dreamfusion PROMPT` from the command to the last file, to the first step, and of `dreamfusion
--help`, in seconds; and the most memory that any of the processes held.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from machine import as_json, machine

COMMAND = [sys.executable, "-m", "dreamfusion"]
POLL = 0.02
"""seconds between looks at what a command has written"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default="a hamburger")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/command.json"))
    arguments = parser.parse_args()
    helps = [seconds("--help") for _ in range(arguments.times)]
    runs = [_run(arguments.prompt) for _ in range(arguments.times)]
    result = {
        "prompt": arguments.prompt,
        "times": arguments.times,
        "whole_s": _median([run["whole_s"] for run in runs]),
        "first_step_s": _median([run["first_step_s"] for run in runs]),
        "help_s": _median(helps),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _unit() / 1e6),
        "runs": runs,
        "machine": machine(torch.device("cpu")),
    }
    arguments.out.write_text(as_json(result) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("whole_s", "first_step_s", "help_s", "peak_mb")}))


def _run(prompt: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        since = time.perf_counter()
        process, first = _until_first_step([prompt], out)
        _, said = process.communicate()
        whole = time.perf_counter() - since
        if process.returncode:
            raise SystemExit(f"the command failed:\n{said.decode()}")
        return {"whole_s": round(whole, 2), "first_step_s": round(first, 2)}


def first_step_seconds(arguments: list[str], out: Path) -> float:
    """From the command to the first step in the log of a run in the folder `out`; the run is then killed."""
    process, first = _until_first_step(arguments, out)
    process.kill()
    process.communicate()
    return first


def _until_first_step(arguments: list[str], out: Path) -> tuple[subprocess.Popen[bytes], float]:
    since, metrics = time.perf_counter(), out / "metrics.jsonl"
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--out", str(out)], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(POLL)
    return process, time.perf_counter() - since


def seconds(*arguments: str) -> float:
    """Of a whole command."""
    since = time.perf_counter()
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - since


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def _unit() -> int:
    return 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`, in bytes


if __name__ == "__main__":
    main()
