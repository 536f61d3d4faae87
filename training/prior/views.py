"""Buffers of 840 views of every mesh that the prior learns from, rendered once and kept compactly.

Only cells of 2 x 2 pixels within one cell of the silhouette are kept, as bytes: everywhere else all maps are zero.
15 MB a mesh. The last 40 views of a mesh are for measuring: nothing learns from them. The same call goes on where it
was stopped, mesh by mesh.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras, orbit
from dreamfusion.embedded.tables import CELL, MAPS
from dreamfusion.embedded.world import DISTANCE, ELEVATION_DEG, FOV_DEG, SIZE
from dreamfusion.errors import UserError, damage_explained
from dreamfusion.files import read_json, replacing
from dreamfusion.nerf.rays import cast
from training.meshes import Buffers, MeshRenderer, load
from training.nouns import Assets, learned
from training.views import SUPERSAMPLE, on_all_cores

LEARNED, UNSEEN = 800, 40
CELLS = SIZE // CELL
NUMBERS = sum(MAPS)
"""of a pixel"""
KIND = np.dtype([("view", "u2"), ("place", "u2"), ("maps", "u1", (CELL * CELL * NUMBERS,))])
SEED = 1_000_000
"""plus the row of the mesh: of its cameras"""
FOLDER, PLAN = "views", "plan.json"


@dataclass(frozen=True)
class MeshViews:
    """All views of one mesh, sorted by view; the arrays are mapped, not read."""

    cells: np.ndarray
    """of `KIND`: the view, the cell (row * CELLS + column) and its bytes, "row column map" """
    first: NDArray[np.int64]
    """of each view, and the end: "views+1" """

    def of(self, views: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """For each cell of the views: which of `views` it is in, its place, its bytes "n 40"."""
        parts = [self.cells[self.first[view] : self.first[view + 1]] for view in views]
        which = np.repeat(np.arange(len(views)), [len(part) for part in parts])
        cells = np.concatenate(parts)
        return which, cells["place"].astype(np.int64), cells["maps"]


def random_cameras(count: int, generator: Generator) -> Cameras:
    """The world of the prior: distance 3, field of view 40 deg, elevation -10 to 75 deg, any azimuth."""
    low, high = (math.radians(degrees) for degrees in ELEVATION_DEG)
    azimuth = torch.rand(count, generator=generator) * 2 * torch.pi
    elevation = low + (high - low) * torch.rand(count, generator=generator)
    distance, fov = torch.full((count,), DISTANCE), torch.full((count,), math.radians(FOV_DEG))
    return orbit(azimuth, elevation, distance, fov, SIZE)


def cameras_of(mesh: int) -> Cameras:
    """The 840 cameras of a mesh by its row; the last 40 are for measuring."""
    return random_cameras(LEARNED + UNSEEN, Generator().manual_seed(SEED + mesh))


def build(assets: Assets, work: Path, report: Callable[[str], None]) -> None:
    """Render, on all cores, those of the meshes that are not there yet.

    Raises UserError if a mesh is missing, before anything is rendered, and if the folder is of another manifest.
    """
    table = learned(assets.table)
    assets.require(table)
    folder = work / FOLDER
    _require_plan(folder, [[row.file, row.yaw_deg] for row in table])
    jobs = [
        (assets.file(row), row.yaw_deg, mesh, file_of(work, mesh))
        for mesh, row in enumerate(table)
        if not file_of(work, mesh).exists()
    ]
    count = len(table) - len(jobs)

    def done(mesh: int) -> None:
        nonlocal count
        count += 1
        report(f"rendered {table[mesh].file} ({count}/{len(table)})")

    on_all_cores(_build_one, jobs, done)


def _require_plan(folder: Path, plan: list[list[str | float]]) -> None:
    """Write down what is rendered, or compare it."""
    file = folder / PLAN
    if file.exists():
        if read_json(file) != plan:
            raise UserError(f"{folder} holds views of another manifest: give another --work, or delete it")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        partial.write_text(json.dumps(plan), encoding="utf-8")


def _build_one(path: Path, yaw_deg: float, mesh: int, file: Path) -> int:
    torch.set_num_threads(1)
    cells = rendered(MeshRenderer(load(path, yaw_deg)), cameras_of(mesh))
    with replacing(file) as partial, partial.open("wb") as stream:
        np.save(stream, cells)
    return mesh


def file_of(work: Path, mesh: int) -> Path:
    return work / FOLDER / f"{mesh:03d}.npy"


def open_mesh(work: Path, mesh: int) -> MeshViews:
    """Map what `build` wrote of a mesh. Raises UserError if it is damaged."""
    with damage_explained(file_of(work, mesh), "delete it: it is rendered again"):
        cells = np.load(file_of(work, mesh), mmap_mode="r")
        if cells.dtype != KIND:
            raise ValueError("it holds something else")
        return MeshViews(cells, np.searchsorted(cells["view"], np.arange(LEARNED + UNSEEN + 1)))


def rendered(renderer: MeshRenderer, cameras: Cameras) -> np.ndarray:
    """The cells near the mesh in all views, of `KIND`."""
    views = []
    for view in range(len(cameras)):
        rays = cast(cameras[view : view + 1].resized(SIZE * SUPERSAMPLE))
        origin, direction = rays.origin.double().numpy(), rays.direction.double().numpy()
        maps = in_cells(renderer.buffers(origin, direction, SIZE, SUPERSAMPLE))
        near = np.flatnonzero(_dilated(np.any(maps[..., NUMBERS - 1 :: NUMBERS], axis=-1)))
        cells = np.empty(len(near), KIND)
        cells["view"], cells["place"], cells["maps"] = view, near, maps.reshape(CELLS**2, -1)[near]
        views.append(cells)
    return np.concatenate(views)


def in_cells(buffers: Buffers) -> NDArray[np.uint8]:
    """Bytes "rows columns 40" of the cells, each as "row column map"."""
    maps = np.concatenate([buffers.paint, buffers.rest, buffers.normal, buffers.alpha[..., None]], axis=-1)
    return maps.reshape(CELLS, CELL, CELLS, CELL, NUMBERS).swapaxes(1, 2).reshape(CELLS, CELLS, -1)


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and all neighbours, diagonal ones too."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def premultiplied(maps: UInt8[Tensor, "n 40"]) -> Float[Tensor, "n 4 10"]:
    """Paint, rest, normal and coverage of the pixels of cells; all are multiplied by the coverage."""
    pixels = maps.unflatten(1, (CELL * CELL, NUMBERS)).float()
    alpha = pixels[..., 9:] / 255
    return torch.cat([pixels[..., :6] / 255, (pixels[..., 6:9] / 127 - 1) * alpha, alpha], dim=-1)
