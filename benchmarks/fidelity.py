"""How near a scene is to the thing that it should show: colours, outline and normals in pictures from all around."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamfusion.evaluate import evaluation_views as views
from dreamfusion.geometry import normalise
from dreamfusion.lights import albedo_only
from dreamfusion.mesh import Mesh
from dreamfusion.mesh.agreement import OPAQUE, overlap, psnr
from dreamfusion.nerf.render import RenderOptions, render_views
from dreamfusion.nerf.scene import Scene
from oracle import Maps, Thing
from training.meshes import ColouredMesh, MeshRenderer


@dataclass(frozen=True)
class Fidelity:
    """Means over the eight evaluation views at 128 pixels."""

    object_psnr_db: float
    """of the unlit colours, over the pixels of the two silhouettes"""
    silhouette_iou: float
    normal_error_deg: float
    """mean angle between the normals, over the pixels of both silhouettes; 90 where nothing is in both"""


def compared(shown: Maps, true: Maps) -> Fidelity:
    """How far pictures of a scene are from the true ones."""
    ours, theirs = (maps.alpha[..., 0] > OPAQUE for maps in (shown, true))
    difference = _before_backdrop(shown) - _before_backdrop(true)
    return Fidelity(
        object_psnr_db=psnr(difference, ours | theirs),
        silhouette_iou=overlap(ours, theirs),
        normal_error_deg=_angle(shown.normal, true.normal, ours & theirs),
    )


def maps_of(scene: Scene, options: RenderOptions, size: int = views.SIZE) -> Maps:
    """A scene from the eight sides."""
    ring = views.cameras(scene.radius, size).to(scene.occupancy.density.device)
    black, unlit = torch.zeros_like(ring.position), albedo_only(len(ring), ring.pose.device)
    picture = render_views(scene, ring, unlit, replace(options, normals=True), black)
    assert picture.normal is not None  # because they were asked for
    return Maps(picture.rgb, picture.normal, picture.opacity[..., None])


def thing_of(mesh: Mesh) -> Thing:
    """A finished mesh as a thing, seen as a viewer without light shows it; its normals are those of the faces."""
    assert mesh.uv is not None  # `make_mesh` bakes
    assert mesh.texture is not None
    material = np.zeros(len(mesh.faces), dtype=np.int64)
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    return Thing(MeshRenderer(ColouredMesh(corners, mesh.uv, material, (mesh.texture / 255.0,))))


def fidelity(scene: Scene, options: RenderOptions, thing: Thing) -> Fidelity:
    """How near a scene is to a thing, by volume rendering."""
    return compared(maps_of(scene, options), thing.maps(views.cameras(scene.radius)))


def _before_backdrop(maps: Maps) -> Float[Tensor, "b h w 3"]:
    return maps.albedo + (1 - maps.alpha) * views.BACKDROP


def _angle(one: Float[Tensor, "b h w 3"], other: Float[Tensor, "b h w 3"], where: Bool[Tensor, "b h w"]) -> float:
    """Mean angle in degrees at some pixels of each view, mean over the views."""
    cosine = (normalise(one) * normalise(other)).sum(-1).clamp(-1, 1)
    angle = torch.rad2deg(torch.acos(cosine)) * where
    pixels = where.sum((1, 2))
    return float(torch.where(pixels > 0, angle.sum((1, 2)) / pixels.clamp(min=1), 90.0).mean())
