"""Raw data of the contrastive model: buffers of a few views of every mesh, from cameras of its own.

The object's ball just fills each view; pictures show it smaller, elsewhere and tilted. One file per mesh, so that an
interrupted rendering goes on where it stopped. The last views of a mesh, of a seed of their own, are for measuring.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Generator

from dreamfusion.cameras import Cameras
from dreamfusion.files import replacing
from dreamfusion.geometry import look_at, spherical
from training.mesh_views import Views, joined, open_file, views_of
from training.meshes import BALL, MeshRenderer, load
from training.nouns import Assets, Noun, names
from training.prior.data import side
from training.views import BUFFERS, buffers, on_all_cores

SIZE = 64
"""pixels per side"""
FOV_DEG, ELEVATION_DEG, LOW = (20.0, 60.0), (-10.0, 80.0), 1.5
"""`LOW`: exponent that makes low elevations likelier than high ones; 1 is uniform"""
MARGIN = 1.03
"""the view against the ball that it shows"""
SIDES = ("front", "left", "back", "right", "overhead")
NO_SIDE = -1
"""where a mesh has no front"""
KEPT_SEED = 500_000


@dataclass(frozen=True)
class Counts:
    """How many views of a mesh are rendered."""

    learned: int = 10
    unseen: int = 2
    """for measuring: nothing learns from them"""


COUNTS = Counts()


def cameras(count: int, generator: Generator) -> Cameras:
    """One camera in each of `count` equal sectors of azimuth, at any elevation and field of view of the ranges."""
    u = torch.rand(3, count, generator=generator)
    azimuth = (torch.arange(count) + u[0]) * (2 * math.pi / count)
    elevation = (ELEVATION_DEG[0] + (ELEVATION_DEG[1] - ELEVATION_DEG[0]) * u[1] ** LOW).deg2rad()
    fov = (FOV_DEG[0] * (FOV_DEG[1] / FOV_DEG[0]) ** u[2]).deg2rad()
    eye = spherical(azimuth, elevation, MARGIN * BALL / (0.5 * fov).sin())
    up = torch.tensor([[0.0, 1.0, 0.0]]).expand(count, -1)
    return Cameras(look_at(eye, torch.zeros(count, 3), up), fov, SIZE, SIZE)


def cameras_of(mesh: int, counts: Counts, seed: int) -> Cameras:
    """All cameras of a mesh by its row: those to learn from, then the others."""
    parts = [
        cameras(count, Generator().manual_seed(first + mesh))
        for count, first in ((counts.learned, seed), (counts.unseen, seed + KEPT_SEED))
    ]
    return Cameras(torch.cat([p.pose for p in parts]), torch.cat([p.fov_y for p in parts]), SIZE, SIZE)


def render_all(assets: Assets, work: Path, counts: Counts, seed: int, report: Callable[[str], None]) -> None:
    """Render what is not there yet of every mesh of the manifest into the folder `work`, on all cores.

    Raises UserError if a mesh is missing, before anything is rendered.
    """
    assets.require(assets.table)
    work.mkdir(parents=True, exist_ok=True)
    jobs = [
        (assets.file(row), row.yaw_deg, mesh, counts, seed, _file(work, mesh))
        for mesh, row in enumerate(assets.table)
        if not _file(work, mesh).exists()
    ]
    on_all_cores(_render, jobs, lambda path: report(f"rendered {path.name} of {len(assets.table)}"))


def _render(file: Path, yaw_deg: float, mesh: int, counts: Counts, seed: int, path: Path) -> Path:
    torch.set_num_threads(1)
    seen = buffers(MeshRenderer(load(file, yaw_deg)), cameras_of(mesh, counts, seed))
    maps = [seen[name] if seen[name].ndim == 4 else seen[name][..., None] for name in BUFFERS]
    with replacing(path) as part, part.open("wb") as stream:
        np.save(stream, np.concatenate(maps, axis=-1).transpose(0, 3, 1, 2))
    return path


def open_views(work: Path, table: Sequence[Noun], counts: Counts, seed: int) -> tuple[Views, Views]:
    """What `render_all` wrote: the views to learn from, and those for measuring. Raises UserError if one is damaged."""
    known, files, parts = names(table), list[np.ndarray](), list[Views]()
    for mesh, row in enumerate(table):
        files.append(open_file(_file(work, mesh), counts.learned + counts.unseen, SIZE))
        eye = torch.nn.functional.normalize(cameras_of(mesh, counts, seed).position, dim=-1)
        sides = [SIDES.index(side(one)) if row.front else NO_SIDE for one in eye]
        parts.append(views_of(mesh, known.index(row.noun), sides, eye, files))
    views = joined(parts)
    return views[views.place < counts.learned], views[views.place >= counts.learned]


def _file(work: Path, mesh: int) -> Path:
    return work / f"{mesh:03d}.npy"
