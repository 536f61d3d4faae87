"""Along rays: from bins to sums of colour, opacity, depth and normals.

The dearer the question to the field, the fewer samples it is put to (see `samples`): density without gradients to those
in occupied cells; density with gradients to those that can be seen; colour and normal to those that make up the colour
of their ray.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.config import RenderConfig
from dreamfusion.lights import Light
from dreamfusion.nerf.checkpointing import checkpointed
from dreamfusion.nerf.compositing import Composition, composed, learning
from dreamfusion.nerf.fields import Field, FieldOutput, Gaussians, precomputed, surface
from dreamfusion.nerf.sampling import Bins, Samples, prune_empty, resample, split_by_weight
from dreamfusion.nerf.scene import Scene
from dreamfusion.nerf.shading import lambert
from dreamfusion.nerf.stepfun import Histogram
from dreamfusion.records import concatenated

CLEAR = 1e-6
"""Opacity under which a ray is held to show nothing, where something is divided by its opacity."""


@dataclass(frozen=True)
class RenderOptions(RenderConfig):
    """The configuration's options, and what a process may ask beside them."""

    views: slice | None = None
    """`render` pictures only this range of the views, each just as it is among all, its random samples included"""


@dataclass(frozen=True, eq=False)
class RaySamples:
    """Samples along the rays: a dense table of the r rays that may hit occupied space, and its coloured samples."""

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
    proposals: tuple[Histogram, ...] = ()
    """what the network for proposals saw on the same rays, in each of its rounds"""


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums along the rays of the table, before the background."""

    colour: Float[Tensor, "r 3"]
    opacity: Float[Tensor, " r"]
    depth: Float[Tensor, " r"]
    normal: Float[Tensor, "r 3"] | None


def integrate_checkpointed(
    scene: Scene, bins: Bins, view: Int[Tensor, " n"], light: Light, options: RenderOptions
) -> tuple[Sums, RaySamples]:
    """What `integrate` returns, with no more than `options.recompute` rays of its memory at a time."""
    size = options.checkpoint_rays
    if size == 0 or not torch.is_grad_enabled():
        return integrate(scene, bins, view, light, options)
    pieces = [bins[start : start + size] for start in range(0, len(bins.t), size)] or [bins]
    parts = [checkpointed(lambda piece=piece: integrate(scene, piece, view, light, options)) for piece in pieces]
    return concatenated([sums for sums, _ in parts]), _joined_samples([along for _, along in parts])


def integrate(
    scene: Scene, bins: Bins, view: Int[Tensor, " n"], light: Light, options: RenderOptions
) -> tuple[Sums, RaySamples]:
    """Along the rays of the table; `view` is that of all rays.

    Samples without gradient still hide what lies behind them, and count in opacity and depth; with a weight threshold
    of 0 the field is asked, with gradients, at every sample in an occupied cell. Samples that take the mean colour of
    their ray learn their densities all the same, and the heaviest sample of a ray always has a colour of its own.
    """
    field = precomputed(scene.field)
    bins, proposals = resample(scene, bins, options.samples)
    samples = prune_empty(scene, bins)
    if options.weight_threshold > 0:
        with torch.no_grad():
            composition = _composed(bins, samples, field.density(samples.at))
        plain, coloured = split_by_weight(
            samples, composition.weights, options.weight_threshold, options.colour_threshold
        )
        matter = _matter(field, coloured.at, light.lit or options.normals)
        density = torch.cat([field.density(plain.at), matter.density])
        weights = learning(composition, torch.cat([plain.index, coloured.index]), density)
    else:
        coloured, matter = samples, _matter(field, samples.at, light.lit or options.normals)
        weights = learning(_composed(bins, samples, matter.density), samples.index, matter.density)
    row = coloured.index // options.samples
    along = RaySamples(
        rays=len(view),
        weights=weights,
        t=bins.t,
        row=row,
        weight=weights.flatten().index_select(0, coloured.index),
        direction=bins.rays.direction[row],
        normal=matter.normal,
        proposals=proposals,
    )
    colour = lambert(matter, coloured.at.mean, light, view[bins.number[row]])
    return _summed(along, colour), along


def _composed(bins: Bins, samples: Samples, density: Float[Tensor, " m"]) -> Composition:
    table = torch.zeros_like(bins.t[:, 1:])
    table.view(-1)[samples.index] = density.detach()
    return composed(table, bins.t)


def _matter(field: Field, at: Gaussians, with_normals: bool) -> FieldOutput:
    if with_normals:
        return surface(field, at, create_graph=torch.is_grad_enabled())
    return field.evaluate(at)


def _summed(along: RaySamples, colour: Float[Tensor, "m 3"]) -> Sums:
    opacity = along.weights.sum(-1)
    middle = 0.5 * (along.t[:, 1:] + along.t[:, :-1])
    depth = (along.weights * middle).sum(-1) / opacity.clamp(min=CLEAR)
    # The coloured samples stand for the whole ray.
    packed = torch.zeros_like(opacity).index_add(0, along.row, along.weight)
    share = torch.where(packed > 0, opacity / packed.clamp(min=torch.finfo(packed.dtype).tiny), 1.0)
    return Sums(
        colour=_per_ray(along, colour) * share[:, None],
        opacity=opacity,
        depth=depth,
        normal=None if along.normal is None else _per_ray(along, along.normal) * share[:, None],
    )


def _per_ray(along: RaySamples, values: Float[Tensor, "m c"]) -> Float[Tensor, "r c"]:
    """Weighted sum of the coloured samples' values along each ray of the table."""
    weighted = along.weight[:, None] * values
    return weighted.new_zeros(len(along.t), values.shape[1]).index_add(0, along.row, weighted)


def _joined_samples(parts: list[RaySamples]) -> RaySamples:
    """The samples of all rays of the table, of which each part has some, in order."""
    starts = accumulate((len(part.t) for part in parts), initial=0)
    return concatenated([replace(part, row=part.row + start) for part, start in zip(parts, starts, strict=False)])
