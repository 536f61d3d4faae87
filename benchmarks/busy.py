"""What one other busy program does to a step, and how soon a run begins.

    python benchmarks/busy.py [--steps 40] [--rounds 3] [--out benchmarks/results/busy.json]

Steps of the fast preset, in the middle of a run, timed in turns: on the machine as it is, and beside one process that
keeps a core busy. Mean milliseconds, as waiting comes in bursts that a median hides; `ratio` is busy over quiet. Three
ways to use the cores: `default` (what a run does), `one` thread, and `shared`: each operator by all cores' threads, as
torch does by itself. `first_step_s`: from the command to the first logged step, and to `--help`, medians of `rounds`.
Nothing else may run on the machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch

from command import first_step_seconds, seconds
from dreamfusion import runtime
from dreamfusion.build import Threads, prior_options, threads
from dreamfusion.config.presets import preset
from dreamfusion.diffusion.priors import open_prior
from dreamfusion.loop import optimise, prompt_table
from machine import as_json, machine
from measure import middle_of_run

CPU = torch.device("cpu")
SETTLING = 0.3
"""seconds after another program starts or ends, before steps are timed"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="timed at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/busy.json"))
    arguments = parser.parse_args()
    fast = replace(preset("fast"), prompt="a hamburger")
    cores = runtime.available_cores()
    ways = {"default": threads(fast, CPU), "one": Threads(1, 1), "shared": Threads(cores, 1)}
    result = {
        "steps": arguments.steps * arguments.rounds,
        "ways": {name: measured(way, arguments) | asdict(way) for name, way in ways.items()},
        "first_step_s": _median([_first_step(fast.prompt) for _ in range(arguments.rounds)]),
        "help_s": _median([seconds("--help") for _ in range(arguments.rounds)]),
        "machine": machine(CPU),
    }
    arguments.out.write_text(as_json(result) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def measured(way: Threads, arguments: argparse.Namespace) -> dict[str, float]:
    """Mean milliseconds of a step, quiet and busy, and their ratio."""
    runtime.configure_torch(way.each, repeatable=True)
    config = replace(preset("fast"), prompt="a hamburger")
    prior = open_prior(config.prior, replace(prior_options(config, CPU), side=way.side))
    run = middle_of_run(config, CPU, prior, arguments.warm_steps)
    prompts = prompt_table(config, prior)
    quiet, busy = list[float](), list[float]()
    for _ in range(arguments.rounds):
        for times, beside in ((quiet, 0), (busy, 1)):
            with busy_processes(beside):
                since = time.perf_counter()
                for _ in optimise(run, prior, prompts, run.step + arguments.steps):
                    pass
                times.append((time.perf_counter() - since) / arguments.steps)
    means = {"quiet_ms": 1e3 * statistics.mean(quiet), "busy_ms": 1e3 * statistics.mean(busy)}
    return {name: round(value, 1) for name, value in means.items()} | {
        "ratio": round(means["busy_ms"] / means["quiet_ms"], 2)
    }


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Within it, so many processes do nothing but count."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(SETTLING)
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _first_step(prompt: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return first_step_seconds([prompt], Path(folder) / "run")


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


if __name__ == "__main__":
    main()
