"""Buffers of 840 views of every mesh that the prior learns from, kept compactly: what `tables.network` trains on.

`tables.train` makes them before it learns; `python -m training.tables.views --assets DIR --work DIR` makes them
alone. Only cells of 2 x 2 pixels within one cell of the silhouette are kept, as bytes: everywhere else all maps are
zero. 15 MB a mesh. The meshes are those of `learned(nouns())`, so that what is held out from the prior stays held out.
The last 40 views of a mesh are for measuring: nothing learns from them. Mesh by mesh, on one core; the same call goes
on where it was stopped.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.embedded.world import SIZE
from dreamfusion.nerf.rays import cast
from training.meshes import Buffers, MeshRenderer, load
from training.nouns import Noun, learned, nouns
from training.prior.views import random_cameras
from training.views import SUPERSAMPLE

LEARNED, UNSEEN = 800, 40
CELL = 2
"""pixels per side"""
CELLS = SIZE // CELL
MAPS = 10
"""numbers a pixel: paint 3, rest 3, normal 3, coverage"""
KIND = np.dtype([("view", "u2"), ("place", "u2"), ("maps", "u1", (CELL * CELL * MAPS,))])
SEED = 1_000_000
"""plus the mesh's index: of the cameras; far from the seeds of `dreamfusion prior train`"""


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


def cameras_of(mesh: int) -> Cameras:
    """The 840 cameras of a mesh by its index in `learned(nouns())`; the last 40 are for measuring."""
    return random_cameras(LEARNED + UNSEEN, torch.Generator().manual_seed(SEED + mesh))


def order(table: Sequence[Noun]) -> list[int]:
    """Indices of the rows, the first mesh of every noun before the second of any."""
    rows = [row.noun for row in table]
    return sorted(range(len(rows)), key=lambda index: (rows[:index].count(rows[index]), index))


def file_of(work: Path, mesh: int) -> Path:
    return work / "views" / f"{mesh:03d}.npy"


def open_mesh(work: Path, mesh: int) -> MeshViews:
    """Map what `build` wrote of a mesh."""
    cells = np.load(file_of(work, mesh), mmap_mode="r")
    return MeshViews(cells, np.searchsorted(cells["view"], np.arange(LEARNED + UNSEEN + 1)))


def build(assets: Path, work: Path, meshes: Sequence[int]) -> None:
    """Render those of the meshes that are not there yet."""
    table = learned(nouns())
    (work / "views").mkdir(parents=True, exist_ok=True)
    for count, mesh in enumerate(meshes, 1):
        if not (file := file_of(work, mesh)).exists():
            renderer = MeshRenderer(load(assets / "meshes" / table[mesh].file, table[mesh].yaw_deg))
            partial = file.with_suffix(".partial")
            with partial.open("wb") as stream:
                np.save(stream, rendered(renderer, cameras_of(mesh)))
            partial.replace(file)
            print(f"rendered {table[mesh].file} ({count}/{len(meshes)})", flush=True)


def rendered(renderer: MeshRenderer, cameras: Cameras) -> np.ndarray:
    """The cells near the mesh in all views, of `KIND`."""
    views = []
    for view in range(len(cameras)):
        rays = cast(cameras[view : view + 1].resized(SIZE * SUPERSAMPLE))
        origin, direction = rays.origin.double().numpy(), rays.direction.double().numpy()
        maps = in_cells(renderer.buffers(origin, direction, SIZE, SUPERSAMPLE))
        near = np.flatnonzero(_dilated(np.any(maps[..., MAPS - 1 :: MAPS], axis=-1)))
        cells = np.empty(len(near), KIND)
        cells["view"], cells["place"], cells["maps"] = view, near, maps.reshape(CELLS**2, -1)[near]
        views.append(cells)
    return np.concatenate(views)


def in_cells(buffers: Buffers) -> NDArray[np.uint8]:
    """Bytes "rows columns 40" of the cells, each as "row column map"."""
    maps = np.concatenate([buffers.paint, buffers.rest, buffers.normal, buffers.alpha[..., None]], axis=-1)
    return maps.reshape(CELLS, CELL, CELLS, CELL, MAPS).swapaxes(1, 2).reshape(CELLS, CELLS, -1)


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and all neighbours, diagonal ones too."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def premultiplied(maps: UInt8[Tensor, "n 40"]) -> Float[Tensor, "n 4 10"]:
    """Paint, rest, normal and coverage of the pixels of cells; all are multiplied by the coverage."""
    pixels = maps.unflatten(1, (CELL * CELL, MAPS)).float()
    alpha = pixels[..., 9:] / 255
    return torch.cat([pixels[..., :6] / 255, (pixels[..., 6:9] / 127 - 1) * alpha, alpha], dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True, help="folder with meshes/")
    parser.add_argument("--work", type=Path, required=True, help="views/ is made there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    build(given.assets, given.work, order(learned(nouns())))


if __name__ == "__main__":
    main()
