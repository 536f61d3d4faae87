"""Vertex colours from the field, and the two encodings of colour."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.compositing import composite
from dreamfusion.mesh.extract import Mesh, device_of
from dreamfusion.rays import Gaussians
from dreamfusion.scene import Scene

_SAMPLES = 12  # points along the normal
_CHUNK = 1 << 13  # vertices per evaluation of the field


def paint(mesh: Mesh, scene: Scene, depth: float = 0.1) -> Mesh:
    """The mesh with the colours that its surface shows to a ray along the inward normal.

    The ray starts a quarter of `depth` (in bounding radii) before the surface and ends three quarters behind it. Its
    albedo is composited as in a rendering and divided by its opacity, so that neither the inside nor the background
    shows.
    """
    vertices, inward = (torch.from_numpy(part).to(device_of(scene)) for part in (mesh.vertices, -vertex_normals(mesh)))
    length = depth * scene.radius
    t = torch.linspace(-length / 4, 3 * length / 4, _SAMPLES + 1, device=vertices.device)
    with torch.no_grad():
        chunks = zip(vertices.split(_CHUNK), inward.split(_CHUNK), strict=True)
        colours = torch.cat([_surface_albedo(scene, start, way, t) for start, way in chunks])
    return replace(mesh, colours=colours.clamp(0, 1).cpu().numpy())


def _surface_albedo(
    scene: Scene, start: Float[Tensor, "v 3"], way: Float[Tensor, "v 3"], t: Float[Tensor, " s1"]
) -> Float[Tensor, "v 3"]:
    middle = (t[1:] + t[:-1]) / 2
    points = start[:, None] + way[:, None] * middle[:, None]
    mean = points.reshape(-1, 3)
    matter = scene.field.matter(Gaussians(mean, torch.full_like(mean, float(t[1] - t[0]) ** 2 / 12)))
    weights = composite(matter.density.reshape(points.shape[:2]), t.expand(len(start), -1))
    weights = weights + 1e-6  # where nothing is dense (a vertex that smoothing moved) the plain mean is left
    albedo = matter.albedo.reshape(points.shape)
    return (weights[..., None] * albedo).sum(1) / weights.sum(1, keepdim=True)


def vertex_normals(mesh: Mesh) -> Float[np.ndarray, "v 3"]:
    """Outward unit normals at the vertices: the sum of the adjacent faces' normals, weighted by area."""
    a, b, c = mesh.vertices.astype(np.float64)[mesh.faces].transpose(1, 0, 2)
    across = np.cross(b - a, c - a)
    total = np.zeros(mesh.vertices.shape)
    for corner in range(3):
        np.add.at(total, mesh.faces[:, corner], across)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.maximum(length, np.finfo(np.float64).tiny)).astype(np.float32)


def linear_from_srgb(display: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Light intensity from display values, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4).astype(display.dtype)


def srgb_from_linear(linear: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Display values from light intensity, both in [0, 1]; the inverse of `linear_from_srgb`."""
    bright = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, bright).astype(linear.dtype)
