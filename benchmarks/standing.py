"""How many meshes of finished runs stand, before and after --stand, and how thin they are before and after --printable.

    python benchmarks/standing.py RUNS... [--wall-mm 2] [--height-mm 100] [--out benchmarks/results/standing.json]

Every run's surface is made as `dreamfusion mesh RUN` makes it, without colours; nothing is written into the run.
Both changes begin from that surface. Writes JSON: the figures of each run, and their sums.
"""

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from dreamfusion import generate
from dreamfusion.mesh import Mesh, MeshOptions, density_grid, simplified, solid, surface, thickened, with_flat_base
from dreamfusion.mesh.agreement import sides, views_of
from dreamfusion.mesh.level import COARSE, best_level, level_curve
from dreamfusion.mesh.reshape import changed
from dreamfusion.runtime import configure_torch
from machine import as_json, machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--wall-mm", type=float, default=2.0)
    parser.add_argument("--height-mm", type=float, default=100.0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/standing.json"))
    arguments = parser.parse_args()
    configure_torch(1, repeatable=True)
    rows = {path.name: _row(path, arguments.wall_mm, arguments.height_mm) for path in arguments.runs}
    result = {
        "runs": len(rows),
        "stand": sum(row["stands"] for row in rows.values()),
        "stand with --stand": sum(row["stands with a base"] for row in rows.values()),
        "median of the volume that --stand changes": median(row["changed by the base"] for row in rows.values()),
        "thinner than the wall": sum(row["thinnest_mm"] < arguments.wall_mm for row in rows.values()),
        "thinner with --printable": sum(row["thinnest_mm printable"] < arguments.wall_mm for row in rows.values()),
        "wall_mm": arguments.wall_mm,
        "height_mm": arguments.height_mm,
        "each": rows,
        "machine": machine(torch.device("cpu")),
    }
    arguments.out.write_text(as_json(result) + "\n", encoding="utf-8")


def _row(path: Path, wall_mm: float, height_mm: float) -> dict[str, Any]:
    _, run = generate.open_run(path, "cpu")
    mesh = _surface(run)
    unit = height_mm / float(np.ptp(mesh.vertices[:, 1]))
    plain, based, thick = mesh, with_flat_base(mesh), simplified(thickened(mesh, wall_mm / unit), 20_000)
    before, stood, printed = (solid(each, height_mm) for each in (plain, based, thick))
    row = {
        "stands": before.stands,
        "tip_angle_deg": before.tip_angle_deg,
        "stands with a base": stood.stands,
        "tip_angle_deg with a base": stood.tip_angle_deg,
        "changed by the base": changed(plain, based),
        "thinnest_mm": before.thinnest_mm,
        "thinnest_mm printable": printed.thinnest_mm,
        "changed by --printable": changed(plain, thick),
        "pieces": before.pieces,
        "pieces printable": printed.pieces,
        "volume_cm3": before.volume_cm3,
        "overhang_cm2": before.overhang_cm2,
    }
    row = {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
    print(path.name, row, flush=True)
    return row


def _surface(run: Any) -> Mesh:
    """The surface of `make_mesh`."""
    scene, options = run.scene, MeshOptions(picture_size=run.config.size)
    views = views_of(scene, sides(scene, options.picture_size), run.recipe.eval_render)
    level = best_level(level_curve(density_grid(scene, COARSE, options.blur), views, scene.radius))
    return simplified(surface(density_grid(scene, options.resolution, options.blur), level), options.faces)


if __name__ == "__main__":
    main()
