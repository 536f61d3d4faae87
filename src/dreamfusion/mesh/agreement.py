"""How well a mesh agrees with the volume rendering of its scene: silhouettes, depth, colours."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamfusion.cameras import Cameras, orbit
from dreamfusion.geometry import normalise
from dreamfusion.lights import Light, albedo_only
from dreamfusion.mesh.triangles import Mesh, vertex_normals
from dreamfusion.nerf.fields import FieldOutput
from dreamfusion.nerf.render import Picture, RenderOptions
from dreamfusion.nerf.scene import Scene
from dreamfusion.nerf.shading import lambert
from dreamfusion.surface import Fragments, colours_at, first_hits
from dreamfusion.video import PreviewCamera, soft_light

OPAQUE = 0.5
"""A pixel belongs to the silhouette where the opacity is above this."""
SIDES = 16
_ELEVATION = math.radians(-10), math.radians(75)  # what training sees
_SHOT = PreviewCamera()  # as the run's own pictures are taken
_GOLDEN = math.pi * (3 - math.sqrt(5))


@dataclass(frozen=True, eq=False)
class Views:
    """A scene, rendered as a volume from all around, unlit."""

    cameras: Cameras
    picture: Picture

    @property
    def opaque(self) -> Bool[Tensor, "b h w"]:
        return self.picture.opacity > OPAQUE


@dataclass(frozen=True)
class Shape:
    """How the outlines and the places of a mesh agree with the rendering, over all views."""

    silhouette_iou: float
    """pixels in both silhouettes, as a share of those in either; mean over the views that show either, 0 if none"""
    depth_error: float
    """mean difference of the distances from the camera where both have something, in radii of the scene's ball; 0 where
    nothing is in both"""


@dataclass(frozen=True)
class Agreement(Shape):
    """The same and how the pictures agree, before the backdrop of the run's own pictures."""

    albedo_psnr_db: float
    """of whole pictures, of which much is the shared backdrop; mean over the views, peak 1"""
    shaded_psnr_db: float
    """the same in soft light"""
    albedo_object_psnr_db: float
    """of the pixels in one of the silhouettes alone; mean over the views that have some, 0 if none has"""
    shaded_object_psnr_db: float
    """the same in soft light"""


def sides(scene: Scene, size: int, turn: float = 0.0) -> Cameras:
    """`SIDES` square views, evenly spread over the directions from which scenes are trained.

    `turn` in [0, 1) moves all of them to other places of the same spiral.
    """
    number = torch.arange(SIDES) + turn
    low, high = (math.sin(limit) for limit in _ELEVATION)
    elevation = torch.asin(low + (high - low) * (number + 0.25) / SIDES)
    like, fov_y = torch.ones(SIDES), _SHOT.fov_y
    cameras = orbit(_GOLDEN * number, elevation, scene.radius / math.sin(fov_y / 2) * like, fov_y * like, size)
    return cameras.to(scene.occupancy.occupied.device)


def views_of(scene: Scene, cameras: Cameras, look: RenderOptions) -> Views:
    """The volume rendering from these cameras."""
    return Views(cameras, _SHOT.render(scene, cameras, albedo_only(len(cameras), cameras.pose.device), look))


def hits(mesh: Mesh, cameras: Cameras) -> tuple[Fragments, Float[Tensor, " m"]]:
    """What the cameras see of a mesh, as `first_hits` tells."""
    vertices, faces = (torch.from_numpy(part).to(cameras.pose.device) for part in (mesh.vertices, mesh.faces))
    return first_hits(vertices, faces, cameras)


def shape_agreement(mesh: Mesh, views: Views, radius: float) -> Shape:
    """Compare outlines and depth; `radius` is the scene's."""
    return _shape(*hits(mesh, views.cameras), views, radius)


def agreement(mesh: Mesh, scene: Scene, views: Views, look: RenderOptions) -> Agreement:
    """Compare outlines, depth and colours."""
    cameras = views.cameras
    seen, distance = hits(mesh, cameras)
    shape = _shape(seen, distance, views, scene.radius)
    lamp = soft_light(cameras)
    unlit = _picture(mesh, seen, cameras, albedo_only(len(cameras), cameras.pose.device)) - views.picture.rgb
    shaded = _picture(mesh, seen, cameras, lamp) - _SHOT.render(scene, cameras, lamp, look).rgb
    either = _covered(seen, cameras) | views.opaque
    frame = torch.ones_like(either)
    return Agreement(
        shape.silhouette_iou,
        shape.depth_error,
        albedo_psnr_db=psnr(unlit, frame),
        shaded_psnr_db=psnr(shaded, frame),
        albedo_object_psnr_db=psnr(unlit, either),
        shaded_object_psnr_db=psnr(shaded, either),
    )


def silhouettes(mesh: Mesh, cameras: Cameras) -> Bool[Tensor, "b h w"]:
    """The pixels that show the mesh."""
    return _covered(hits(mesh, cameras)[0], cameras)


def overlap(one: Bool[Tensor, "b h w"], other: Bool[Tensor, "b h w"]) -> float:
    """Intersection over union, mean over the views in which one of them is; 0 if there are none."""
    either = (one | other).sum((1, 2))
    ratio = (one & other).sum((1, 2)) / either.clamp(min=1)  # 0 for an empty view
    return float(ratio.sum() / (either > 0).sum().clamp(min=1))


def _shape(seen: Fragments, distance: Float[Tensor, " m"], views: Views, radius: float) -> Shape:
    opaque = views.opaque.flatten()[seen.pixel]
    error = (distance - views.picture.depth.flatten()[seen.pixel])[opaque].abs().sum() / opaque.sum().clamp(min=1)
    return Shape(overlap(_covered(seen, views.cameras), views.opaque), float(error) / radius)


def _covered(seen: Fragments, cameras: Cameras) -> Bool[Tensor, "b h w"]:
    covered = torch.zeros(len(cameras), cameras.height, cameras.width, dtype=torch.bool, device=seen.pixel.device)
    covered.view(-1)[seen.pixel] = True
    return covered


def _picture(mesh: Mesh, seen: Fragments, cameras: Cameras, light: Light) -> Float[Tensor, "b h w 3"]:
    """What the cameras see of the mesh, by the light's formula that volumes are lit with."""
    device = cameras.pose.device
    faces = torch.from_numpy(mesh.faces).to(device)
    place = seen.blend(torch.from_numpy(mesh.vertices).to(device)[faces])
    normal = normalise(seen.blend(torch.from_numpy(vertex_normals(mesh)).to(device)[faces]))
    matter = FieldOutput(torch.ones_like(place[:, 0]), _albedo(mesh, seen), normal)
    view = seen.pixel // (cameras.height * cameras.width)
    picture = torch.full((len(cameras), cameras.height, cameras.width, 3), _SHOT.backdrop, device=device)
    picture.view(-1, 3)[seen.pixel] = lambert(matter, place, light, view)
    return picture


def _albedo(mesh: Mesh, seen: Fragments) -> Float[Tensor, "m 3"]:
    """Colours of the texture."""
    assert mesh.uv is not None  # baked before it is judged
    assert mesh.texture is not None
    device = seen.weights.device
    texture = torch.from_numpy(mesh.texture).to(device).movedim(-1, 0)[None] / 255
    return colours_at(texture, seen.blend(torch.from_numpy(mesh.uv).to(device)))


def psnr(difference: Float[Tensor, "b h w 3"], where: Bool[Tensor, "b h w"]) -> float:
    """In dB, for display values at some pixels; mean over the views that have any, 0 if none has.

    Equal pictures count as 100 dB.
    """
    pixels = where.sum((1, 2))
    error = (difference.square().mean(-1) * where).sum((1, 2))[pixels > 0] / pixels[pixels > 0]
    return float((-10 * error.clamp(min=1e-10).log10()).sum() / max(len(error), 1))
