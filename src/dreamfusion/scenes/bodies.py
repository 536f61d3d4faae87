"""Solids in a scene: read from files, placed, seen from above and below, and let down onto each other."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from manifold3d import Error, Manifold, OpType
from manifold3d import Mesh as Triangles
from scipy.ndimage import binary_fill_holes

from dreamfusion.errors import UserError
from dreamfusion.mesh.extract import mesh_of
from dreamfusion.mesh.triangles import corners
from dreamfusion.surface import cover

TOUCH = 0.02
"""share of a thing's longest side up to which a gap is none"""
_ACROSS = 28  # columns across what is let down
_MOST = 110  # and across what it is let down onto
_SLACK = 1e-4  # share of a volume that two solids may have in common where they touch
_HALVINGS = 9
_HOLLOW = 0.01  # share of its hull that a solid fills at least


@dataclass(frozen=True)
class Placed:
    """One of the things in a scene."""

    thing: int
    """its number in the sentence"""
    solid: Manifold
    """where it stands: y up, the floor at 0, metres"""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """of its origin, the point of the ground below its middle"""
    turn_deg: float = 0.0
    """about the y axis"""
    scale: float = 1.0
    """of the file's lengths"""

    @property
    def box(self) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
        """Its lowest and its highest corner."""
        return box_of([self])

    @property
    def size(self) -> float:
        """Its longest side."""
        low, high = self.box
        return float((high - low).max())

    def moved(self, x: float, y: float, z: float) -> "Placed":
        """The same somewhere else."""
        there = np.add(self.position, (x, y, z)).tolist()
        return replace(self, solid=self.solid.translate((x, y, z)), position=tuple(there))

    def turned(self, degrees: float) -> "Placed":
        """The same, turned about the vertical through the origin of the scene."""
        x, y, z = self.position
        angle = np.radians(degrees)
        place = (x * np.cos(angle) + z * np.sin(angle), y, z * np.cos(angle) - x * np.sin(angle))
        solid = self.solid.rotate((0, degrees, 0))
        return replace(self, solid=solid, position=tuple(map(float, place)), turn_deg=self.turn_deg + degrees)

    def scaled(self, factor: float) -> "Placed":
        """The same at another size about the scene's origin."""
        place = tuple(factor * value for value in self.position)
        return replace(
            self, solid=self.solid.scale((factor, factor, factor)), position=place, scale=self.scale * factor
        )


Unit = tuple[Placed, ...]
"""Things that are moved as one, the one that carries the others first"""


def moved(unit: Unit, x: float, y: float, z: float) -> Unit:
    """All of a unit somewhere else."""
    return tuple(each.moved(x, y, z) for each in unit)


def box_of(placed: Iterable[Placed]) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """The lowest and the highest corner of all of them."""
    boxes = np.array([each.solid.bounding_box() for each in placed])
    return boxes[:, :3].min(0), boxes[:, 3:].max(0)


def solid_of(path: Path) -> Manifold:
    """What a .glb file shows, as a solid that stands on the floor over the origin, its longest side 1.

    Of a surface with holes each connected part is taken as its hull. Raises UserError for a file without a surface.
    """
    if (closed := closed_solid_of(path)) is not None:
        return closed
    found = _mesh_in(path)
    found.merge_vertices(merge_tex=True, merge_norm=True)
    hulls = [Manifold.hull_points(np.asarray(part.vertices)) for part in found.split(only_watertight=False)]
    return _standing(Manifold.batch_boolean(hulls, OpType.Add), path)


def closed_solid_of(path: Path) -> Manifold | None:
    """The same; None for a surface with holes, or one that encloses hardly anything, as it is wound both ways."""
    found = _mesh_in(path)
    triangles = Triangles(np.asarray(found.vertices, np.float32), np.asarray(found.faces, np.uint32))
    triangles.merge()  # files store a vertex once for each place in the texture
    solid = Manifold(triangles)
    if solid.status() != Error.NoError or solid.volume() <= _HOLLOW * solid.hull().volume():
        return None
    parts = solid.decompose()
    if len(parts) > 1 and all(part.volume() > 0 for part in parts):  # they may be stuck into each other
        solid = Manifold.batch_boolean(parts, OpType.Add)
    return _standing(solid, path)


def _mesh_in(path: Path) -> trimesh.Trimesh:
    try:
        found = trimesh.load_scene(io.BytesIO(path.read_bytes()), file_type="glb").to_mesh()
    except PermissionError:
        raise
    except Exception as error:  # the reader has no errors of its own
        raise UserError(f"{path} cannot be read as a mesh: make it again with `dreamfusion mesh`") from error
    return found


def _standing(solid: Manifold, path: Path) -> Manifold:
    if solid.volume() <= 0:
        raise UserError(f"{path} has no solid surface: make it again with `dreamfusion mesh`")
    low, high = np.split(np.array(solid.bounding_box()), 2)
    middle = (low + high) / 2
    size = 1 / float((high - low).max())
    return solid.translate((-middle[0], -low[1], -middle[2])).scale((size, size, size))


def overlap(one: Manifold, other: Manifold) -> float:
    """Volume that two solids have in common; 0 without looking where their boxes do not meet."""
    a, b = np.array(one.bounding_box()), np.array(other.bounding_box())
    if (a[3:] <= b[:3]).any() or (b[3:] <= a[:3]).any():
        return 0.0
    return (one ^ other).volume()


@dataclass(frozen=True, eq=False)
class Drop:
    """What can be let down where: for each place on a lattice, how high it comes to rest, and on how much."""

    x: Float[np.ndarray, " i"]
    """how far it is moved there"""
    z: Float[np.ndarray, " k"]
    rest: Float[np.ndarray, "i k"]
    """height to which it is lifted or let down"""
    contact: Float[np.ndarray, "i k"]
    """share of its base that is held up, to within `TOUCH`"""
    aside: Float[np.ndarray, "i k"]
    """how far the middle of what holds it up is from its own, in its widths"""
    within: Float[np.ndarray, "i k"]
    """share of its outline that is within the outline of what is below, or above"""


def drop(unit: Unit, below: Sequence[Placed]) -> Drop:
    """Let a unit down onto what is below, everywhere where their outlines meet."""
    low, high = box_of(unit)
    floor_low, floor_high = box_of(below)
    across, wide = float((high - low)[[0, 2]].max()), float((floor_high - floor_low)[[0, 2]].max())
    cell = max(across / _ACROSS, wide / _MOST)
    under = _seen([each.solid for each in unit], low, high, cell, lowest=True)
    pad = (under.shape[0] - 1, under.shape[1] - 1)
    found = _seen([each.solid for each in below], floor_low, floor_high, cell, outside=np.nan)
    found = np.pad(found, [(pad[0],) * 2, (pad[1],) * 2], constant_values=np.nan)
    outline, top = np.asarray(binary_fill_holes(np.isfinite(found))), np.where(np.isfinite(found), found, 0.0)
    count = (top.shape[0] - pad[0], top.shape[1] - pad[1])
    columns = np.argwhere(np.isfinite(under))
    rest, within = np.full(count, -np.inf), np.zeros(count)
    for i, k in columns:
        np.maximum(rest, top[i : i + count[0], k : k + count[1]] - under[i, k], out=rest)
        within += outline[i : i + count[0], k : k + count[1]]
    contact, aside = _held(top, under, rest, TOUCH * unit[0].size)
    x = floor_low[0] - low[0] + (np.arange(count[0]) - pad[0]) * cell
    z = floor_low[2] - low[2] + (np.arange(count[1]) - pad[1]) * cell
    return Drop(x, z, rest, contact, aside, within / len(columns))


def _held(
    top: Float[np.ndarray, "x z"], under: Float[np.ndarray, "a b"], rest: Float[np.ndarray, "i k"], near: float
) -> tuple[Float[np.ndarray, "i k"], Float[np.ndarray, "i k"]]:
    """`contact` and `aside` of a drop. The base is what is hardly above the lowest point."""
    base = np.argwhere(under < under.min() + near)
    middle, width = base.mean(0), np.ptp(base, axis=0).max() + 1
    share, moment = np.zeros_like(rest), np.zeros((2, *rest.shape))
    for place in base:
        i, k = place
        held = rest - (top[i : i + rest.shape[0], k : k + rest.shape[1]] - under[i, k]) < near
        share += held
        moment += held * (place - middle)[:, None, None]
    return share / len(base), np.linalg.norm(moment / np.maximum(share, 1), axis=0) / width


def clearance(unit: Unit, above: Sequence[Placed]) -> Drop:
    """Where a unit on the floor fits below something: `rest` is by how much it is too high there."""
    low, high = box_of(unit)
    there_low, there_high = box_of(above)
    cell = max(float((high - low)[[0, 2]].max()) / _ACROSS, float((there_high - there_low)[[0, 2]].max()) / _MOST)
    top = _seen([each.solid for each in unit], low, high, cell, outside=np.nan)
    bottom = _seen([each.solid for each in above], there_low, there_high, cell, lowest=True)
    count = (bottom.shape[0] - top.shape[0] + 1, bottom.shape[1] - top.shape[1] + 1)
    if min(count) < 1:
        none = np.zeros((0, 0))
        return Drop(np.zeros(0), np.zeros(0), none, none, none, none)
    rest, covered = np.full(count, -np.inf), np.zeros(count)
    columns = np.argwhere(np.isfinite(top))
    for i, k in columns:
        there = bottom[i : i + count[0], k : k + count[1]]
        np.maximum(rest, top[i, k] - there, out=rest)  # minus infinity where nothing is above
        covered += np.isfinite(there)
    x = there_low[0] - low[0] + np.arange(count[0]) * cell
    z = there_low[2] - low[2] + np.arange(count[1]) * cell
    return Drop(x, z, rest, np.ones(count), np.zeros(count), covered / len(columns))


def settled(unit: Unit, others: Sequence[Placed], reach: float) -> Unit:
    """The unit let down, or lifted, by up to `reach` until it just touches the others, or the floor."""
    volume = min(each.solid.volume() for each in unit)

    def free(y: float) -> bool:
        if box_of(unit)[0][1] + y < 0:
            return False
        common = sum(overlap(each.solid.translate((0.0, y, 0.0)), other.solid) for each in unit for other in others)
        return common <= _SLACK * volume

    low, high = -reach, reach
    while not free(high) and high < 64 * reach:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if free(middle) else (middle, high)
    return moved(unit, 0.0, high, 0.0)


def _seen(
    solids: Iterable[Manifold],
    low: Float[np.ndarray, " 3"],
    high: Float[np.ndarray, " 3"],
    cell: float,
    lowest: bool = False,
    outside: float = np.inf,
) -> Float[np.ndarray, "x z"]:
    """The highest, or the lowest, place of some solids in each column of a lattice.

    Where there is nothing it is `outside`.
    """
    shape = tuple(int(np.ceil((high[axis] - low[axis]) / cell)) or 1 for axis in (0, 2))
    empty = np.inf if lowest else -np.inf
    found = np.full(shape, empty)
    for solid in solids:
        face = torch.from_numpy(np.ascontiguousarray(corners(mesh_of(solid)).transpose(1, 0, 2)))
        flat = (face[..., [2, 0]] - torch.tensor([low[2], low[0]])) / cell
        seen = cover(flat, *shape)
        height = seen.blend(face[..., 1:2])[:, 0].numpy()
        (np.minimum if lowest else np.maximum).at(found.reshape(-1), seen.pixel.numpy(), height)
    return np.where(np.isfinite(found), found, outside)
