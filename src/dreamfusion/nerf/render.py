"""Volume rendering: from a scene, cameras and lights to pictures."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.lights import Light
from dreamfusion.nerf.integrate import RaySamples, RenderOptions, Sums, integrate, integrate_checkpointed
from dreamfusion.nerf.rays import Rays, cast
from dreamfusion.nerf.sampling import keep_views, sample_rays
from dreamfusion.nerf.scene import Scene
from dreamfusion.records import concatenated


@dataclass(frozen=True, eq=False)
class Picture:
    """Rendered images."""

    rgb: Float[Tensor, "b h w 3"]
    """with the background; in [0, 1] for lights whose ambient and diffuse parts sum to at most 1"""
    opacity: Float[Tensor, "b h w"]
    """in [0, 1]"""
    depth: Float[Tensor, "b h w"]
    """expected distance from the camera along the ray, given opacity; 0 where the opacity is 0"""
    normal: Float[Tensor, "b h w 3"] | None
    """weighted sum of the normals along the ray, in the world's axes; its length is at most the opacity"""


@dataclass(frozen=True, eq=False)
class Render(Picture):
    """Pictures with gradients, and the samples along the rays, for regularisers."""

    along: RaySamples


@runtime_checkable
class Drawn(Protocol):
    """A scene that is no volume, such as a mesh, and draws its pictures itself."""

    def draw(self, cameras: Cameras, light: Light, background: Float[Tensor, "b 3"] | None, normals: bool) -> Picture:
        """Pictures of all views, differentiable, before plain colours or its own background, with normals or not."""
        ...


def render(
    scene: Scene,
    cameras: Cameras,
    light: Light,
    options: RenderOptions,
    generator: Generator | None = None,
    background: Float[Tensor, "b 3"] | None = None,
) -> Render:
    """Differentiable pictures of all views, or of `options.views`.

    generator: jitters the samples; without one they are evenly spaced. background: plain colours to put behind the
    views, in [0, 1], in place of the scene's own background.
    """
    if isinstance(scene, Drawn):
        return _drawn(scene, cameras, light, options, background)
    rays, view = _rays_and_views(cameras)
    bins = sample_rays(scene, rays, options.samples, generator)
    if options.views is not None:
        own = _range_of(options.views, cameras)
        cameras, rays, view, bins = cameras[options.views], rays[own], view[own], keep_views(bins, own)
    sums, along = integrate_checkpointed(scene, bins, view, light, options)
    picture = _picture(sums, bins.number, _behind(scene, rays, view, background), cameras)
    return Render(picture.rgb, picture.opacity, picture.depth, picture.normal, replace(along, rays=len(rays)))


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
    if isinstance(scene, Drawn):
        return _drawn(scene, camera, light, options, background)
    rays, view = _rays_and_views(camera)
    parts, numbers = [], []
    for start in range(0, len(rays), options.chunk):
        piece = slice(start, start + options.chunk)
        bins = sample_rays(scene, rays[piece], options.samples, None)
        parts.append(integrate(scene, bins, view[piece], light, options)[0])
        numbers.append(bins.number + start)
    return _picture(concatenated(parts), torch.cat(numbers), _behind(scene, rays, view, background), camera)


def _drawn(
    scene: Drawn, cameras: Cameras, light: Light, options: RenderOptions, background: Float[Tensor, "b 3"] | None
) -> Render:
    """Pictures without samples along rays."""
    own = slice(None) if options.views is None else options.views
    behind = None if background is None else background[own]
    picture = scene.draw(cameras[own], light[own], behind, options.normals or light.lit)
    nothing, none = picture.depth.new_zeros(0), cameras.pose.new_zeros(0, dtype=torch.long)
    along = RaySamples(
        picture.depth.numel(), nothing.view(0, 0), nothing.view(0, 1), none, nothing, nothing.view(0, 3), None
    )
    return Render(picture.rgb, picture.opacity, picture.depth, picture.normal, along)


def _rays_and_views(cameras: Cameras) -> tuple[Rays, Int[Tensor, " n"]]:
    view = torch.arange(len(cameras), device=cameras.pose.device)
    return cast(cameras), view.repeat_interleave(cameras.height * cameras.width)


def _range_of(views: slice, cameras: Cameras) -> slice:
    """The rays of a range of views."""
    start, stop, _ = views.indices(len(cameras))
    pixels = cameras.height * cameras.width
    return slice(start * pixels, stop * pixels)


def _behind(
    scene: Scene, rays: Rays, view: Int[Tensor, " n"], background: Float[Tensor, "b 3"] | None
) -> Float[Tensor, "n 3"]:
    return scene.background.colour(rays.direction) if background is None else background[view]


def _picture(sums: Sums, number: Int[Tensor, " r"], behind: Float[Tensor, "n 3"], cameras: Cameras) -> Picture:
    """Pixels of all rays; those that are not in the table, by their `number`, show the background alone."""

    def spread(values: Float[Tensor, "r *c"]) -> Float[Tensor, "n *c"]:
        return values.new_zeros(len(behind), *values.shape[1:]).index_copy(0, number, values)

    shape = (len(cameras), cameras.height, cameras.width)
    opacity = spread(sums.opacity)
    rgb = spread(sums.colour) + (1 - opacity)[:, None] * behind
    return Picture(
        rgb=rgb.view(*shape, 3),
        opacity=opacity.view(shape),
        depth=spread(sums.depth).view(shape),
        normal=None if sums.normal is None else spread(sums.normal).view(*shape, 3),
    )
