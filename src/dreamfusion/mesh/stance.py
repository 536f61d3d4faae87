"""How a solid stands on a flat floor: whether it falls, how far it can be tipped, how else it comes to rest.

All of it follows from one function: how high the centre of mass is when a direction of the solid points up and its
lowest point touches the floor. A solid rests where that height has a minimum, and tips over where it has a maximum.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull

from dreamfusion.mesh.triangles import Mesh, corners, signed_volumes, solid_angles

STEADY_DEG = 3.0
"""A solid that tips over at less than this falls: so little does a ball of many faces, or the floor of a real room"""
_SETTLES_DEG = 5.0  # so far a solid may lean when it has come to rest and still be said to stand as it was put down
_LEFT_DEG = 10.0  # beyond that it is on its way to another pose as soon as it falls at all
_STEP_DEG = 0.5
_TILTS = np.radians(np.arange(0, 90.1, _STEP_DEG))
_TURNS = np.radians(np.arange(0, 360, 5))
_RARE = 0.02  # poses less likely than that are not told


@dataclass(frozen=True)
class RestingPose:
    """A way in which a solid lies still."""

    chance: float
    """that it comes to rest so, or turned about its upright axis, when it is let go in any position without a push"""
    lean_deg: float
    """between that and upright, 0 to 180"""


@dataclass(frozen=True)
class Stance:
    """How a solid stands."""

    tip_angle_deg: float
    """by which it can be tipped, to the side where that is least, before it falls over; 0 if it falls at once"""
    margin: float
    """how far the centre of mass may move to that side, in the mesh's unit of length"""
    poses: tuple[RestingPose, ...]
    """the likely ones first"""

    @property
    def stands(self) -> bool:
        """Whether it stays as it is put down."""
        return self.tip_angle_deg >= STEADY_DEG


def stance(mesh: Mesh) -> Stance:
    """How a closed mesh stands with its lowest point on the floor, y up, as if it were equally dense everywhere."""
    hull = ConvexHull(mesh.vertices - centre_of_mass(mesh))
    points = hull.points[hull.vertices]
    near = _tilted(np.array([0.0, 1.0, 0.0]), _TILTS[: 1 + int(_SETTLES_DEG / _STEP_DEG)])
    settled = near.reshape(-1, 3)[_heights(points, near).argmin()]
    height = _heights(points, _tilted(settled, _TILTS))
    falling = (np.diff(height, axis=1) < 0) & (_TILTS[:-1] >= np.radians(_LEFT_DEG))
    last = np.where(falling.any(1), falling.argmax(1), len(_TILTS) - 1)
    barrier = np.maximum.accumulate(height, 1)[np.arange(len(_TURNS)), last].min()
    rest = height[0, 0]
    angle = float(np.arccos(min(rest / barrier, 1.0)))
    return Stance(float(np.degrees(angle)), float(rest * np.tan(angle)), _poses(hull))


def centre_of_mass(mesh: Mesh) -> Float[np.ndarray, " 3"]:
    """Of what a closed mesh encloses."""
    volume = signed_volumes(mesh)
    return (volume[:, None] * corners(mesh).sum(0)).sum(0) / (4 * volume.sum())


def _heights(points: Float[np.ndarray, "n 3"], ups: Float[np.ndarray, "d t 3"]) -> Float[np.ndarray, "d t"]:
    """Of the centre of mass above the floor; `points` are seen from it."""
    return np.stack([-(row @ points.T).min(1) for row in ups])


def _tilted(up: Float[np.ndarray, " 3"], tilts: Float[np.ndarray, " t"]) -> Float[np.ndarray, "d t 3"]:
    """Directions so far from `up`, to all sides."""
    side = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    side /= np.linalg.norm(side)
    aside = np.cos(_TURNS)[:, None] * side + np.sin(_TURNS)[:, None] * np.cross(up, side)
    return np.cos(tilts)[None, :, None] * up + np.sin(tilts)[None, :, None] * aside[:, None]


def _poses(hull: ConvexHull) -> tuple[RestingPose, ...]:
    """Where a solid comes to rest: it rolls on over the edge of a face beyond which the centre of mass is farthest.

    (After Goldberg, Mirtich, Zhuang, Craig, Carlisle and Canny 1999: the chance of landing on a face is the share of
    all directions that it covers as seen from the centre of mass, here the origin.)
    """
    _, first, face = np.unique(hull.equations[:, :3].round(3), axis=0, return_index=True, return_inverse=True)
    face = face.reshape(-1)  # triangles in one plane are one face
    normal, height = hull.equations[first, :3], -hull.equations[first, 3]
    surface = Mesh(hull.points.astype(np.float32), hull.simplices.astype(np.int64))
    chance = np.bincount(face, np.abs(solid_angles(surface, np.zeros(3))) / (4 * np.pi))
    own, ahead, beyond = np.repeat(face, 3), face[hull.neighbors].ravel(), _beyond(hull).ravel()
    rolls = (own != ahead) & (beyond > 0) & (height[ahead] < height[own])
    order = beyond.argsort()[rolls[beyond.argsort()]]
    end = np.arange(len(first))
    end[own[order]] = ahead[order]  # the last one of a face counts
    while (end[end] != end).any():
        end = end[end]
    return _by_lean(np.bincount(end, chance, len(first)), np.degrees(np.arccos(np.clip(-normal[:, 1], -1, 1))))


def _beyond(hull: ConvexHull) -> Float[np.ndarray, "t 3"]:
    """How far the centre of mass, the origin, is beyond each edge of each triangle, the one opposite its corner."""
    normal, offset = hull.equations[:, None, :3], hull.equations[:, None, 3:]
    corner = hull.points[hull.simplices]
    start, end = np.roll(corner, -1, 1), np.roll(corner, 1, 1)
    out = np.cross(end - start, normal)
    out *= np.sign((out * (start - corner)).sum(-1, keepdims=True)) / np.linalg.norm(out, axis=-1, keepdims=True)
    return ((-offset * normal - start) * out).sum(-1)


def _by_lean(chance: Float[np.ndarray, " n"], lean: Float[np.ndarray, " n"]) -> tuple[RestingPose, ...]:
    """Poses, those with about the same lean as one: a cone lies on its side in many ways."""
    poses = list[RestingPose]()
    while chance.sum() > _RARE:
        most = lean[chance.argmax()]
        like = np.abs(lean - most) < _SETTLES_DEG
        poses.append(RestingPose(float(chance[like].sum()), float(most)))
        chance = np.where(like, 0, chance)
    return tuple(sorted((pose for pose in poses if pose.chance > _RARE), key=lambda pose: -pose.chance))
