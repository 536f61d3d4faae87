"""The surface of a scene: the level set of its density that looks like its renderings."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes
from torch import Tensor

from dreamfusion.errors import UserError
from dreamfusion.rays import Gaussians
from dreamfusion.scene import Scene

_CHUNK = 1 << 16  # points per evaluation of the field
_OPAQUE = 0.5  # a pixel belongs to the silhouette where the opacity is above this
_CANDIDATES = 48  # levels tried
_BISECTIONS = 6  # the surface is found to 1/64 of a cell


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in world axes (y up, the front looks along +z), faces counter-clockwise from outside.

    `colours` are display (sRGB) values in [0, 1] per vertex, None before `paint`.
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    colours: Float[np.ndarray, "v 3"] | None = None


@dataclass(frozen=True)
class Cleaning:
    """What is done to the raw surface."""

    smallest_part: float = 0.02
    """Parts that enclose less than this share of the volume of the largest one are dropped; so are the walls of
    cavities, which nobody sees."""
    smoothing: int = 4
    """steps of Taubin's smoothing, which nearly keeps the volume"""


def extract(scene: Scene, resolution: int = 112, level: float | None = None, cleaning: Cleaning = Cleaning()) -> Mesh:
    """The closed surface where the density crosses `level` (per unit length), without colours.

    The density is sampled on `resolution`^3 points over the cube about the bounding ball; outside the ball it is zero,
    so the surface is closed. Without a `level` the one is taken whose silhouettes match the opacity, see
    `choose_level`.
    Raises UserError where nothing is denser than the level, and for a resolution below 8.
    """
    if resolution < 8:
        raise UserError(f"a mesh resolution of {resolution} is too coarse: give at least 8")
    spacing = 2 * scene.radius / (resolution - 1)
    grid = density_grid(scene, resolution)
    level = choose_level(grid, spacing) if level is None else level
    if not bool((grid > level).any()):
        raise UserError(f"empty scene: no density above {level:.3g}: train longer, or give a lower level")
    corners, faces = _march(grid, level)
    corners = _bisect(scene, corners, spacing, level)
    mesh = Mesh(corners * np.float32(spacing) - np.float32(scene.radius), faces)
    return _smooth(_drop_small_parts(mesh, cleaning.smallest_part), cleaning.smoothing)


def density_at(scene: Scene, points: Float[Tensor, "m 3"], width: float) -> Float[Tensor, " m"]:
    """Density (per unit length) in cubes of edge `width` about `points`, without gradients; 0 outside the ball."""
    density = points.new_zeros(points.shape[0])
    inside = (points.square().sum(-1) <= scene.radius**2).nonzero()[:, 0]
    with torch.no_grad():
        for chunk in inside.split(_CHUNK):
            mean = points[chunk]
            density[chunk] = scene.field.density(Gaussians(mean, torch.full_like(mean, width**2 / 12)))
    return density


def density_grid(scene: Scene, resolution: int) -> Float[Tensor, "n n n"]:
    """Density on a grid over [-radius, radius]^3, indexed x y z."""
    axis = torch.linspace(-scene.radius, scene.radius, resolution, device=device_of(scene))
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    width = 2 * scene.radius / (resolution - 1)
    return density_at(scene, points, width).reshape(resolution, resolution, resolution)


def device_of(scene: Scene) -> torch.device:
    """Where the scene's numbers live."""
    return next(iter(scene.state_dict().values())).device


def choose_level(grid: Float[Tensor, "n n n"], spacing: float) -> float:
    """The density whose level set has the silhouettes of the renderings.

    Seen along an axis, the level set covers a pixel where the greatest density on the way exceeds the level; a
    rendering covers it where the opacity 1 - exp(-sum density * spacing) exceeds 1/2. Both follow from the grid alone,
    along x, y and z. Levels are tried in equal ratios. Several may agree equally well with the renderings (any does
    where matter begins abruptly), so the middle one of those within 1/2 % of the best overlap is taken.
    Raises UserError if no pixel is opaque from any side.
    """
    peaks = torch.stack([grid.amax(dim) for dim in range(3)])
    opaque = torch.stack([-torch.expm1(-grid.sum(dim) * spacing) for dim in range(3)]) > _OPAQUE
    if not bool(opaque.any()):
        raise UserError("empty scene: nothing in it is opaque: train longer, or with another seed or prompt")
    least, most = (
        math.log(2) / (spacing * len(grid)),
        float(grid.max()),
    )  # below `least` not even the whole width is opaque
    levels = torch.logspace(math.log10(least), math.log10(most), _CANDIDATES + 1, device=grid.device)[:-1]
    covered = peaks > levels[:, None, None, None]
    overlap = (covered & opaque).sum((1, 2, 3)) / (covered | opaque).sum((1, 2, 3))
    good = (overlap >= overlap.max() - 0.005).nonzero()[:, 0]
    return float(levels[good[len(good) // 2]])


def _march(grid: Tensor, level: float) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Marching cubes in grid coordinates. The layer of zeros around the grid closes surfaces that reach the border."""
    padded = torch.nn.functional.pad(grid, (1, 1, 1, 1, 1, 1)).cpu().numpy()
    corners, faces, _, _ = marching_cubes(padded, level, gradient_direction="ascent", allow_degenerate=False)
    return (corners - 1).astype(np.float32), faces.astype(np.int64)


def _bisect(scene: Scene, corners: np.ndarray, spacing: float, level: float) -> np.ndarray:
    """Move each vertex along its grid edge to where the field itself crosses the level.

    Linear interpolation between grid points is poor where the density jumps by orders of magnitude, and its error shows
    as ripples in the shading.
    """
    cut = np.flatnonzero((corners % 1 > 0).sum(1) == 1)  # the few vertices that lie on no edge stay
    place = torch.from_numpy(corners[cut]).to(device_of(scene))
    low, high = place.floor(), place.ceil()
    low_inside = density_at(scene, low * spacing - scene.radius, spacing) > level
    inside, outside = torch.where(low_inside[:, None], low, high), torch.where(low_inside[:, None], high, low)
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        dense = (density_at(scene, middle * spacing - scene.radius, spacing) > level)[:, None]
        inside, outside = torch.where(dense, middle, inside), torch.where(dense, outside, middle)
    moved = corners.copy()
    moved[cut] = ((inside + outside) / 2).cpu().numpy()
    return moved


def _drop_small_parts(mesh: Mesh, smallest: float) -> Mesh:
    """Keep the connected parts that enclose at least `smallest` of the largest one's volume; a cavity's is negative."""
    count, part_of_vertex = connected_components(_adjacency(mesh), directed=False)
    part_of_face = part_of_vertex[mesh.faces[:, 0]]
    volume = np.bincount(part_of_face, _signed_volumes(mesh), minlength=count)
    kept = volume >= smallest * volume.max()
    used, faces = np.unique(mesh.faces[kept[part_of_face]], return_inverse=True)
    return Mesh(mesh.vertices[used], faces.reshape(-1, 3))


def _signed_volumes(mesh: Mesh) -> Float[np.ndarray, " f"]:
    """Volume of the tetrahedron from the origin to each face; over a closed part they add up to what it encloses."""
    a, b, c = mesh.vertices.astype(np.float64)[mesh.faces].transpose(1, 0, 2)
    return (a * np.cross(b, c)).sum(1) / 6


def _adjacency(mesh: Mesh) -> sparse.csr_array:
    """1 where two vertices share an edge."""
    start, end = mesh.faces.ravel(), np.roll(mesh.faces, 1, axis=1).ravel()
    size, ones = len(mesh.vertices), np.ones(2 * len(start))
    matrix = sparse.csr_array((ones, (np.r_[start, end], np.r_[end, start])), shape=(size, size))
    matrix.sum_duplicates()  # an edge belongs to two faces
    matrix.data[:] = 1
    return matrix


def _smooth(mesh: Mesh, steps: int) -> Mesh:
    """Taubin's smoothing: each step shrinks, then swells, so that ripples go and the size stays (SIGGRAPH 1995)."""
    adjacency = _adjacency(mesh)
    neighbours = adjacency.sum(axis=1)[:, None]
    vertices = mesh.vertices.astype(np.float64)
    for factor in (0.5, -0.53) * steps:
        vertices += factor * ((adjacency @ vertices) / neighbours - vertices)
    return replace(mesh, vertices=vertices.astype(np.float32))
