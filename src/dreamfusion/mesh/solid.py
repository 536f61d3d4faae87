"""What a mesh would be as a real thing of one material: whether it stands, its weight, its walls, what overhangs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dreamfusion.mesh.extract import manifold
from dreamfusion.mesh.stance import RestingPose, stance
from dreamfusion.mesh.triangles import Mesh, corners

DENSITY = {
    "pla": 1.25, "petg": 1.27, "abs": 1.04, "nylon": 1.13,
    "oak": 0.68, "glass": 2.6, "aluminium": 2.7, "steel": 7.85, "bronze": 8.2, "silver": 10.49, "gold": 19.32,
}  # fmt: skip
"""g/cm3 (docs/meshes-and-viewer.md has the sources)"""
OVERHANG_DEG = 45.0
_RAYS = 4000  # by which walls are measured
_THIN = 0.01  # so much of the surface has walls thinner than what is called the thinnest
_FLOOR = 0.002  # what is not higher than this, as a share of the height, lies on the floor


@dataclass(frozen=True)
class Solid:
    """A mesh at a height, of a material, solid throughout."""

    height_mm: float
    material: str
    stands: bool
    """on a flat floor, as it is put down"""
    tip_angle_deg: float
    """by which it can be tipped to the side where that is least; 0 if it falls at once"""
    margin_mm: float
    """how far its centre of mass may move to that side"""
    poses: tuple[RestingPose, ...]
    pieces: int
    """parts that do not touch"""
    volume_cm3: float
    weight_g: float
    thinnest_mm: float
    """thickness that 99 % of the surface have at least below them"""
    overhang_cm2: float
    """surface that faces down, more than 45 degrees from the vertical, and is not on the floor"""

    def __str__(self) -> str:
        poses = ", ".join(f"{_pose(each.lean_deg)} {each.chance:.0%}" for each in self.poses[:4]) or "no likely ones"
        stands = f"tips over at {self.tip_angle_deg:.0f} degrees" if self.stands else "FALLS over"
        parts = "in one piece" if self.pieces == 1 else f"in {self.pieces} pieces"
        return "\n".join(
            [
                f"as a solid {self.height_mm:g} mm high: {stands} (margin {self.margin_mm:.1f} mm), {parts}; "
                f"{self.volume_cm3:.1f} cm3, {self.weight_g:.0f} g of {self.material}",
                f"  comes to rest: {poses}",
                f"  thinnest wall {self.thinnest_mm:.1f} mm, overhang beyond 45 degrees {self.overhang_cm2:.1f} cm2",
            ]
        )


def solid(mesh: Mesh, height_mm: float = 100.0, material: str = "pla") -> Solid:
    """Measure a closed mesh, y up."""
    low, high = mesh.vertices[:, 1].min(), mesh.vertices[:, 1].max()
    mm = height_mm / float(high - low)
    body, stands = manifold(mesh), stance(mesh)
    volume = body.volume() * mm**3 / 1000
    return Solid(
        height_mm=height_mm,
        material=material,
        stands=stands.stands,
        tip_angle_deg=stands.tip_angle_deg,
        margin_mm=stands.margin * mm,
        poses=stands.poses,
        pieces=sum(part.volume() > 0 for part in body.decompose()),  # walls of cavities enclose less than nothing
        volume_cm3=volume,
        weight_g=volume * DENSITY[material],
        thinnest_mm=float(np.quantile(chords(mesh, _RAYS).length, _THIN)) * mm,
        overhang_cm2=overhang(mesh) * mm**2 / 100,
    )


def overhang(mesh: Mesh) -> float:
    """Area that faces down beyond `OVERHANG_DEG` from the vertical, but for what lies on the floor."""
    low, high = mesh.vertices[:, 1].min(), mesh.vertices[:, 1].max()
    a, b, c = corners(mesh)
    across = np.cross(b - a, c - a)
    area = np.linalg.norm(across, axis=1) / 2
    steep = -across[:, 1] > 2 * area * (np.sin(np.radians(OVERHANG_DEG)) + 1e-4)
    above = np.max([a, b, c], axis=0)[:, 1] > low + _FLOOR * (high - low)
    return float(area[steep & above].sum())


@dataclass(frozen=True, eq=False)
class Chords:
    """Straight ways through a solid, from its surface along the inward normal to where they leave it."""

    middle: Float[np.ndarray, "n 3"]
    length: Float[np.ndarray, " n"]


def chords(mesh: Mesh, count: int) -> Chords:
    """About `count` chords that begin evenly over the surface of a closed mesh."""
    a, b, c = corners(mesh)
    across = np.cross(b - a, c - a)
    area = np.linalg.norm(across, axis=1)
    number = np.arange(count) + 0.5
    face = np.searchsorted(np.cumsum(area) / area.sum(), number / count)
    # The additive recurrence with the plastic number spreads places evenly also within one large face.
    u, v = (number[:, None] * np.array([0.7548776662466927, 0.5698402909980532]) % 1).T[..., None]
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    start = a[face] + u * (b - a)[face] + v * (c - a)[face]
    inward = -across[face] / area[face, None]
    reach = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    start += 1e-5 * reach * inward  # off the face that it is on
    body = manifold(mesh)
    hits = [body.ray_cast(one, other) for one, other in zip(start, start + reach * inward, strict=True)]
    length = np.array([hit[0].distance * reach if hit else 0.0 for hit in hits])
    found = length > 0
    return Chords((start + inward * length[:, None] / 2)[found], length[found])


def _pose(lean_deg: float) -> str:
    return "upright" if lean_deg < 5 else "upside down" if lean_deg > 175 else f"turned by {lean_deg:.0f} degrees"
