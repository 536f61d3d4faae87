"""What a step costs, by stage, and how that compares with the prior's own two evaluations (with and without the text).

    python benchmarks/step.py [--run FOLDER] [--steps 100] [--threads 2]

Takes a fresh scene, or the last checkpoint of a run (the middle of a run is what counts: interrupt one at half time).
Prints JSON: milliseconds by stage (median), their sum, the prior's own two evaluations, and the ratio.
"""

import argparse
import json
import platform
import statistics
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import torch

from dreamfusion.build import device_of
from dreamfusion.generate import open_run, settle
from dreamfusion.optimise import Run, optimise, prompt_table, start
from dreamfusion.presets import preset
from dreamfusion.priors import Known, Prior, open_prior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a run; its last checkpoint is where the steps begin")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", default="a hamburger", help="for a fresh scene")
    arguments = parser.parse_args()
    settle(arguments.threads)
    run = _run(arguments.run, arguments.prompt)
    prior = open_prior(run.config.prior, run.device)
    print(json.dumps(measured(run, prior, arguments.steps), indent=2))


def _run(folder: Path | None, prompt: str) -> Run:
    if folder is not None:
        return open_run(folder, "auto")[1]
    return start(replace(preset("fast"), prompt=prompt), device_of("auto"))


def measured(run: Run, prior: Prior, steps: int) -> dict[str, object]:
    """Stage times of `steps` steps; prior alone is timed among them, so that both see the same machine."""
    prompts = prompt_table(run.config, prior)
    stages: dict[str, list[float]] = {}
    totals: list[float] = []
    alone: list[float] = []
    opacity = occupied = 0.0
    for _ in range(steps):
        since = time.perf_counter()
        metrics = next(optimise(run, prior, prompts, run.step + 1))
        totals.append(time.perf_counter() - since)
        for stage, seconds in metrics.seconds.items():
            stages.setdefault(stage, []).append(seconds)
        opacity, occupied = metrics.opacity, metrics.occupied
        alone.append(_two_evaluations(run, prior))
    whole, two = statistics.median(totals), statistics.median(alone)
    return {
        "step_ms": round(whole * 1e3, 1),
        "stages_ms": {stage: round(statistics.median(values) * 1e3, 1) for stage, values in stages.items()},
        "prior_two_evaluations_ms": round(two * 1e3, 1),
        "ratio": round(whole / two, 2),
        "at": {"step": run.step, "opacity": round(opacity, 3), "occupied": round(occupied, 4), "size": run.config.size},
        "machine": _machine(),
    }


def _two_evaluations(run: Run, prior: Prior) -> float:
    text = prior.embed([run.config.prompt, ""])
    noisy = prior.encode(torch.rand(2, prior.image_size, prior.image_size, 3, device=run.device))
    t = torch.full((2,), prior.schedule.steps // 2, device=run.device)
    since = time.perf_counter()
    prior.predict_noise(noisy, t, text, Known())
    return time.perf_counter() - since


def _machine() -> dict[str, object]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
    }


if __name__ == "__main__":
    main()
