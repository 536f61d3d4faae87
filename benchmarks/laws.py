"""How a step's time grows: with picture size, samples, views, occupied space and threads, each beside the expected law.

    python benchmarks/laws.py [--steps 15] [--threads 2] [--laws size views] [--out FILE.json] [--plot FILE.png]
    python benchmarks/laws.py --redraw benchmarks/results/laws.json                  the picture alone, again

Every point is the median of some steps of one scene that stands still (learning rates of 0), all views lit. The scene
is that of a run of the fast preset at half time; for occupied space, solid balls. The law is about all but the prior,
which sees every picture at its own size. Needs matplotlib. Prints the fitted laws; all points are in the JSON.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from cost_law import LAWS, fitted
from dreamfusion.build import device_of
from dreamfusion.config import BlobConfig
from dreamfusion.config.presets import preset
from dreamfusion.diffusion.priors import Prior, PriorOptions, open_prior
from dreamfusion.loop import Run, prompt_table, start
from dreamfusion.nerf.fields.density import radius_above
from dreamfusion.runtime import available_cores, configure_torch
from laws_plot import draw
from machine import as_json, machine
from measure import Step, all_lit, middle_of_run, standing, timed_steps
from step import median_ms

STEEP = 1000.0
"""Height of the blob that stands for a solid ball"""
PRACTICE = 2
"""Steps before each point that are not counted"""


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.redraw is None:
        result = _measured(arguments)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(as_json(result) + "\n", encoding="utf-8")
    else:
        result = json.loads(arguments.redraw.read_text(encoding="utf-8"))
    draw(result, arguments.plot)
    print(as_json({name: {"ms": f"a + b * {law['work']}"} | law["fit"] for name, law in result["laws"].items()}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laws", nargs="+", choices=list(LAWS), default=list(LAWS))
    parser.add_argument("--steps", type=int, default=15, help="per point")
    parser.add_argument("--warm-steps", type=int, default=250, help="of the run whose scene is measured")
    parser.add_argument("--prompt", default="a hamburger")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--most", type=float, default=float("inf"), help="leave out larger values than this")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/laws.json"))
    parser.add_argument("--plot", type=Path, default=Path("docs/performance.png"))
    parser.add_argument("--redraw", type=Path, help="a file that --out wrote; nothing is measured")
    return parser


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    device = device_of(arguments.device)
    configure_torch(arguments.threads, repeatable=device.type == "cpu")
    config = replace(preset("fast"), prompt=arguments.prompt)
    prior = open_prior(config.prior, PriorOptions(device=device))
    run = middle_of_run(config, device, prior, arguments.warm_steps)
    run.config = all_lit(config)
    names = [name for name in arguments.laws if name != "threads" or device.type == "cpu"]
    at = {"prompt": config.prompt, "step": run.step, "size": config.size, "samples": config.render.samples}
    laws = {name: _law(name, run, prior, arguments) for name in names}
    return {"laws": laws, "at": at | {"steps_per_point": arguments.steps}, "machine": machine(device)}


def _law(name: str, run: Run, prior: Prior, arguments: argparse.Namespace) -> dict[str, object]:
    """All points of a law, and the fitted formula."""
    law, points = LAWS[name], []
    for value in law.values or range(1, available_cores() + 1):
        if value > arguments.most:
            continue
        print(f"{name} {value:g}", file=sys.stderr, flush=True)
        with _threads(int(value) if name == "threads" else arguments.threads):
            still = SETTINGS[name](run, value)
            steps = timed_steps(still, prior, prompt_table(still.config, prior), PRACTICE + arguments.steps)
        points.append(_point(name, value, steps[PRACTICE:]))
    fit = fitted(law, [point["x"] for point in points], [point["own_ms"] for point in points])
    return {"work": law.work, "unit": law.unit, "fit": asdict(fit), "points": points}


def _point(name: str, value: float, steps: list[Step]) -> dict[str, float]:
    occupied = round(statistics.mean(step.occupied for step in steps), 4)
    times = {"own_ms": median_ms(steps, lambda step: step.own), "whole_ms": median_ms(steps, lambda step: step.whole)}
    return {"x": occupied if name == "occupied" else value, "told": value} | times | {"occupied": occupied}


def _size(run: Run, value: float) -> Run:
    return standing(run, lambda config: replace(config, size=int(value)))


def _samples(run: Run, value: float) -> Run:
    return standing(run, lambda config: replace(config, render=replace(config.render, samples=int(value))))


def _views(run: Run, value: float) -> Run:
    return standing(run, lambda config: replace(config, views=int(value)))


def _ball(run: Run, radius: float) -> Run:
    """Another scene: opaque within about `radius` (a share of the scene's), clear outside, grey."""
    scene = run.config.scene
    # A very high blob has a steep flank; it falls to the density at which cells count as empty at `radius`.
    empty = math.log(scene.occupancy.threshold) - scene.density_bias
    width = radius * scene.radius / radius_above(BlobConfig(height=STEEP, width=1.0), empty)
    config = replace(run.config, scene=replace(scene, blob=BlobConfig(height=STEEP, width=width)))
    ball = start(config, run.device)
    ball.step = run.step
    return standing(ball)


SETTINGS: dict[str, Callable[[Run, float], Run]] = {
    "size": _size,
    "samples": _samples,
    "views": _views,
    "occupied": _ball,
    "threads": lambda run, value: standing(run),
}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main()
