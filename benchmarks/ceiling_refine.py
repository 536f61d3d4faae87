"""What the second stage gains under a perfect prior: the mesh before and after it against the truth.

    PYTHONPATH=. python benchmarks/ceiling_refine.py --assets DIR [--prompts "a bicycle" ...] [--firsts DIR]
        [--view 256] [--pictures FILE] [-- OPTIONS]

OPTIONS are those of `dreamfusion refine`. The first stage is a run of the fast preset under the perfect prior
(`oracle.py`); with --firsts its checkpoint is kept there, and found again. Meshes are compared with the thing over the
eight evaluation views at --view pixels, unlit, as a viewer without light shows them: "bare", the level set of the first
stage's density (blur 0.03, not fitted to renderings: the program's mesh before it had a second stage); "plain", the
mesh that the first stage ends with; "begun" and "refined", those with which the second begins and ends. "seconds" is
wall time of the second stage, "prior" what of it the perfect prior took, "processor_seconds" that of the cores. Writes
JSON, and with --pictures a PNG: bare, plain, refined and the thing itself.
"""

import argparse
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion import generate, refine
from dreamfusion.checkpoint import load, save
from dreamfusion.cli.arguments import Refine, read
from dreamfusion.config import RefineConfig
from dreamfusion.config.presets import preset
from dreamfusion.config.serialise import to_json
from dreamfusion.evaluate import evaluation_views as views
from dreamfusion.evaluate.evaluation_views import Views
from dreamfusion.evaluate.fidelity import compared
from dreamfusion.files import write_text
from dreamfusion.loop import Run, optimise, prompt_table, start
from dreamfusion.mesh import mesh_of
from dreamfusion.mesh.refined import taken_from
from dreamfusion.mesh.triangles import closed
from dreamfusion.runs import folder_name
from dreamfusion.runtime import configure_torch
from dreamfusion.surface import MeshScene
from dreamfusion.video import to_bytes, write_png
from machine import as_json, machine
from oracle import Thing, meant, oracle, thing_of

THINGS = ("bicycle", "chair", "cottage", "taco", "robot", "bus")
SHOWN = 4
"""views of each thing in the picture"""


def main() -> None:
    """Measure, write and print the means."""
    arguments = _parser().parse_args(sys.argv[1 : _end()])
    configure_torch(arguments.threads, repeatable=True)
    default = Refine(Path(), refine.told_by(preset("fast")))
    told = read(Refine, "refine", sys.argv[_end() + 1 :], default).settings
    rows: dict[str, Any] = {}
    pictures: list[Tensor] = []
    for prompt in arguments.prompts or [f"a {noun}" for noun in THINGS]:
        rows[prompt], picture = _measured(prompt, told, arguments)
        pictures.append(picture)
        print(prompt, rows[prompt], file=sys.stderr, flush=True)
        _write(arguments.out, rows, told)
    if arguments.pictures:
        write_png(to_bytes(torch.cat(pictures)), arguments.pictures)
    print(as_json(_means(rows)))


def _end() -> int:
    return sys.argv.index("--") if "--" in sys.argv else len(sys.argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True, help="folder with meshes/")
    parser.add_argument("--prompts", nargs="+", default=[])
    parser.add_argument("--firsts", type=Path, help="folder for the first stages")
    parser.add_argument("--view", type=int, default=256, help="pixels of the pictures that are compared")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ceiling_refine.json"))
    parser.add_argument("--pictures", type=Path, help="PNG to write")
    return parser


def _measured(prompt: str, told: RefineConfig, arguments: argparse.Namespace) -> tuple[dict[str, Any], Tensor]:
    """One thing: figures by mesh, and pictures."""
    config = replace(preset("fast"), prompt=prompt)
    thing = meant(prompt, config.seed, arguments.assets)
    first = _first(thing, prompt, arguments.firsts)
    look = first.recipe.eval_render
    ring = views.cameras(first.scene.radius, arguments.view)
    options = generate.own_mesh_options(first.config)
    bare = mesh_of(first.scene, look, replace(options, blur=0.03, fit=False)).mesh
    plain = mesh_of(first.scene, look, options).mesh
    begun, clock = time.perf_counter(), time.process_time()
    mesh = refine.first_mesh(first, told)
    run = refine.second_run(first, told, mesh)
    prior = oracle(thing, run.config)
    of_prior = sum(
        metrics.seconds["prior"] for metrics in optimise(run, prior, prompt_table(run.config, prior), told.steps)
    )
    assert isinstance(run.scene, MeshScene)
    refined = taken_from(run.scene)
    times = {"seconds": time.perf_counter() - begun, "processor_seconds": time.process_time() - clock}
    true = thing.views(ring)
    meshes = {"bare": bare, "plain": plain, "begun": mesh, "refined": refined}
    seen = {name: thing_of(each).views(ring) for name, each in meshes.items()}
    figures = {name: _rounded(asdict(compared(made, true))) for name, made in seen.items()}
    row = figures | _rounded(times | {"prior": of_prior}) | {"faces": len(refined.faces), "watertight": closed(refined)}
    return row, torch.cat([_row(each) for each in (seen["bare"], seen["plain"], seen["refined"], true)])


def _first(thing: Thing, prompt: str, folder: Path | None) -> Run:
    """The first stage, at its end."""
    place = folder and folder / folder_name(prompt, 0)
    if place and place.exists():
        return load(place, torch.device("cpu"))
    run = start(replace(preset("fast"), prompt=prompt), torch.device("cpu"))
    prior = oracle(thing, run.config)
    for _ in optimise(run, prior, prompt_table(run.config, prior), run.config.steps):
        pass
    if place:
        save(run, place)
    return run


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def _row(seen: Views) -> Float[Tensor, "h w 3"]:
    """Some of the views beside each other, unlit."""
    return torch.cat(list(seen.pictures[0, :: views.VIEWS // SHOWN]), dim=1)


def _means(rows: dict[str, Any]) -> dict[str, Any]:
    """Over the things."""
    first = next(iter(rows.values()))
    return {
        name: _means({prompt: row[name] for prompt, row in rows.items()})
        if isinstance(value, dict)
        else round(statistics.mean(row[name] for row in rows.values()), 3)
        for name, value in first.items()
    }


def _write(path: Path, rows: dict[str, Any], told: RefineConfig) -> None:
    result = {"mean": _means(rows), "things": rows, "told": to_json(told), "machine": machine(torch.device("cpu"))}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_json(result) + "\n")


if __name__ == "__main__":
    main()
