"""A triangle mesh, and what follows from its triangles alone."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh in world axes (y up, the front looks along +z), faces counter-clockwise from outside.

    Neighbouring faces share their vertices, also across the seams of the texture: texture coordinates belong to the
    corners of faces.
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    colours: Float[np.ndarray, "v 3"] | None = None
    """display (sRGB) values in [0, 1] per vertex; None before `paint`"""
    uv: Float[np.ndarray, "f 3 2"] | None = None
    """of each face's corners in the texture, in [0, 1]; v = 0 is the bottom row. None before `bake`"""
    texture: UInt8[np.ndarray, "size size 3"] | None = None
    """display values, the top row first; None before `bake`"""
    normal_map: UInt8[np.ndarray, "size size 3"] | None = None
    """normals in the axes of `tangents`, -1..1 as 0..255; None without a normal map"""
    lit: bool = False
    """whether the texture holds light already, so that viewers should add none"""


@dataclass(frozen=True, eq=False)
class Split:
    """The vertices as in files: one for each pair of a vertex and its texture coordinate."""

    vertex: Int[np.ndarray, " n"]
    """number in the mesh"""
    uv: Float[np.ndarray, "n 2"]
    faces: Int[np.ndarray, "f 3"]


def split(mesh: Mesh) -> Split:
    """Cut the mesh open at the seams of its texture."""
    assert mesh.uv is not None  # there are seams only in a texture
    keys = np.column_stack([mesh.faces.ravel(), mesh.uv.reshape(-1, 2).astype(np.float64)])
    rows, faces = np.unique(keys, axis=0, return_inverse=True)
    return Split(rows[:, 0].astype(np.int64), rows[:, 1:].astype(np.float32), faces.reshape(-1, 3))


def tangents(mesh: Mesh, cut: Split) -> Float[np.ndarray, "n 4"]:
    """Tangent frames at the vertices of a split mesh, as glTF has them: unit vectors along growing u, and a sign.

    With the normal N and the tangent T the third axis is sign * N x T; it points along growing v. Tangents are
    perpendicular to the normals.
    """
    normal = vertex_normals(mesh)[cut.vertex].astype(np.float64)
    a, b, c = mesh.vertices.astype(np.float64)[cut.vertex][cut.faces].transpose(1, 0, 2)
    p, q, r = cut.uv.astype(np.float64)[cut.faces].transpose(1, 0, 2)
    (du1, dv1), (du2, dv2) = (q - p).T, (r - p).T
    turn = np.sign(du1 * dv2 - du2 * dv1)[:, None]  # the length of a face's contribution is its area in the mesh
    along_u = turn * (dv2[:, None] * (b - a) - dv1[:, None] * (c - a))
    total, signs = np.zeros_like(normal), np.zeros(len(normal))
    for corner in range(3):
        np.add.at(total, cut.faces[:, corner], along_u)
        np.add.at(signs, cut.faces[:, corner], turn[:, 0])
    total -= (total * normal).sum(1, keepdims=True) * normal
    any_across = np.cross(normal, np.eye(3)[np.abs(normal).argmin(1)])  # for vertices of faces without extent in u
    tangent = np.where(_cancelled(total, along_u, cut.faces)[:, None], any_across, total)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    return np.column_stack([tangent, np.where(signs < 0, -1.0, 1.0)]).astype(np.float32)


def vertex_normals(mesh: Mesh) -> Float[np.ndarray, "v 3"]:
    """Outward unit normals at the vertices: the sum of the adjacent faces' normals, weighted by area.

    Where they cancel, or there are none, +y.
    """
    a, b, c = corners(mesh)
    across = np.cross(b - a, c - a)
    total = np.zeros(mesh.vertices.shape)
    for corner in range(3):
        np.add.at(total, mesh.faces[:, corner], across)
    total[_cancelled(total, across, mesh.faces)] = (0, 1, 0)
    return (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)


def _cancelled(
    total: Float[np.ndarray, "v 3"], parts: Float[np.ndarray, "f 3"], faces: Int[np.ndarray, "f 3"]
) -> Bool[np.ndarray, " v"]:
    """Where what the faces add to their vertices sums to nothing, or to no more than single precision's rounding."""
    most = np.zeros(len(total))
    for corner in range(3):
        np.add.at(most, faces[:, corner], np.linalg.norm(parts, axis=1))
    return np.linalg.norm(total, axis=1) <= 1e-6 * most


def closed(mesh: Mesh) -> bool:
    """Whether every edge joins two faces, wound alike, when vertices at one place count as one.

    So do files without indices (`.stl`) tell which faces are neighbours. Faces that have no extent then do not count.
    """
    _, place = np.unique(mesh.vertices, axis=0, return_inverse=True)
    a, b, c = place.reshape(-1)[mesh.faces].T
    seen = (a != b) & (b != c) & (c != a)
    edges = np.concatenate([np.stack([p[seen], q[seen]], 1) for p, q in ((a, b), (b, c), (c, a))])
    there = np.unique(edges, axis=0)
    return len(there) == len(edges) and np.array_equal(there, np.unique(edges[:, ::-1], axis=0))


def signed_volumes(mesh: Mesh) -> Float[np.ndarray, " f"]:
    """Volume of the tetrahedron from the origin to each face; over a closed part they add up to what it encloses."""
    a, b, c = corners(mesh)
    return (a * np.cross(b, c)).sum(1) / 6


def solid_angles(mesh: Mesh, place: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " f"]:
    """What each face covers of the view from a place, in steradians; positive for faces seen from inside.

    tan(angle / 2) = a . (b x c) / (1 + a . b + b . c + c . a) for unit vectors to the corners (Van Oosterom and
    Strackee 1983). A closed part covers 4 pi of the view from inside it and 0 from outside.
    """
    a, b, c = (way / np.linalg.norm(way, axis=1, keepdims=True) for way in corners(mesh) - place)
    return 2 * np.arctan2((a * np.cross(b, c)).sum(1), 1 + (a * b + b * c + c * a).sum(1))


def corners(mesh: Mesh) -> Float[np.ndarray, "3 f 3"]:
    """The three corners of every face, in double precision."""
    return mesh.vertices.astype(np.float64)[mesh.faces].transpose(1, 0, 2)


def standing(mesh: Mesh) -> Float[np.ndarray, "v 3"]:
    """The vertices on the ground (y = 0) over the origin, y up, the longest side 1 long."""
    foot, size = _foot(mesh)
    return (mesh.vertices - foot) / size


def ball_standing(mesh: Mesh, centre: Float[np.ndarray, " 3"], radius: float) -> list[float]:
    """Centre and radius of a ball about the mesh, once it is `standing`."""
    foot, size = _foot(mesh)
    return [*((centre - foot) / size).tolist(), radius / float(size)]


def _foot(mesh: Mesh) -> tuple[Float[np.ndarray, " 3"], np.floating]:
    """The point of the ground below the middle of the mesh, and its longest side."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    middle = (low + high) / 2
    return np.array([middle[0], low[1], middle[2]], np.float32), (high - low).max()
