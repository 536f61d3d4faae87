"""The judge's raw data: buffers of many views of every mesh, from cameras of its own.

Each view shows what the judge's eye would cut out of a picture, give or take a little. One file per mesh, so that an
interrupted rendering goes on where it stopped. The views that the judge may learn from come first; those after them,
of a seed of their own, are kept from it.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.evaluate.judge.network import CUT, window
from dreamfusion.evaluate.judge.sides import SIDES
from dreamfusion.files import replacing
from dreamfusion.geometry import look_at, spherical
from dreamfusion.nerf.rays import cast
from training.mesh_views import Views, joined, open_file, views_of
from training.meshes import MeshRenderer, load
from training.nouns import Assets, Noun, names
from training.prior.data import side as seen_from
from training.views import BUFFERS, buffers, on_all_cores

FOV_DEG, ELEVATION_DEG = (32.0, 52.0), (-15.0, 80.0)
USUAL_ELEVATION_DEG, USUAL = (30.0, 15.0), 0.7
"""mean and standard deviation of most elevations, and of how many; the others are anywhere in their range"""
FILL = (1.0, 1.25)
"""radius of the ball that would just fill the picture before it is cut out"""
STRETCH = 0.08
"""standard deviation of the logarithm by which each axis of an object is stretched in views to learn from"""
MISSED, ZOOM = 0.04, 0.08
"""by how much a cut-out may be off: its middle, in its size, and the logarithm of its size (standard deviations)"""
COARSE = 48
"""pixels per side of the picture in which the object is found"""


@dataclass(frozen=True)
class Counts:
    """How many views of a mesh are rendered."""

    of_noun: int = 160
    """to learn from, shared by the meshes of a noun"""
    at_least: int = 36
    """to learn from, of each mesh"""
    kept: int = 4
    """kept from the judge, of each mesh"""

    def of(self, mesh: Noun, table: Sequence[Noun]) -> tuple[int, int]:
        """Views to learn from and views kept, of one mesh."""
        sharing = sum(other.noun == mesh.noun for other in table)
        return max(self.at_least, math.ceil(self.of_noun / sharing)), self.kept


COUNTS = Counts()


@dataclass(frozen=True, eq=False)
class Split:
    """All views: to learn from, and kept."""

    learn: Views
    new_views: Views
    """of meshes that the judge learns from"""
    new_meshes: Views
    """of meshes that are left out, in a cross-validation"""


def random_cameras(count: int, generator: Generator) -> Cameras:
    """The judge's world: any azimuth, mostly from somewhat above, field of view 32 to 52 deg, whole objects."""
    u = torch.rand(5, count, generator=generator)
    mean, deviation = USUAL_ELEVATION_DEG
    usual = mean + deviation * torch.randn(count, generator=generator)
    elevation = torch.where(u[4] < USUAL, usual.clamp(*ELEVATION_DEG), _between(ELEVATION_DEG, u[1]))
    fov = _between(FOV_DEG, u[2]).deg2rad()
    eye = spherical(u[0] * 2 * math.pi, elevation.deg2rad(), _between(FILL, u[3]) / (0.5 * fov).sin())
    return _looking(eye, torch.zeros(count, 3), fov)


def random_stretches(count: int, generator: Generator) -> Float[Tensor, "{count} 3"]:
    """How much each axis is stretched: at most 1, so that nothing leaves its ball."""
    factor = torch.exp(STRETCH * torch.randn(count, 3, generator=generator))
    return factor / factor.amax(1, keepdim=True)


def aimed(
    cameras: Cameras, renderer: MeshRenderer, stretch: Float[Tensor, "n 3"], off: Float[Tensor, "n 3"]
) -> Cameras:
    """From the same places, turned and zoomed to what the judge's eye would cut out of their pictures.

    `off` moves the middle of a cut-out right and down, in halves of its size, and adds to the logarithm of its size.
    """
    seen = torch.stack([_outline(cameras[i : i + 1], renderer, stretch[i]) for i in range(len(cameras))])
    theta, scale = window(seen), (0.5 * cameras.fov_y).tan()
    half = theta[:, 0, 0] * off[:, 2].exp()
    middle = (theta[:, :, 2] + off[:, :2] * half[:, None]) * scale[:, None]
    right, up, backward = cameras.pose[:, :3, :3].unbind(-1)
    toward = middle[:, :1] * right - middle[:, 1:] * up - backward
    return _looking(cameras.position, cameras.position + toward, 2 * (half * scale).atan())


def seen_by(
    cameras: Cameras, renderer: MeshRenderer, stretch: Float[Tensor, "n 3"]
) -> dict[str, UInt8[np.ndarray, "n c h w"]]:
    """What each camera sees of a stretched mesh: `BUFFERS` by name, channels first."""
    found = buffers(renderer, cameras, stretch)
    return {name: a[:, None] if a.ndim == 3 else a.transpose(0, 3, 1, 2) for name, a in found.items()}


def render_all(assets: Assets, work: Path, counts: Counts, seed: int, report: Callable[[str], None]) -> None:
    """Render what is not there yet of every mesh of the table into the folder `work`, on all cores."""
    on_all_cores(render, jobs(assets, work, counts, seed), lambda path: report(f"rendered {path.name}"))


def jobs(assets: Assets, work: Path, counts: Counts, seed: int) -> list[tuple[Path, float, tuple[int, int], int, Path]]:
    """The arguments of `render` for every mesh of the table that is not in the folder `work` yet."""
    assets.require(assets.table)
    work.mkdir(parents=True, exist_ok=True)
    return [
        (assets.file(mesh), mesh.yaw_deg, counts.of(mesh, assets.table), seed + i, _file(work, i))
        for i, mesh in enumerate(assets.table)
        if not _file(work, i).exists()
    ]


def render(file: Path, yaw_deg: float, counts: tuple[int, int], seed: int, path: Path) -> Path:
    """Render one mesh; returns `path`, which was written."""
    torch.set_num_threads(1)
    renderer = MeshRenderer(load(file, yaw_deg))
    learn, kept = _cameras(counts, seed)
    draws = Generator().manual_seed(seed + 2_000_000)
    stretch = torch.cat([random_stretches(counts[0], draws), torch.ones(counts[1], 3)])
    off = torch.randn(sum(counts), 3, generator=draws) * torch.tensor([MISSED, MISSED, ZOOM])
    off[counts[0] :] = 0
    both = Cameras(torch.cat([learn.pose, kept.pose]), torch.cat([learn.fov_y, kept.fov_y]), CUT, CUT)
    seen = seen_by(aimed(both, renderer, stretch, off), renderer, stretch)
    with replacing(path) as part, part.open("wb") as file_:
        np.save(file_, np.concatenate([seen[name] for name in BUFFERS], axis=1))
    return path


def open_views(work: Path, table: Sequence[Noun], counts: Counts, seed: int, fold: int | None = None) -> Split:
    """What `render_all` wrote. With a `fold`, 0 or 1, the meshes of that half are left out (`left_out`)."""
    known, files = names(table), list[np.ndarray]()
    parts: dict[str, list[Views]] = {"learn": [], "new_views": [], "new_meshes": []}
    out = set() if fold is None else left_out(table, fold)
    for index, mesh in enumerate(table):
        learn, kept = counts.of(mesh, table)
        files.append(open_file(_file(work, index), learn + kept, CUT))
        eye = torch.cat([cameras.position for cameras in _cameras((learn, kept), seed + index)])
        sides = [SIDES.index(seen_side(one, mesh.front)) for one in eye]
        views = views_of(index, known.index(mesh.noun), sides, eye, files)
        ends = (0, 0) if mesh.file in out else (learn, learn + kept)
        parts["learn"].append(views[: ends[0]])
        parts["new_views"].append(views[learn : ends[1]])
        parts["new_meshes"].append(views[max(learn, ends[1]) :])
    return Split(**{kind: joined(views) for kind, views in parts.items()})


def left_out(table: Sequence[Noun], fold: int) -> set[str]:
    """The files of one half of the meshes, by their SHA-256; every noun keeps at least one of its own."""
    out = set[str]()
    for noun in names(table):
        files = sorted((row.file for row in table if row.noun == noun), key=_hash)
        out |= set(files[fold::2]) if len(files) > 1 else set()
    return out


def seen_side(eye: Float[Tensor, "3"], front: bool) -> str:
    """Which of `SIDES` a camera at `eye` sees of an object with or without a front."""
    side = seen_from(eye) if front else "none"
    return side if side in SIDES else "none"


def _outline(camera: Cameras, renderer: MeshRenderer, stretch: Float[Tensor, "3"]) -> Float[Tensor, "h w"]:
    """1 where a small picture shows the stretched mesh."""
    rays = cast(camera.resized(COARSE))
    origin, direction = ((part / stretch).double().numpy() for part in (rays.origin, rays.direction))
    hit = renderer.caster.intersects_first(origin, direction) >= 0
    return torch.from_numpy(hit).float().view(COARSE, COARSE)


def _cameras(counts: tuple[int, int], seed: int) -> list[Cameras]:
    """To learn from, and kept."""
    seeds = (seed, seed + 1_000_000)
    return [random_cameras(n, Generator().manual_seed(s)) for n, s in zip(counts, seeds, strict=True)]


def _looking(eye: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"], fov: Float[Tensor, " n"]) -> Cameras:
    return Cameras(look_at(eye, target, torch.tensor([[0.0, 1.0, 0.0]]).expand(len(eye), -1)), fov, CUT, CUT)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _file(work: Path, index: int) -> Path:
    return work / f"mesh-{index:04d}.npy"


def _between(limits: tuple[float, float], u: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * u
