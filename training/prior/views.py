"""Buffers of many views of the meshes that the embedded prior learns from: rendered once, kept on disk."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from dreamfusion import json_text
from dreamfusion.cameras import Cameras, orbit
from dreamfusion.embedded.world import DISTANCE, ELEVATION_DEG, FOV_DEG, SIZE
from dreamfusion.errors import UserError, damage_explained
from training.meshes import MeshRenderer, load
from training.nouns import Assets, Noun, learned, shares
from training.views import buffers, on_all_cores

LEAST_VIEWS = 200
"""of one mesh, however many its noun has: with fewer, what lies between them is drawn worse"""
PLAN = "plan.json"
COLUMNS = {
    "mesh": ("int64", ()), "pose": ("float32", (4, 4)), "paint": ("uint8", (SIZE, SIZE, 3)),
    "rest": ("uint8", (SIZE, SIZE, 3)), "normal": ("uint8", (SIZE, SIZE, 3)), "alpha": ("uint8", (SIZE, SIZE)),
}  # fmt: skip


@dataclass(frozen=True)
class Views:
    """Buffers of n views. Colours are multiplied by coverage; `paint` has the main colour, which can change."""

    mesh: Int[Tensor, " n"]  # index into `learned` of the manifest
    pose: Float[Tensor, "n 4 4"]
    paint: UInt8[Tensor, "n h w 3"]
    rest: UInt8[Tensor, "n h w 3"]
    normal: UInt8[Tensor, "n h w 3"]
    alpha: UInt8[Tensor, "n h w"]


def build(assets: Assets, folder: Path, views: int, seed: int, report: Callable[[str], None]) -> None:
    """Render random views of the meshes into `folder`, on all cores: of every noun `views`, of every mesh at least
    `LEAST_VIEWS`.

    One array a file, 41 kB a view. Until all is there the folder is called `.partial`; the same call then goes on.
    Raises UserError if a mesh is missing, before anything is rendered.
    """
    table = learned(assets.table)
    assets.require(table)
    counts = shares(table, views, min(views, LEAST_VIEWS))
    ends = np.cumsum(counts)
    partial = folder.with_name(f"{folder.name}.partial")
    arrays = _begun(partial, int(ends[-1]), json.dumps({"seed": seed, "counts": counts, "meshes": _drawn(table)}))
    rows = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
    jobs = [
        (index, assets.file(row), row.yaw_deg, counts[index], seed + index)
        for index, row in enumerate(table)
        if (arrays["mesh"][rows[index]] < 0).any()
    ]

    def keep(rendered: tuple[int, dict[str, np.ndarray]]) -> None:
        index, part = rendered
        for key, values in part.items():
            arrays[key][rows[index]] = values
        arrays["mesh"][rows[index]] = index  # last: from now on these rows count as rendered
        report(f"rendered {table[index].file} ({index + 1}/{len(table)})")

    on_all_cores(_views, jobs, keep)
    for array in arrays.values():
        array.flush()
    partial.replace(folder)


def _begun(folder: Path, count: int, plan: str) -> dict[str, np.memmap]:
    """The arrays of a rendering that goes on, or of a new one, where `mesh` is -1."""
    fresh = not (folder / PLAN).exists() or (folder / PLAN).read_bytes() != plan.encode()
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    arrays = {
        key: np.lib.format.open_memmap(folder / f"{key}.npy", "w+" if fresh else "r+", kind, (count, *shape))
        for key, (kind, shape) in COLUMNS.items()
    }
    if fresh:
        arrays["mesh"][:] = -1
        (folder / PLAN).write_text(plan)
    return arrays


def _drawn(table: Sequence[Noun]) -> list[list[str | float]]:
    """What the numbers in `Views.mesh` stand for."""
    return [[row.noun, row.file, row.yaw_deg] for row in table]


def open_views(folder: Path, table: Sequence[Noun]) -> Views:
    """Map what `build` wrote into memory; only what is looked at is read.

    Raises UserError if the manifest has changed since.
    """
    with damage_explained(folder, "train in a new --work folder"):
        if json_text.read(folder / PLAN)["meshes"] != _drawn(learned(table)):
            raise UserError(f"{folder} was rendered for another table of nouns; train in a new --work folder")
        # "c": nothing is written, but torch wants arrays that could be
        return Views(**{key: torch.from_numpy(np.load(folder / f"{key}.npy", mmap_mode="c")) for key in COLUMNS})


def random_cameras(count: int, generator: Generator) -> Cameras:
    """The world of the prior: distance 3, field of view 40 deg, elevation -10 to 75 deg, any azimuth."""
    low, high = (np.deg2rad(v) for v in ELEVATION_DEG)
    azimuth = torch.rand(count, generator=generator) * 2 * torch.pi
    elevation = low + (high - low) * torch.rand(count, generator=generator)
    distance, fov = torch.full((count,), DISTANCE), torch.full((count,), float(np.deg2rad(FOV_DEG)))
    return orbit(azimuth, elevation, distance, fov, SIZE)


def _views(index: int, file: Path, yaw_deg: float, count: int, seed: int) -> tuple[int, dict[str, np.ndarray]]:
    torch.set_num_threads(1)
    cameras = random_cameras(count, torch.Generator().manual_seed(seed))
    return index, {"pose": cameras.pose.numpy(), **buffers(MeshRenderer(load(file, yaw_deg)), cameras)}
