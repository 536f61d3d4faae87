"""How near the 3D half comes to a thing under a perfect prior, and under the prior that a run would have.

    PYTHONPATH=. python benchmarks/ceiling.py --assets DIR [--prompts "a taco" "a bus"] [--suite plain] [--first 30]
        [--at 0.5] [--own] [--mesh] [--pixels 128] [--folder DIR] [-- OPTIONS]

OPTIONS are those of `dreamfusion generate`, any preset, size, field, law and number of steps; --seed says which of the
things that a prompt fits is meant. The perfect prior (`oracle.py`) answers with the true rendering of that thing's
mesh. With --own the prior of OPTIONS takes its place, and is measured in the same way. --suite takes the prompts of
the evaluation, or --first of them (nouns in the order of their hash, those that somebody tuned by left out).

Colours, silhouettes and normals are compared with the true ones over the eight evaluation views at 128 pixels, or at
--pixels, after every share of the steps in --at and at the end; with --mesh also those of the mesh that the run would
end with. "seconds" is wall time and "processor_seconds" that of the cores, of all steps so far; "prior" what of the
first is the prior's (the perfect one renders a mesh at each step); "megabytes" is the most main memory that the
process has held so far, libraries and truth included; "numbers" counts the parameters of the scene. Writes JSON,
and with --pictures a PNG: what was made above the truth.

With --folder all of it goes there, the truth and what was made as pictures of their own, which
`dreamfusion evaluate --truth DIR` shows and measures results by (`dreamfusion.evaluate.truth`); prompts that are there
already are not run again. src/dreamfusion/evaluate/truth was written by

    PYTHONPATH=. python benchmarks/ceiling.py --assets DIR --suite all --folder src/dreamfusion/evaluate/truth
"""

import argparse
import math
import resource
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
from dreamfusion.evaluate.evaluation_views import Views
from dreamfusion.evaluate.fidelity import compared, nothing_like
from dreamfusion.evaluate.suites import SUITES, pool, suite
from dreamfusion.evaluate.truth import FIGURES, save_thing
from dreamfusion.files import read_json, write_text
from dreamfusion.loop import Run, optimise, prompt_table, start
from dreamfusion.mesh import MeshOptions, TextureOptions, make_mesh
from dreamfusion.runtime import configure_torch
from dreamfusion.video import to_bytes, write_png
from machine import as_json, machine
from oracle import Thing, meant, oracle, thing_of

STUDY = ("taco", "bus", "cottage", "table", "robot", "truck", "monkey")
FACES = 10_000
"""of the mesh that a run ends with"""
SHOWN = 4
"""views of each thing in the picture"""


def main() -> None:
    """Measure, write and print the means."""
    own, options = _split(sys.argv[1:])
    parser = _parser()
    arguments = parser.parse_args(own)
    if arguments.folder and arguments.pixels != views.SIZE:
        parser.error(f"a --folder holds views of {views.SIZE} pixels: leave out --pixels")
    config = read_generate(["", *options]).settings
    configure_torch(arguments.threads, repeatable=True)
    rows = _there(arguments, config)
    pictures: list[Tensor] = []
    for prompt in _prompts(arguments):
        if prompt in rows:
            continue
        rows[prompt], pair = _measured(replace(config, prompt=prompt), arguments)
        pictures.append(pair)
        print(prompt, rows[prompt][-1], file=sys.stderr, flush=True)
        _write(arguments, rows, config)
    if arguments.pictures:
        write_png(to_bytes(torch.cat(pictures)), arguments.pictures)
    print(as_json(_means(rows)))


def _prompts(arguments: argparse.Namespace) -> list[str]:
    if arguments.prompts:
        return arguments.prompts
    if not arguments.suite:
        return [f"a {noun}" for noun in STUDY]
    return (pool() if arguments.suite == "all" else suite(arguments.suite))[: arguments.first]


def _there(arguments: argparse.Namespace, config: Config) -> dict[str, Any]:
    """What is measured already, by prompt."""
    path = arguments.folder and arguments.folder / FIGURES
    if not path or not path.exists():
        return {}
    found = read_json(path)
    if (found["prior"], found["config"]) != (_prior_name(arguments, config), to_json(config)):
        raise SystemExit(f"{path} holds results of another prior or other OPTIONS: choose another --folder")
    return found["things"]


def _split(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before "--" and after it."""
    at = list(given).index("--") if "--" in given else len(given)
    return list(given[:at]), list(given[at + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True, help="folder with meshes/")
    parser.add_argument("--prompts", nargs="+", default=[])
    parser.add_argument("--suite", choices=("all", *SUITES), help="the prompts of the evaluation")
    parser.add_argument("--first", type=int, help="of its prompts")
    parser.add_argument("--own", action="store_true", help="with the run's own prior")
    parser.add_argument("--at", type=float, nargs="*", default=[], help="shares of the steps")
    parser.add_argument("--mesh", action="store_true", help="measure the finished mesh too")
    parser.add_argument("--pixels", type=int, default=views.SIZE, help="per side, of the views that are compared")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ceiling.json"))
    parser.add_argument("--pictures", type=Path, help="PNG to write")
    parser.add_argument("--folder", type=Path, help="folder for everything")
    return parser


def _measured(config: Config, arguments: argparse.Namespace) -> tuple[list[dict[str, float]], Float[Tensor, "h w 3"]]:
    """One run from its beginning."""
    thing = meant(config.prompt, config.seed, arguments.assets)
    prior = _prior(config, thing, arguments)
    run = start(config, torch.device("cpu"))
    true = thing.views(views.cameras(run.scene.radius, arguments.pixels))
    points, made = followed(run, prior, true, arguments.at)
    rows = [_row(made), _row(true)]
    if arguments.mesh:
        found, row = _mesh(run, true)
        points[-1] |= found
        rows.insert(1, row)
    if arguments.folder:
        save_thing(arguments.folder, config, true, made)
    return points, torch.cat(rows)


def _prior(config: Config, thing: Thing, arguments: argparse.Namespace) -> Prior:
    return (
        open_prior(config.prior, PriorOptions(device=torch.device("cpu"))) if arguments.own else oracle(thing, config)
    )


def _prior_name(arguments: argparse.Namespace, config: Config) -> str:
    return config.prior if arguments.own else "oracle"


def followed(run: Run, prior: Prior, true: Views, shares: Sequence[float]) -> tuple[list[dict[str, float]], Views]:
    """Do a run under a prior: what is measured at those shares of its steps and at the end, and how it looks then."""
    prompts, steps = prompt_table(run.config, prior), run.config.steps
    stops = {math.ceil(share * steps) for share in shares} | {steps}
    points, seconds, of_prior, processor, made = [], 0.0, 0.0, 0.0, true
    for stop in sorted(stops):
        began = time.process_time()
        for metrics in optimise(run, prior, prompts, stop):
            seconds += sum(metrics.seconds.values())
            of_prior += metrics.seconds["prior"]
        processor += time.process_time() - began
        cost = {
            "seconds": seconds,
            "prior": of_prior,
            "processor_seconds": processor,
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            "numbers": sum(parameter.numel() for parameter in run.scene.parameters()),
        }
        made = views.evaluation_views(run.scene, run.recipe.eval_render, true.opacity.shape[-1])
        found = cost | asdict(compared(made, true))
        points.append({"step": stop} | {name: round(value, 4) for name, value in found.items()})
    return points, made


def _mesh(run: Run, true: Views) -> tuple[dict[str, float], Float[Tensor, "h w 3"]]:
    """Of the mesh that `dreamfusion generate` would write: how near it is, and its pictures. Nothing without one."""
    output = run.config.output
    texture = TextureOptions(output.texture_size)
    options = MeshOptions(output.mesh_resolution, run.config.size, faces=FACES, texture=texture)
    try:
        mesh = make_mesh(run.scene, run.recipe.eval_render, options)[0]
        made = thing_of(mesh).views(views.cameras(run.scene.radius, true.opacity.shape[-1]))
    except NoSurface:
        made = nothing_like(true)
    found = asdict(compared(made, true))
    return {f"mesh_{name}": round(value, 4) for name, value in found.items()}, _row(made)


def _row(seen: Views) -> Float[Tensor, "h w 3"]:
    """Some of the views beside each other, unlit."""
    return torch.cat(list(seen.pictures[0, :: views.VIEWS // SHOWN]), dim=1)


def _means(rows: dict[str, Any]) -> dict[str, float]:
    """Over the things, at the end."""
    ends = [points[-1] for points in rows.values()]
    return {name: round(statistics.mean(end[name] for end in ends), 4) for name in ends[0]}


def _write(arguments: argparse.Namespace, rows: dict[str, Any], config: Config) -> None:
    result = {
        "prior": _prior_name(arguments, config),
        "mean": _means(rows),
        "things": rows,
        "config": to_json(config),
        "machine": machine(torch.device("cpu")),
    }
    path = arguments.folder / FIGURES if arguments.folder else arguments.out
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_json(result) + "\n")


if __name__ == "__main__":
    main()
