"""Colour of a scene's surface, and the two encodings of colour (linear, sRGB)."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.mesh.sample import density_at, device_of
from dreamfusion.mesh.triangles import Mesh, vertex_normals
from dreamfusion.nerf.compositing import composed
from dreamfusion.nerf.fields import Field, FieldOutput, Gaussians, precomputed, surface
from dreamfusion.nerf.scene import Scene

_DEPTH = 0.1  # length of the rays that see the surface, in radii of the scene's ball
_SAMPLES = 8  # points on each
_CHUNK = 1 << 13  # rays at a time
_OFF = 0.03  # farther from the nearest vertex of the surface, in radii, a place is not on it
_COUNTS = 0.01  # samples of less weight than this, and than any other of their ray, are not asked for their colour


def paint(mesh: Mesh, scene: Scene, like: Mesh | None = None) -> Mesh:
    """The mesh with the colours that its vertices show to rays along their inward normals, see `look_at_surface`.

    `like`: the scene's surface, for a mesh that was changed; see `beside`.
    """
    device = device_of(scene)
    place, normal = (torch.from_numpy(part).to(device) for part in (mesh.vertices, vertex_normals(mesh)))
    place, normal = beside(place, normal, like, scene.radius)
    return replace(mesh, colours=look_at_surface(scene, place, -normal, False).albedo.clamp(0, 1).cpu().numpy())


def beside(
    place: Float[Tensor, "n 3"], normal: Float[Tensor, "n 3"], like: Mesh | None, radius: float
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Where on the scene's surface `like`, whose ball has this radius, colours for some places are found.

    That is the places themselves, and the nearest vertex for those that are off the surface: there the field was never
    seen, and has no colour that means anything.
    """
    if like is None:
        return place, normal
    from scipy.spatial import KDTree  # here, as only changed meshes need it

    distance, nearest = (torch.from_numpy(part) for part in KDTree(like.vertices).query(place.cpu().numpy()))
    off = (distance > _OFF * radius)[:, None].to(place.device)
    there, along = (torch.from_numpy(part)[nearest].to(place) for part in (like.vertices, vertex_normals(like)))
    return torch.where(off, there, place), torch.where(off, along, normal)


@torch.no_grad()
def look_at_surface(
    scene: Scene, place: Float[Tensor, "n 3"], inward: Float[Tensor, "n 3"], normals: bool
) -> FieldOutput:
    """What rays see that pass through places of the surface along the unit vectors `inward`.

    A ray starts a quarter of its length before the surface and ends three quarters behind it. What it meets is
    composited as in a rendering and divided by the opacity, so that neither the inside nor the background shows. The
    density of the answer has no meaning.
    """
    length = _DEPTH * scene.radius
    t = torch.linspace(-length / 4, 3 * length / 4, _SAMPLES + 1, device=place.device)
    field = precomputed(scene.field)
    parts = [
        _composited(scene, field, start, way, t, normals)
        for start, way in zip(place.split(_CHUNK), inward.split(_CHUNK), strict=True)
    ]
    return FieldOutput(
        torch.cat([part.density for part in parts]),
        torch.cat([part.albedo for part in parts]),
        torch.cat([part.normal for part in parts if part.normal is not None]) if normals else None,
    )


def _composited(
    scene: Scene,
    field: Field,
    start: Float[Tensor, "n 3"],
    way: Float[Tensor, "n 3"],
    t: Float[Tensor, " s1"],
    normals: bool,
) -> FieldOutput:
    mean = torch.addcmul(start[:, None], way[:, None], ((t[1:] + t[:-1]) / 2)[:, None]).reshape(-1, 3)
    width = float(t[1] - t[0])
    density = density_at(scene, field, mean, width)
    weights = composed(density.view(len(start), -1), t.expand(len(start), -1)).weights
    weights = weights + 1e-6  # where nothing is dense (a vertex that was moved) the plain mean is left
    weights = weights / weights.sum(-1, keepdim=True)
    index = (weights >= weights.amax(-1, keepdim=True).clamp(max=_COUNTS)).flatten().nonzero()[:, 0]
    weight, row = weights.flatten()[index], index // weights.shape[1]
    at = Gaussians(mean[index], torch.full_like(mean[index], width**2 / 12))
    matter = surface(field, at, create_graph=False) if normals else field.evaluate(at)

    def per_ray(values: Float[Tensor, "m 3"]) -> Float[Tensor, "n 3"]:
        return torch.zeros_like(start).index_add(0, row, weight[:, None] * values)

    share = torch.zeros_like(weights[:, 0]).index_add(0, row, weight)[:, None]
    normal = None if matter.normal is None else torch.nn.functional.normalize(per_ray(matter.normal), dim=-1)
    return FieldOutput(share[:, 0], per_ray(matter.albedo) / share, normal)


def linear_from_srgb(display: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Light intensity from display values, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4).astype(display.dtype)


def srgb_from_linear(linear: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Display values from light intensity, both in [0, 1]; the inverse of `linear_from_srgb`."""
    bright = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, bright).astype(linear.dtype)
