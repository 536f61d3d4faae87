"""Changes to a solid, as small as may be, with which it stands, and can be printed."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from manifold3d import Manifold, OpType
from scipy.spatial import ConvexHull, KDTree, QhullError
from skimage.measure import marching_cubes

from dreamfusion.errors import UserError
from dreamfusion.mesh.extract import manifold, mesh_of
from dreamfusion.mesh.solid import chords
from dreamfusion.mesh.stance import centre_of_mass
from dreamfusion.mesh.triangles import Mesh, corners

STEADY_BASE_DEG = 10.0
"""by which a solid with a base can be tipped at least"""
FINEST = 250
"""walls that can be asked for in the longest side"""
_LEVELS = 0.002 * 1.35 ** np.arange(14)  # heights at which a base is tried, as shares of the whole: 0.2 % to 10 %
_PLINTH = 0.03  # its thickness, likewise
_CELLS = 2.5  # of the lattice, in the radius of the balls by which walls are thickened
_SAFE = 1.08  # what is given on top of the thickness, for what the lattice takes away
_BLOCK = 64  # cells per side of what is thickened at once
_TIMES = 3  # that walls are measured and thickened


def changed(before: Mesh, after: Mesh) -> float:
    """Volume that is in one of two solids alone, as a share of the first one's."""
    one, other = manifold(before), manifold(after)
    return ((one - other).volume() + (other - one).volume()) / one.volume()


def with_flat_base(mesh: Mesh, wall: float = 0.0) -> Mesh:
    """The solid with a flat base on which it stands up to a tilt of `STEADY_BASE_DEG`, with the least change.

    Tried are: its lowest part cut off; its lowest part filled down to the floor; and, where neither is enough, a plinth
    that reaches below the centre of mass, at least as thick as `wall`. The change is measured as volume.
    """
    low = float(mesh.vertices[:, 1].min())
    up = manifold(mesh).translate((0, -low, 0)).rotate((90, 0, 0))  # z is up there
    height, volume = up.bounding_box()[5], up.volume()
    steady = [base for base in _bases(up, height) if _base_angle(mesh_of(base)) >= STEADY_BASE_DEG]
    best = min(steady, key=lambda base: abs(base.volume() - volume), default=None)
    base = _on_plinth(up, max(wall, _PLINTH * height)) if best is None else best
    return mesh_of(base.rotate((-90, 0, 0)).translate((0, low, 0)))


def thickened(mesh: Mesh, wall: float) -> Mesh:
    """The solid in one piece, no wall of which is thinner than `wall`, in the mesh's unit.

    Where a chord from the surface along the inward normal is shorter, a ball of that diameter about its middle is
    added; parts that do not touch are joined by a bar of that diameter. Raises UserError for walls that are too thin to
    be told apart, or thicker than the whole solid.
    """
    longest = float(np.ptp(mesh.vertices, axis=0).max())
    if wall >= longest:
        raise UserError("walls so thick are more than the whole object: ask for thinner ones, or for a larger height")
    if wall < longest / FINEST:
        raise UserError(f"walls so thin cannot be measured: ask for at least 1/{FINEST} of the longest side")
    body = _joined(manifold(mesh), wall)
    for _ in range(_TIMES):
        now = mesh_of(body)
        found = chords(now, int(_area(now) / (wall / 3) ** 2))
        thin = found.middle[found.length < wall]
        if not len(thin):
            break
        body = body + _balls(thin, _SAFE * wall / 2)
    return mesh_of(body)


def _bases(up: Manifold, height: float) -> Iterator[Manifold]:
    for share in _LEVELS:
        level = share * height
        yield up.trim_by_plane((0, 0, 1), level)
        yield up + _foot(up, level)


def _foot(up: Manifold, level: float) -> Manifold:
    """What of a solid lies below a level, pulled down to the floor."""
    return Manifold.extrude(up.trim_by_plane((0, 0, -1), -level).project(), level)


def _on_plinth(up: Manifold, level: float) -> Manifold:
    """The solid in a plate, up to a level, that reaches below its feet and its centre of mass."""
    x, y, z = centre_of_mass(mesh_of(up))
    radius = float(1.2 * z * np.tan(np.radians(STEADY_BASE_DEG)))  # more, as the plate moves the middle a little
    disc = Manifold.cylinder(level, radius, circular_segments=64).translate((x, y, 0))
    return up + (_foot(up, level) + disc).hull().trim_by_plane((0, 0, -1), -level)


def _base_angle(up: Mesh) -> float:
    """Degrees by which a solid with a flat base can be tipped before its centre of mass is above the base's edge."""
    centre = centre_of_mass(up)
    low = up.vertices[:, 2].min()
    floor = up.vertices[up.vertices[:, 2] < low + 1e-5 * np.ptp(up.vertices[:, 2])]
    try:
        edges = ConvexHull(floor[:, :2]).equations
    except (QhullError, ValueError):  # it stands on a point or an edge
        return 0.0
    inside = -(edges[:, :2] @ centre[:2] + edges[:, 2]).max()
    return float(np.degrees(np.arctan2(inside, centre[2] - low)))


def _joined(body: Manifold, width: float) -> Manifold:
    """The parts of a solid with a bar from each to the nearest of those before it, the largest part first."""
    whole, *others = sorted(body.decompose(), key=lambda part: -part.volume())
    ball = Manifold.sphere(_SAFE * width / 2, 24)
    for part in others:
        there, here = mesh_of(whole).vertices, mesh_of(part).vertices
        distance, nearest = (np.asarray(found) for found in KDTree(there).query(here))
        ends = here[distance.argmin()], there[nearest[distance.argmin()]]
        bar = Manifold.batch_hull([ball.translate(end.astype(np.float64)) for end in ends])
        whole = whole + part + bar
    return whole


def _balls(middle: Float[np.ndarray, "n 3"], radius: float) -> Manifold:
    """The union of balls of one size, block by block of space: lattices of all of it would take gigabytes."""
    spacing = radius / _CELLS
    cell = np.floor(middle / spacing).astype(int)
    one_each = np.unique(cell, axis=0, return_index=True)[1]
    _, block = np.unique(cell[one_each] // _BLOCK, axis=0, return_inverse=True)
    parts = [middle[one_each][block.reshape(-1) == number] for number in range(block.max() + 1)]
    return Manifold.batch_boolean([_balls_of_block(part, radius, spacing) for part in parts], OpType.Add)


def _balls_of_block(middle: Float[np.ndarray, "n 3"], radius: float, spacing: float) -> Manifold:
    """Where the distance from their middles, on a lattice, is less than the radius."""
    reach = int(np.ceil(_CELLS)) + 1
    origin = middle.min(0) - (reach + 1) * spacing
    cell = np.round((middle - origin) / spacing).astype(int)
    distance = np.full(cell.max(0) + reach + 2, 2 * radius, np.float32)
    around = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3), -1).reshape(-1, 1, 3)
    for some in np.array_split(around, 27):
        there = cell + some
        away = np.linalg.norm(there * spacing + origin - middle, axis=-1).astype(np.float32)
        np.minimum.at(distance, tuple(np.moveaxis(there, -1, 0)), away)
    corner, faces, _, _ = marching_cubes(distance, radius, gradient_direction="descent", allow_degenerate=False)
    return manifold(Mesh((corner * spacing + origin).astype(np.float32), faces.astype(np.int64)))


def _area(mesh: Mesh) -> float:
    a, b, c = corners(mesh)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)
