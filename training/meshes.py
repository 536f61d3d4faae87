"""Triangle meshes with colours, and the buffers (albedo, normal, alpha) of their renderings: the prior's raw data.

Needs `trimesh` with `embreex` (the `train` extra).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from dreamfusion.errors import UserError

Array = NDArray[np.floating]
BALL = 0.95  # every object is scaled to touch a ball of this radius about the origin


@dataclass(frozen=True)
class ColouredMesh:
    """Triangles in the world's axes (y up, front +z), centred, inside the ball of radius 0.95.

    `uv` holds texture coordinates per corner, `material` the index of a triangle's texture; a plain colour is a
    texture of one pixel. Textures are sRGB in [0, 1], shape "h w 3".
    """

    triangles: Array  # "f 3 3"
    uv: Array  # "f 3 2"
    material: NDArray[np.integer]  # "f"
    textures: tuple[Array, ...]

    def colour(self, material: NDArray[np.integer], uv: Array) -> Array:
        """sRGB colours "n 3" at texture coordinates "n 2" (nearest texel; v = 0 is the bottom row)."""
        colour = np.empty((len(material), 3))
        for index, texture in enumerate(self.textures):
            mine = material == index
            height, width = texture.shape[:2]
            column = np.floor(uv[mine, 0] % 1.0 * width).astype(int).clip(0, width - 1)
            row = np.floor((1 - uv[mine, 1]) % 1.0 * height).astype(int).clip(0, height - 1)
            colour[mine] = texture[row, column]
        return colour


@dataclass(frozen=True)
class Buffers:
    """What is seen of a mesh from one camera, as `uint8`. Colours are multiplied by the coverage of the pixel.

    `paint` "h w 3" is what has the mesh's main colour, `rest` "h w 3" everything else: their sum is the albedo.
    `normal` "h w 3" in the world (-1..1 as 0..254), `alpha` "h w".
    """

    paint: NDArray[np.uint8]
    rest: NDArray[np.uint8]
    normal: NDArray[np.uint8]
    alpha: NDArray[np.uint8]


def srgb_from_linear(linear: Array) -> Array:
    """IEC 61966-2-1 transfer curve, elementwise on [0, 1]."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def load(path: Path, yaw_deg: float = 0.0) -> ColouredMesh:
    """Read a .glb, turn it by `yaw_deg` about y so that its front looks along +z, centre it and scale it into the ball.

    glTF says that base colour factors are linear and textures are sRGB; both become sRGB here.
    """
    scene = trimesh.load_scene(path, process=False)
    parts = [p for p in scene.dump() if isinstance(p, trimesh.Trimesh) and len(p.faces)]
    if not parts:
        raise UserError(f"{path} holds no triangles; remove it from the noun table or replace the file")
    triangles = _into_ball(np.concatenate([p.triangles for p in parts]).astype(np.float64), yaw_deg)
    uv = np.concatenate([_corner_uv(p) for p in parts])
    material = np.concatenate([np.full(len(p.faces), i) for i, p in enumerate(parts)])
    return ColouredMesh(triangles, uv, material, tuple(_texture(p) for p in parts))


def _into_ball(triangles: Array, yaw_deg: float) -> Array:
    yaw = np.deg2rad(yaw_deg)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    points = triangles.reshape(-1, 3) @ turn.T
    points = points - (points.min(0) + points.max(0)) / 2
    return (points * (BALL / np.linalg.norm(points, axis=1).max())).reshape(-1, 3, 3)


def _corner_uv(part: trimesh.Trimesh) -> Array:
    uv = getattr(part.visual, "uv", None)
    return np.zeros((len(part.faces), 3, 2)) if uv is None else np.asarray(uv)[part.faces]


def _texture(part: trimesh.Trimesh) -> Array:
    material = getattr(part.visual, "material", None)
    factor = np.ones(3)
    if material is not None and getattr(material, "baseColorFactor", None) is not None:
        factor = np.asarray(material.baseColorFactor, dtype=np.float64)[:3]
        factor = srgb_from_linear(factor / 255 if factor.max() > 1 else factor)
    image = getattr(material, "baseColorTexture", None)
    if image is None:
        return factor.reshape(1, 1, 3)
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255 * factor


def main_colour(colour: Array, seen: Array, within: float = 0.22) -> NDArray[np.bool_]:
    """Which triangles have the mesh's main colour, the one seen most, give or take an RGB distance of `within`.

    `colour` "f 3" per triangle, `seen` "f": how many rays from all around meet it. Strong colours count more than
    greys: the paint of a car, not its wheels.
    """
    seen = seen * (0.3 + np.ptp(colour, axis=-1))
    candidates = colour[np.argsort(-seen)[:500]]
    near = np.linalg.norm(candidates[:, None] - colour, axis=-1) < within
    return np.linalg.norm(candidates[np.argmax(near @ seen)] - colour, axis=-1) < within


class MeshRenderer:
    """Casts rays at one mesh and averages `supersample`^2 of them in each pixel."""

    def __init__(self, mesh: ColouredMesh):
        from trimesh.ray.ray_pyembree import RayMeshIntersector

        self.mesh = mesh
        faces = np.arange(len(mesh.triangles) * 3).reshape(-1, 3)
        self.shape = trimesh.Trimesh(mesh.triangles.reshape(-1, 3), faces, process=False)
        self.caster = RayMeshIntersector(self.shape)
        self.main = main_colour(mesh.colour(mesh.material, mesh.uv.mean(1)), self._seen(20_000))

    def _seen(self, rays: int) -> Array:
        """How many of many rays, between random points of a sphere around the mesh, meet each triangle first."""
        points = np.random.default_rng(0).normal(size=(2, rays, 3))
        start, end = points / np.linalg.norm(points, axis=-1, keepdims=True)
        start[:, 1] = np.abs(start[:, 1])  # nobody looks from below
        face = self.caster.intersects_first(start, end - start)
        return np.bincount(face[face >= 0], minlength=len(self.mesh.triangles)).astype(np.float64)

    def buffers(self, origin: Array, direction: Array, size: int, supersample: int) -> Buffers:
        """Buffers of a square picture; rays are row-major over the (size * supersample)^2 grid, arrays "n 3"."""
        face = self.caster.intersects_first(origin, direction)
        hit = face >= 0
        albedo, normal = np.zeros((len(face), 3)), np.zeros((len(face), 3))
        albedo[hit], normal[hit] = self._surface(face[hit], origin[hit], direction[hit])
        main = (hit & self.main[face])[:, None]

        def pool(values: Array) -> Array:  # a sum of few large slices: four times as fast as a mean over tiny axes
            grid = values.reshape(size * supersample, size * supersample, -1)
            parts = [grid[i::supersample, j::supersample] for i in range(supersample) for j in range(supersample)]
            return sum(parts[1:], parts[0]) / supersample**2

        alpha = pool(hit[:, None].astype(np.float64))
        return Buffers(
            paint=np.round(pool(albedo * main) * 255).astype(np.uint8),
            rest=np.round(pool(albedo * ~main) * 255).astype(np.uint8),
            normal=np.round(pool(normal) / np.maximum(alpha, 1e-6) * 127 + 127).astype(np.uint8),
            alpha=np.round(alpha[..., 0] * 255).astype(np.uint8),
        )

    def _surface(self, face: NDArray[np.integer], origin: Array, direction: Array) -> tuple[Array, Array]:
        corners = self.mesh.triangles[face]
        normal = self.shape.face_normals[face]
        facing = np.sum(normal * direction, axis=1)
        along = np.sum((corners[:, 0] - origin) * normal, axis=1) / np.where(np.abs(facing) < 1e-9, 1e-9, facing)
        weights = barycentric(corners, origin + along[:, None] * direction)
        uv = np.einsum("nk,nkd->nd", weights, self.mesh.uv[face])
        return self.mesh.colour(self.mesh.material[face], uv), np.where(facing[:, None] > 0, -normal, normal)


def barycentric(corners: Array, points: Array) -> Array:
    """Weights "n 3" of the corners "n 3 3" at points "n 3" in the triangles' planes; equal ones without an area."""
    a, b, p = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    aa, ab, bb, pa, pb = ((u * v).sum(-1) for u, v in ((a, a), (a, b), (b, b), (p, a), (p, b)))
    area = aa * bb - ab * ab
    flat = area < 1e-18
    area = np.where(flat, 1.0, area)
    v, w = (bb * pa - ab * pb) / area, (aa * pb - ab * pa) / area
    v, w = np.where(flat, 1 / 3, v), np.where(flat, 1 / 3, w)
    return np.stack([1 - v - w, v, w], axis=-1)
