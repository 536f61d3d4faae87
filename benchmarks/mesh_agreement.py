"""How well the meshes of finished runs agree with their renderings, and what making them takes.

    python benchmarks/mesh_agreement.py RUNS... [--out benchmarks/results/mesh_agreement.json] [--jobs 2]

Every run's mesh is made as `dreamfusion mesh RUN` makes it, but nothing is written into the run. Agreement is over 16
sides that had no part in choosing the level; PSNR is over whole pictures, and ("object") over the pixels of the two
silhouettes alone. Writes JSON: the medians over the runs, the numbers of each run (seconds
of one thread for all of it, the comparison included), the runs that have no surface with the reason, the machine.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from dreamfusion import generate
from dreamfusion.errors import UserError
from dreamfusion.mesh import MeshOptions, Report, make_mesh
from dreamfusion.runtime import configure_torch
from machine import as_json, machine, peak_memory

WANTED = {"silhouette_iou": 0.95, "albedo_psnr_db": 24.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mesh_agreement.json"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, with one thread each")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        found = dict(zip((path.name for path in arguments.runs), pool.map(_row, arguments.runs), strict=True))
    rows = {name: row for name, row in found.items() if isinstance(row, dict)}
    failed = {name: row for name, row in found.items() if isinstance(row, str)}
    device = torch.device("cpu")
    numbers = next(iter(rows.values()), {})
    result = {
        "medians": {name: median(row[name] for row in rows.values()) for name in numbers},
        "wanted": WANTED,
        "runs": rows,
        "without a surface": failed,
        "largest_peak_mb": max(row["peak_mb"] for row in rows.values()),
        "machine": machine(device),
    }
    arguments.out.write_text(as_json(result) + "\n", encoding="utf-8")


def _row(path: Path) -> dict[str, Any] | str:
    """The numbers of a run's mesh, or why it has none."""
    configure_torch(1, repeatable=True)
    _, run = generate.open_run(path, "cpu")
    since = perf_counter()
    try:
        _, report = make_mesh(run.scene, run.recipe.eval_render, MeshOptions(picture_size=run.config.size))
    except UserError as error:
        return str(error)
    row = _numbers(report) | {"seconds": round(perf_counter() - since, 1)}
    print(path.name, row, flush=True)
    return row | {"peak_mb": peak_memory(run.device)["process_mb"]}


def _numbers(report: Report) -> dict[str, float]:
    found = {name: round(value, 4) for name, value in asdict(report.agreement).items()}
    return found | {
        "level": round(report.level, 3),
        "faces": report.faces,
        "watertight": int(report.watertight),
        "simplification_iou": round(report.simplification_iou, 4),
    }


if __name__ == "__main__":
    main()
