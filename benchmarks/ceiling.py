"""How near the 3D half comes to a thing under a perfect prior, and under the prior that a run would have.

    PYTHONPATH=. python benchmarks/ceiling.py --assets DIR [--prompts "a taco" "a bus"] [--first 30] [--at 0.5] [--own]
        [--mesh] [-- OPTIONS]

OPTIONS are those of `dreamfusion generate`, any preset, size, field, law and number of steps; --seed says which of the
things that a prompt fits is meant. The perfect prior (`oracle.py`) answers with the true rendering of that thing's
mesh. With --own the prior of OPTIONS takes its place, and is measured in the same way. --first takes that many plain
prompts of the evaluation (nouns in the order of their hash, those that somebody tuned by left out).

Colours, silhouettes and normals are compared with the true ones over the eight evaluation views at 128 pixels, after
every share of the steps in --at and at the end; with --mesh also those of the mesh that the run would end with.
"seconds" is wall time and "processor_seconds" that of the cores, of all steps so far; "prior" what of the first is the
prior's (the perfect one renders a mesh at each step). Writes JSON, and with --pictures a PNG: what was made above the
truth.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.cli.arguments import read_generate
from dreamfusion.config import Config
from dreamfusion.config.serialise import to_json
from dreamfusion.diffusion.priors import Prior, PriorOptions, open_prior
from dreamfusion.errors import NoSurface
from dreamfusion.evaluate import evaluation_views as views
from dreamfusion.evaluate.suites import suite
from dreamfusion.lights import albedo_only
from dreamfusion.loop import Run, optimise, prompt_table, start
from dreamfusion.mesh import MeshOptions, TextureOptions, make_mesh
from dreamfusion.runtime import configure_torch
from dreamfusion.video import to_bytes, write_png
from fidelity import compared, maps_of, thing_of
from machine import as_json, machine
from oracle import Maps, Thing, meant, oracle

STUDY = ("taco", "bus", "cottage", "table", "robot", "truck", "monkey")
FACES = 10_000
"""of the mesh that a run ends with"""
SHOWN = 4
"""views of each thing in the picture"""


def main() -> None:
    """Measure, write and print the means."""
    own, options = _split(sys.argv[1:])
    arguments = _parser().parse_args(own)
    config = read_generate(["", *options]).settings
    configure_torch(arguments.threads, repeatable=True)
    prompts = arguments.prompts or suite("plain")[: arguments.first] or [f"a {noun}" for noun in STUDY]
    rows: dict[str, Any] = {}
    pictures: list[Tensor] = []
    for prompt in prompts:
        rows[prompt], pair = _measured(replace(config, prompt=prompt), arguments)
        pictures.append(pair)
        print(prompt, rows[prompt][-1], file=sys.stderr, flush=True)
        _write(arguments.out, rows, config, arguments)
    if arguments.pictures:
        write_png(to_bytes(torch.cat(pictures)), arguments.pictures)
    print(as_json(_means(rows)))


def _split(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before "--" and after it."""
    at = list(given).index("--") if "--" in given else len(given)
    return list(given[:at]), list(given[at + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True, help="folder with meshes/")
    parser.add_argument("--prompts", nargs="+", default=[])
    parser.add_argument("--first", type=int, default=0, help="plain prompts of the evaluation")
    parser.add_argument("--own", action="store_true", help="with the run's own prior")
    parser.add_argument("--at", type=float, nargs="*", default=[], help="shares of the steps")
    parser.add_argument("--mesh", action="store_true", help="measure the finished mesh too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ceiling.json"))
    parser.add_argument("--pictures", type=Path, help="PNG to write")
    return parser


def _measured(config: Config, arguments: argparse.Namespace) -> tuple[list[dict[str, float]], Float[Tensor, "h w 3"]]:
    """One run from its beginning."""
    thing = meant(config.prompt, config.seed, arguments.assets)
    prior = _prior(config, thing, arguments)
    run = start(config, torch.device("cpu"))
    points, pictures = followed(run, prior, thing, arguments.at)
    if arguments.mesh:
        found, row = _mesh(run, thing)
        points[-1] |= found
        pictures = torch.cat([pictures[: views.SIZE], row, pictures[views.SIZE :]])
    return points, pictures


def _prior(config: Config, thing: Thing, arguments: argparse.Namespace) -> Prior:
    return (
        open_prior(config.prior, PriorOptions(device=torch.device("cpu"))) if arguments.own else oracle(thing, config)
    )


def followed(
    run: Run, prior: Prior, thing: Thing, shares: Sequence[float]
) -> tuple[list[dict[str, float]], Float[Tensor, "h w 3"]]:
    """Do a run under a prior: what is measured at those shares of its steps and at the end, and the pictures then."""
    prompts, steps = prompt_table(run.config, prior), run.config.steps
    true = thing.maps(views.cameras(run.scene.radius))
    stops = {math.ceil(share * steps) for share in shares} | {steps}
    points, seconds, of_prior, processor, made = [], 0.0, 0.0, 0.0, true
    for stop in sorted(stops):
        began = time.process_time()
        for metrics in optimise(run, prior, prompts, stop):
            seconds += sum(metrics.seconds.values())
            of_prior += metrics.seconds["prior"]
        processor += time.process_time() - began
        made = maps_of(run.scene, run.recipe.eval_render)
        times = {"seconds": seconds, "prior": of_prior, "processor_seconds": processor}
        found = times | asdict(compared(made, true))
        points.append({"step": stop} | {name: round(value, 4) for name, value in found.items()})
    return points, torch.cat([_row(made), _row(true)])


def _mesh(run: Run, thing: Thing) -> tuple[dict[str, float], Float[Tensor, "h w 3"]]:
    """Of the mesh that `dreamfusion generate` would write: how near it is, and its pictures. Nothing without one."""
    output, ring = run.config.output, views.cameras(run.scene.radius)
    texture = TextureOptions(output.texture_size)
    options = MeshOptions(output.mesh_resolution, run.config.size, faces=FACES, texture=texture)
    try:
        made = thing_of(make_mesh(run.scene, run.recipe.eval_render, options)[0]).maps(ring)
    except NoSurface:
        zero = torch.zeros(len(ring), ring.height, ring.width, 3)
        made = Maps(zero, zero, zero[..., :1])
    found = asdict(compared(made, thing.maps(ring)))
    return {f"mesh_{name}": round(value, 4) for name, value in found.items()}, _row(made)


def _row(maps: Maps) -> Float[Tensor, "h w 3"]:
    """Some of the views beside each other, unlit, before the backdrop."""
    some = slice(None, None, views.VIEWS // SHOWN)
    maps = Maps(maps.albedo[some], maps.normal[some], maps.alpha[some])
    behind = torch.full((len(maps.albedo), 3), views.BACKDROP)
    return torch.cat(list(maps.shown(albedo_only(len(maps.albedo)), behind)), dim=1)


def _means(rows: dict[str, Any]) -> dict[str, float]:
    """Over the things, at the end."""
    ends = [points[-1] for points in rows.values()]
    return {name: round(statistics.mean(end[name] for end in ends), 4) for name in ends[0]}


def _write(path: Path, rows: dict[str, Any], config: Config, arguments: argparse.Namespace) -> None:
    result = {
        "prior": config.prior if arguments.own else "oracle",
        "mean": _means(rows),
        "things": rows,
        "config": to_json(config),
        "machine": machine(torch.device("cpu")),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_json(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
