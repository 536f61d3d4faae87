"""How well the meshes of finished runs agree with their renderings, and what making them takes.

    python benchmarks/mesh_agreement.py RUNS... [--out benchmarks/results/mesh_agreement.json] [--threads 2]

Every run's mesh is made as `dreamfusion mesh RUN` makes it, but nothing is written into the run. Agreement is over 16
sides that had no part in choosing the level. Writes JSON: the medians over the runs, the numbers of each run (seconds
for all of it, the comparison included), the runs that have no surface with the reason, the machine.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from dreamfusion import generate
from dreamfusion.errors import UserError
from dreamfusion.mesh import MeshOptions, Report, make_mesh
from machine import as_json, machine, peak_memory

WANTED = {"silhouette_iou": 0.95, "albedo_psnr_db": 24.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mesh_agreement.json"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    generate.settle(arguments.threads, "cpu")
    rows, failed = {}, {}
    for path in arguments.runs:
        try:
            rows[path.name] = _row(path)
            print(path.name, rows[path.name], flush=True)
        except UserError as error:
            failed[path.name] = str(error)
            print(path.name, error, flush=True)
    device = torch.device("cpu")
    numbers = next(iter(rows.values()), {})
    result = {
        "medians": {name: median(row[name] for row in rows.values()) for name in numbers},
        "wanted": WANTED,
        "runs": rows,
        "without a surface": failed,
        "memory": peak_memory(device),
        "machine": machine(device),
    }
    arguments.out.write_text(as_json(result) + "\n", encoding="utf-8")


def _row(path: Path) -> dict[str, Any]:
    _, run = generate.open_run(path, "cpu")
    since = perf_counter()
    _, report = make_mesh(run.scene, run.recipe.show, MeshOptions(picture_size=run.config.size))
    return _numbers(report) | {"seconds": round(perf_counter() - since, 1)}


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
