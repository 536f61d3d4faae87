"""The judge's raw data: buffers of many views of every mesh, from cameras of its own.

One file per mesh, so that an interrupted rendering goes on where it stopped. The views that the judge may learn from
come first; those after them are kept from it: views of their own seed, and all views of the meshes that the table of
nouns keeps from it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.errors import damage_explained
from dreamfusion.evaluate.judge.network import SIZE
from dreamfusion.evaluate.judge.sides import SIDES
from dreamfusion.files import replacing
from dreamfusion.geometry import look_at, spherical
from training.meshes import MeshRenderer, load
from training.nouns import Assets, Noun, names
from training.prior.data import side as seen_from
from training.views import BUFFERS, buffers, on_all_cores

FOV_DEG, ELEVATION_DEG = (30.0, 60.0), (-15.0, 80.0)
FILL = (0.95, 1.4)
"""radius of the ball that would just fill the picture"""
STRETCH = 0.15
"""standard deviation of the logarithm by which each axis of an object is stretched in views to learn from"""
LOOK_AT_JITTER = 0.06


@dataclass(frozen=True)
class Counts:
    """How many views of a mesh are rendered."""

    of_noun: int = 160
    """to learn from, shared by the meshes of a noun"""
    at_least: int = 40
    """to learn from, of each mesh"""
    kept: int = 4
    """kept from the judge, of a mesh that it learns from"""
    kept_mesh: int = 12
    """of a mesh that is kept from it"""


COUNTS = Counts()


@dataclass(frozen=True, eq=False)
class Views:
    """Buffers of n views; colours are multiplied by coverage, `paint` has the colour that may change."""

    noun: Int[Tensor, " n"]
    """number among the table's names"""
    side: Int[Tensor, " n"]
    """number in `SIDES`"""
    eye: Float[Tensor, "n 3"]
    paint: UInt8[Tensor, "n 3 h w"]
    rest: UInt8[Tensor, "n 3 h w"]
    normal: UInt8[Tensor, "n 3 h w"]
    alpha: UInt8[Tensor, "n 1 h w"]

    def __getitem__(self, rows: Tensor | slice) -> "Views":
        """Some of the views, by number or by mask."""
        return Views(**{name: value[rows] for name, value in vars(self).items()})


@dataclass(frozen=True, eq=False)
class Split:
    """All views: to learn from, and kept."""

    learn: Views
    new_views: Views
    """of meshes that the judge learns from"""
    new_meshes: Views


def random_cameras(count: int, generator: Generator) -> Cameras:
    """The judge's world: any azimuth, elevation -15 to 80 deg, field of view 30 to 60 deg, not quite centred."""
    u = torch.rand(4, count, generator=generator)
    elevation, fov_deg, fill = (_between(s, v) for s, v in zip((ELEVATION_DEG, FOV_DEG, FILL), u[1:], strict=True))
    fov = fov_deg.deg2rad()
    eye = spherical(u[0] * 2 * math.pi, elevation.deg2rad(), fill / (0.5 * fov).sin())
    target = LOOK_AT_JITTER * torch.randn(count, 3, generator=generator)
    return Cameras(look_at(eye, target, torch.tensor([[0.0, 1.0, 0.0]]).expand(count, -1)), fov, SIZE, SIZE)


def random_stretches(count: int, generator: Generator) -> Float[Tensor, "{count} 3"]:
    """How much each axis is stretched: at most 1, so that nothing leaves its ball."""
    factor = torch.exp(STRETCH * torch.randn(count, 3, generator=generator))
    return factor / factor.amax(1, keepdim=True)


def seen_by(
    cameras: Cameras, renderer: MeshRenderer, stretch: Float[Tensor, "n 3"]
) -> dict[str, UInt8[np.ndarray, "n c h w"]]:
    """What each camera sees of a stretched mesh: `BUFFERS` by name, channels first."""
    found = buffers(renderer, cameras, stretch)
    return {name: a[:, None] if a.ndim == 3 else a.transpose(0, 3, 1, 2) for name, a in found.items()}


def render_all(assets: Assets, work: Path, counts: Counts, seed: int, report: Callable[[str], None]) -> None:
    """Render what is not there yet of every mesh of the table into the folder `work`, on all cores."""
    assets.require(assets.table)
    work.mkdir(parents=True, exist_ok=True)
    jobs = [
        (assets.file(mesh), mesh.yaw_deg, _counted(mesh, assets.table, counts), seed + i, _file(work, i))
        for i, mesh in enumerate(assets.table)
        if not _file(work, i).exists()
    ]
    on_all_cores(_render, jobs, lambda path: report(f"rendered {path.name} (of {len(assets.table)})"))


def open_views(work: Path, table: Sequence[Noun]) -> Split:
    """What `render_all` wrote."""
    known, kinds = names(table), ("learn", "new_views", "new_meshes")
    parts: dict[str, list[Views]] = {kind: [] for kind in kinds}
    for index, mesh in enumerate(table):
        path = _file(work, index)
        with damage_explained(path, "delete it, and it will be rendered again"), np.load(path) as file:
            learn, tensors = int(file["learn"]), {n: torch.from_numpy(file[n]) for n in ("eye", *BUFFERS)}
        count = len(tensors["eye"])
        side = torch.tensor([SIDES.index(seen_side(eye, mesh.front)) for eye in tensors["eye"]])
        views = Views(noun=torch.full((count,), known.index(mesh.noun)), side=side, **tensors)
        parts["learn"].append(views[:learn])
        parts["new_views"].append(views[learn:] if learn else views[:0])
        parts["new_meshes"].append(views[:0] if learn else views)
    return Split(**{kind: _joined(views) for kind, views in parts.items()})


def seen_side(eye: Float[Tensor, "3"], front: bool) -> str:
    """Which of `SIDES` a camera at `eye` sees of an object with or without a front."""
    side = seen_from(eye) if front else "none"
    return side if side in SIDES else "none"


def _counted(mesh: Noun, table: Sequence[Noun], counts: Counts) -> tuple[int, int]:
    """Views to learn from and views kept, of one mesh."""
    if mesh.kept_from == "judge":
        return 0, counts.kept_mesh
    sharing = sum(other.noun == mesh.noun and other.kept_from != "judge" for other in table)
    return max(counts.at_least, math.ceil(counts.of_noun / sharing)), counts.kept


def _render(file: Path, yaw_deg: float, counts: tuple[int, int], seed: int, path: Path) -> Path:
    torch.set_num_threads(1)
    draws = Generator().manual_seed(seed), Generator().manual_seed(seed + 1_000_000)
    first, second = (random_cameras(count, draw) for count, draw in zip(counts, draws, strict=True))
    cameras = Cameras(torch.cat([first.pose, second.pose]), torch.cat([first.fov_y, second.fov_y]), SIZE, SIZE)
    stretches = torch.cat([random_stretches(counts[0], draws[0]), torch.ones(counts[1], 3)])
    seen = seen_by(cameras, MeshRenderer(load(file, yaw_deg)), stretches)
    arrays = {"learn": np.array(counts[0]), "eye": cameras.position.numpy(), **seen}
    with replacing(path) as part:
        np.savez(part, **arrays)  # pyright: ignore[reportArgumentType]  # its stubs want a bool
    return path


def _file(work: Path, index: int) -> Path:
    return work / f"mesh-{index:04d}.npz"


def _joined(parts: list[Views]) -> Views:
    return Views(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def _between(limits: tuple[float, float], u: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * u
