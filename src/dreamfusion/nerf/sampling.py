"""Samples along rays, without those in empty space.

Rays that miss the occupied region are left out. The others are divided into a dense table of intervals, `t: "r s+1"`;
samples in occupied cells are *packed*: a flat list, each with its place in the table.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from dreamfusion.geometry import intersect_ball, intersect_box
from dreamfusion.nerf.fields import Gaussians
from dreamfusion.nerf.fields.encoding import isotropic
from dreamfusion.nerf.rays import Rays, means, stratified, variances
from dreamfusion.nerf.scene import Scene
from dreamfusion.nerf.stepfun import Histogram
from dreamfusion.records import mapped


@dataclass(frozen=True, eq=False)
class Bins:
    """The rays that may hit occupied space, and the edges of their sample intervals."""

    number: Int[Tensor, " r"]
    """among all rays"""
    rays: Rays
    t: Float[Tensor, "r edges"]
    offset: Float[Tensor, "r levels"] | None = None
    """where proposals will cut further: how their bins are shifted, see `Proposal.edges`; `t` are then the two ends"""

    def __getitem__(self, rows: slice | Int[Tensor, " k"]) -> "Bins":
        """Some of the rays."""
        return mapped(self, lambda tensor: tensor[rows])


@dataclass(frozen=True, eq=False)
class Samples:
    """Packed samples: their place in the flattened table "r*s", ascending, and where they are in space."""

    index: Int[Tensor, " m"]
    at: Gaussians

    def __getitem__(self, keep: Bool[Tensor, " m"]) -> "Samples":
        chosen = keep.nonzero()[:, 0]
        return Samples(self.index[chosen], self.at[chosen])


def sample_rays(scene: Scene, rays: Rays, samples: int, generator: Generator | None) -> Bins:
    """Divide rays into `samples` intervals each, within the sphere and the bounding box of the occupied cells.

    If the scene has a network for proposals, that is left to `resample`.
    """
    box = intersect_box(rays.origin, rays.direction, *scene.occupancy.bounds)
    ball = intersect_ball(rays.origin, rays.direction, scene.radius)
    near, far = torch.maximum(box[0], ball[0]), torch.minimum(box[1], ball[1])
    number = (far > near).nonzero()[:, 0]
    hit = rays[number]
    own = None if generator is None else _child(generator)
    if scene.proposal is None:
        return Bins(number, hit, stratified(near[number], far[number], samples, own))
    ends = torch.stack([near[number], far[number]], dim=-1)
    shape = (len(number), len(scene.proposal.config.rounds) + 1)
    offset = ends.new_full(shape, 0.5) if own is None else torch.rand(shape, generator=own, device=own.device).to(ends)
    return Bins(number, hit, ends, offset)


def keep_views(bins: Bins, rays: slice) -> Bins:
    """Those of a range of all rays, numbered within it."""
    own = ((bins.number >= rays.start) & (bins.number < rays.stop)).nonzero()[:, 0]
    return replace(bins[own], number=bins.number[own] - rays.start)


def resample(scene: Scene, bins: Bins, samples: int) -> tuple[Bins, tuple[Histogram, ...]]:
    """The same rays with the field's intervals, and the weights of each proposal round (if there are any)."""
    if scene.proposal is None or bins.offset is None:
        return bins, ()
    t, seen = scene.proposal.edges(bins.rays, bins.t, samples, bins.offset)
    return Bins(bins.number, bins.rays, t), seen


def _child(generator: Generator) -> Generator:
    """A generator of its own: how much is drawn from it does not change what comes from the parent afterwards."""
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    return Generator(device=generator.device).manual_seed(int(seed))


def prune_empty(scene: Scene, bins: Bins) -> Samples:
    """One sample for each bin whose middle is in an occupied cell."""
    place = means(bins.rays, bins.t)
    index = scene.occupancy.mask(place).flatten().nonzero()[:, 0]
    mean = place.view(-1, 3).index_select(0, index)
    if not scene.field.uses_covariance:
        return Samples(index, isotropic(mean, 0.0))
    return Samples(index, Gaussians(mean, variances(bins.rays, bins.t).view(-1, 3).index_select(0, index)))


def split_by_weight(
    samples: Samples, weights: Float[Tensor, "r s"], seen: float, coloured: float
) -> tuple[Samples, Samples]:
    """First the samples that weigh more than `seen` and may take the mean colour of their ray.

    Then those that need a colour: they weigh at least `coloured`, or most of all on their ray, however little that is.
    """
    greatest = weights.amax(-1, keepdim=True)
    needed = ((weights >= greatest.clamp(max=coloured)) & (weights > 0)).flatten()[samples.index]
    enough = (weights > seen).flatten()[samples.index]
    return samples[enough & ~needed], samples[needed]
