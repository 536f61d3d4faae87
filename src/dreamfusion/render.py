"""Volume rendering: from a scene, cameras and lights to pictures.

The dearer the question to the field, the fewer samples it is put to (see `samples`): density without gradients to those
in occupied cells; density with gradients to those that can be seen; colour and normal to those that make up the colour
of their ray.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.compositing import Composition, composed, learning
from dreamfusion.fields import Field, Gaussians, Matter, prepared, surface
from dreamfusion.lights import Light
from dreamfusion.rays import Rays, cast
from dreamfusion.samples import Bins, Samples, cut, occupied, visible
from dreamfusion.scene import Scene
from dreamfusion.shading import lambert

CLEAR = 1e-6
"""Opacity under which a ray is held to show nothing, where something is divided by its opacity."""


@dataclass(frozen=True)
class RenderOptions:
    """How finely to look."""

    samples: int = 64
    """bins per ray, between where it enters and leaves the box of occupied cells"""
    chunk: int = 16384
    """rays that `render_views` takes at a time; bounds its memory, changes nothing in the picture"""
    weight_threshold: float = 1e-3
    """Samples whose weight is not above this get no gradient. They still hide what lies behind them, and count in
    opacity and depth. 0 asks the field, with gradients, at every sample in an occupied cell."""
    colour_threshold: float = 1e-3
    """Samples whose weight is not above this, and not the greatest of their ray, are not asked for colour and normal:
    they take the mean colour of the samples of their ray that are. Their densities learn all the same."""
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
    """What happened along the rays: the dense table of the r rays that may hit matter, and its coloured samples."""

    rays: int
    """number of all rays, also those that pass by"""
    weights: Float[Tensor, "r s"]
    """share of each bin in its ray's colour; they sum to the opacity"""
    t: Float[Tensor, "r s+1"]
    row: Int[Tensor, " m"]
    """of the table, for each coloured sample; ascending"""
    weight: Float[Tensor, " m"]
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


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums along rays, before the background."""

    colour: Float[Tensor, "n 3"]
    opacity: Float[Tensor, " n"]
    depth: Float[Tensor, " n"]
    normal: Float[Tensor, "n 3"] | None


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
    field, bins = prepared(scene.field), cut(scene, rays, options.samples, generator)
    samples = occupied(scene, bins, options.variance)
    if options.weight_threshold > 0:
        with torch.no_grad():
            composition = _composed(bins, samples, field.density(samples.at))
        plain, coloured = visible(samples, composition.weights, options.weight_threshold, options.colour_threshold)
        matter = _matter(field, coloured.at, light.lit or options.normals)
        density = torch.cat([field.density(plain.at), matter.density])
        weights = learning(composition, torch.cat([plain.index, coloured.index]), density)
    else:
        coloured, matter = samples, _matter(field, samples.at, light.lit or options.normals)
        weights = learning(_composed(bins, samples, matter.density), samples.index, matter.density)
    row = coloured.index // options.samples
    along = RaySamples(
        rays=len(rays),
        weights=weights,
        t=bins.t,
        row=row,
        weight=weights.flatten().index_select(0, coloured.index),
        direction=bins.rays.direction[row],
        normal=matter.normal,
    )
    colour = lambert(matter, coloured.at.mean, light, view[bins.number[row]])
    return _summed(along, colour, bins.number), along


def _composed(bins: Bins, samples: Samples, density: Float[Tensor, " m"]) -> Composition:
    table = torch.zeros_like(bins.t[:, 1:])
    table.view(-1)[samples.index] = density.detach()
    return composed(table, bins.t)


def _matter(field: Field, at: Gaussians, with_normals: bool) -> Matter:
    if with_normals:
        return surface(field, at, create_graph=torch.is_grad_enabled())
    return field.matter(at)


def _summed(along: RaySamples, colour: Float[Tensor, "m 3"], number: Int[Tensor, " r"]) -> _Sums:
    opacity = along.weights.sum(-1)
    middle = 0.5 * (along.t[:, 1:] + along.t[:, :-1])
    depth = (along.weights * middle).sum(-1) / opacity.clamp(min=CLEAR)
    # The coloured samples stand for the whole ray.
    packed = torch.zeros_like(opacity).index_add(0, along.row, along.weight)
    share = torch.where(packed > 0, opacity / packed.clamp(min=torch.finfo(packed.dtype).tiny), 1.0)
    normal = None if along.normal is None else _all_rays(along, number, _per_ray(along, along.normal) * share[:, None])
    return _Sums(
        colour=_all_rays(along, number, _per_ray(along, colour) * share[:, None]),
        opacity=_all_rays(along, number, opacity),
        depth=_all_rays(along, number, depth),
        normal=normal,
    )


def _per_ray(along: RaySamples, values: Float[Tensor, "m c"]) -> Float[Tensor, "r c"]:
    """Weighted sum of the coloured samples' values along each ray of the table."""
    weighted = along.weight[:, None] * values
    return weighted.new_zeros(len(along.t), values.shape[1]).index_add(0, along.row, weighted)


def _all_rays(along: RaySamples, number: Int[Tensor, " r"], values: Float[Tensor, "r *c"]) -> Float[Tensor, "n *c"]:
    """The table's rays among all rays; zero for those that pass by."""
    return values.new_zeros(along.rays, *values.shape[1:]).index_copy(0, number, values)


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
