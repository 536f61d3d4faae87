"""Volume rendering: from a scene, cameras and lights to pictures.

Rays carry a dense table of bins, `t: "n s+1"`; everything between the table and the pixels is *packed*: a flat list of
the samples that are worth a question to the field, with the number of the ray each belongs to. Samples are dropped in
two steps: those in empty cells of the occupancy grid, then, after a density pass without gradients, those whose weight
is so small that nobody could see them.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.fields import Gaussians, Matter, surface
from dreamfusion.fields.encoding import isotropic
from dreamfusion.geometry import intersect_ball
from dreamfusion.lights import Light
from dreamfusion.rays import Rays, cast, gaussians, stratified
from dreamfusion.scene import Scene
from dreamfusion.shading import lambert

OPAQUE = 100.0
"""Optical depth from which on a bin is simply opaque: exp(-100) is less than the least float32."""
CLEAR = 1e-6
"""Opacity under which a ray is held to show nothing, where something is divided by its opacity."""


@dataclass(frozen=True)
class RenderOptions:
    """How finely to look."""

    samples: int = 64
    """bins per ray, between the points where it enters and leaves the scene's ball"""
    chunk: int = 16384
    """rays that `render_views` takes at a time; bounds its memory, changes nothing in the picture"""
    weight_threshold: float = 1e-3
    """Samples whose weight is not above this are left out of the second pass. They still hide what lies behind them
    and count in opacity and depth, but get no gradient, and take the mean colour of their ray's other samples.
    0 asks the field, with gradients, at every sample in an occupied cell."""
    normals: bool = False
    """compose normals even if no light asks for them"""
    variance: float | None = None
    """replaces the covariance of every sample by this times the identity (the paper's annealed lambda_Sigma)"""


@dataclass(frozen=True, eq=False)
class Picture:
    """What the pixels show."""

    rgb: Float[Tensor, "b h w 3"]
    """with the background; in [0, 1] for lights whose ambient and diffuse parts sum to at most 1"""
    opacity: Float[Tensor, "b h w"]
    """in [0, 1]"""
    depth: Float[Tensor, "b h w"]
    """mean distance from the camera to the matter that the pixel shows; 0 where it shows none"""
    normal: Float[Tensor, "b h w 3"] | None
    """weighted sum of the normals along the ray, in the world's axes; its length is at most the opacity"""


@dataclass(frozen=True, eq=False)
class RaySamples:
    """What happened along the rays: the dense table, and the packed list of the samples that have gradients."""

    weights: Float[Tensor, "n s"]
    """share of each bin in its ray's colour; they sum to the opacity"""
    t: Float[Tensor, "n s+1"]
    ray: Int[Tensor, " m"]
    """number of the ray of each packed sample, ascending"""
    weight: Float[Tensor, " m"]
    density: Float[Tensor, " m"]
    direction: Float[Tensor, "m 3"]
    """of the ray, away from the camera"""
    normal: Float[Tensor, "m 3"] | None


@dataclass(frozen=True, eq=False)
class Render(Picture):
    """Pictures with gradients, and what a regulariser needs to know of how they came about."""

    along: RaySamples


def render(
    scene: Scene,
    cameras: Cameras,
    light: Light,
    options: RenderOptions,
    generator: Generator | None = None,
    background: Float[Tensor, "b 3"] | None = None,
) -> Render:
    """Differentiable pictures of all views.

    generator: jitters the samples; without one they are evenly spaced. background: plain colours to put behind the
    views, in [0, 1], in place of the scene's own background.
    """
    rays, view = _rays_and_views(cameras)
    sums, along = _march(scene, rays, view, light, options, generator)
    behind = scene.background.colour(rays.direction) if background is None else background[view]
    picture = _picture(sums, behind, cameras)
    return Render(picture.rgb, picture.opacity, picture.depth, picture.normal, along)


@torch.no_grad()
def render_views(
    scene: Scene,
    cameras: Cameras,
    light: Light,
    options: RenderOptions,
    background: Float[Tensor, "b 3"] | None = None,
) -> Picture:
    """The same pictures as `render`'s without a generator, view by view in pieces, without gradients: for any size."""
    options = replace(options, normals=options.normals or bool((light.diffuse > 0).any()))
    pictures = []
    for i in range(len(cameras)):
        one = slice(i, i + 1)
        pictures.append(
            _view(scene, cameras[one], light[one], options, None if background is None else background[one])
        )
    normals = [picture.normal for picture in pictures if picture.normal is not None]
    return Picture(
        rgb=torch.cat([picture.rgb for picture in pictures]),
        opacity=torch.cat([picture.opacity for picture in pictures]),
        depth=torch.cat([picture.depth for picture in pictures]),
        normal=torch.cat(normals) if normals else None,
    )


def _view(
    scene: Scene, camera: Cameras, light: Light, options: RenderOptions, background: Float[Tensor, "1 3"] | None
) -> Picture:
    """One view, `options.chunk` rays at a time."""
    rays, view = _rays_and_views(camera)
    parts = []
    for start in range(0, len(rays), options.chunk):
        piece = slice(start, start + options.chunk)
        parts.append(_march(scene, rays[piece], view[piece], light, options, None)[0])
    behind = scene.background.colour(rays.direction) if background is None else background[view]
    return _picture(_joined(parts), behind, camera)


def composite(density: Float[Tensor, "n s"], t: Float[Tensor, "n s+1"]) -> Float[Tensor, "n s"]:
    """Weights of the bins between neighbouring `t`, exact for constant density in each bin (mip-NeRF, equation 1).

    w_i = T_i (1 - exp(-density_i delta_i)), T_i = exp(-sum over j < i of density_j delta_j). They are >= 0 and sum to
    at most 1; values and gradients are finite for every finite density >= 0.
    """
    # The clamp changes no value; it keeps infinities out of the sum and of the gradients.
    depth = (density * t.diff(dim=-1)).clamp(max=OPAQUE)
    before = F.pad(depth[:, :-1].cumsum(-1), (1, 0))
    return torch.exp(-before) * -torch.expm1(-depth)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums along rays, before the background."""

    colour: Float[Tensor, "n 3"]
    opacity: Float[Tensor, " n"]
    depth: Float[Tensor, " n"]
    normal: Float[Tensor, "n 3"] | None


@dataclass(frozen=True, eq=False)
class _Samples:
    """Packed samples: where they are, and their place in the flattened table "n*s"."""

    index: Int[Tensor, " m"]
    at: Gaussians

    def __getitem__(self, keep: Bool[Tensor, " m"]) -> "_Samples":
        chosen = keep.nonzero()[:, 0]
        return _Samples(self.index[chosen], Gaussians(mean=self.at.mean[chosen], var=self.at.var[chosen]))


def _rays_and_views(cameras: Cameras) -> tuple[Rays, Int[Tensor, " n"]]:
    view = torch.arange(len(cameras), device=cameras.pose.device)
    return cast(cameras), view.repeat_interleave(cameras.height * cameras.width)


def _march(
    scene: Scene,
    rays: Rays,
    view: Int[Tensor, " n"],
    light: Light,
    options: RenderOptions,
    generator: Generator | None,
) -> tuple[_Sums, RaySamples]:
    t = stratified(*intersect_ball(rays.origin, rays.direction, scene.radius), options.samples, generator)
    samples = _occupied(scene, rays, t, options)
    density = t.new_zeros(len(t) * options.samples)
    if options.weight_threshold > 0:
        with torch.no_grad():
            density[samples.index] = scene.field.density(samples.at)
            weights = composite(density.view(len(t), -1), t).flatten()
        samples = samples[weights[samples.index] > options.weight_threshold]
    matter = _matter(scene, samples.at, with_normals=options.normals or bool((light.diffuse > 0).any()))
    weights = composite(density.index_copy(0, samples.index, matter.density).view(len(t), -1), t)
    ray = samples.index // options.samples
    along = RaySamples(
        weights=weights,
        t=t,
        ray=ray,
        weight=weights.flatten()[samples.index],
        density=matter.density,
        direction=rays.direction[ray],
        normal=matter.normal,
    )
    return _summed(along, lambert(matter, samples.at.mean, light, view[ray])), along


def _occupied(scene: Scene, rays: Rays, t: Float[Tensor, "n edges"], options: RenderOptions) -> _Samples:
    """The samples that may hold matter: inside the ball and in an occupied cell."""
    middle = 0.5 * (t[:, 1:] + t[:, :-1])
    points = torch.addcmul(rays.origin[:, None], rays.direction[:, None], middle[..., None])
    hit = (t[:, -1] > t[:, 0])[:, None]
    index = (scene.occupancy.mask(points) & hit).flatten().nonzero()[:, 0]
    ray, bin_ = index // options.samples, index % options.samples
    edges = torch.stack([t[ray, bin_], t[ray, bin_ + 1]], dim=-1)
    mean, var = gaussians(Rays(rays.origin[ray], rays.direction[ray], rays.radius[ray]), edges)
    at = Gaussians(mean=mean[:, 0], var=var[:, 0])
    return _Samples(index, at if options.variance is None else isotropic(at, options.variance))


def _matter(scene: Scene, at: Gaussians, with_normals: bool) -> Matter:
    if with_normals:
        return surface(scene.field, at, create_graph=torch.is_grad_enabled())
    return scene.field.matter(at)


def _summed(along: RaySamples, colour: Float[Tensor, "m 3"]) -> _Sums:
    opacity = along.weights.sum(-1)
    middle = 0.5 * (along.t[:, 1:] + along.t[:, :-1])
    return _Sums(
        colour=_per_ray(along, colour) * _completion(along, opacity.detach())[:, None],
        opacity=opacity,
        depth=(along.weights * middle).sum(-1) / opacity.clamp(min=CLEAR),
        normal=None if along.normal is None else _per_ray(along, along.normal),
    )


def _per_ray(along: RaySamples, values: Float[Tensor, "m c"]) -> Float[Tensor, "n c"]:
    """Weighted sum of the packed samples' values along each ray."""
    weighted = along.weight[:, None] * values
    return weighted.new_zeros(len(along.t), values.shape[1]).index_add(0, along.ray, weighted)


def _completion(along: RaySamples, opacity: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """What to multiply the packed samples' colour with so that it stands for the whole ray: opacity / packed weight."""
    packed = torch.zeros_like(opacity).index_add(0, along.ray, along.weight.detach())
    return torch.where(packed > 0, opacity / packed.clamp(min=torch.finfo(packed.dtype).tiny), 1.0)


def _picture(sums: _Sums, behind: Float[Tensor, "n 3"], cameras: Cameras) -> Picture:
    shape = (len(cameras), cameras.height, cameras.width)
    rgb = sums.colour + (1 - sums.opacity)[:, None] * behind
    return Picture(
        rgb=rgb.view(*shape, 3),
        opacity=sums.opacity.view(shape),
        depth=sums.depth.view(shape),
        normal=None if sums.normal is None else sums.normal.view(*shape, 3),
    )


def _joined(parts: list[_Sums]) -> _Sums:
    normals = [part.normal for part in parts if part.normal is not None]
    return _Sums(
        colour=torch.cat([part.colour for part in parts]),
        opacity=torch.cat([part.opacity for part in parts]),
        depth=torch.cat([part.depth for part in parts]),
        normal=torch.cat(normals) if normals else None,
    )
