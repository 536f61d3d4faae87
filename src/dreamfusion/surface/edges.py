"""The edges of a closed mesh, where its outlines lie on pictures, and pixels that show their share of both sides.

Which triangle a pixel shows does not change gradually, so a picture of pixel centres says nothing of how an outline
should move. Where an outline passes between the centres of two neighbouring pixels, the farther side's pixel is given
as much of the nearer one's colour as the line lies beyond the middle between them, or the other way round (the idea is
that of Laine et al. 2020, section 3.5). Over a straight outline the pictures then cover its area exactly.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreamfusion.surface.rasterise import facing

_SAME = 0.1  # share of the distance by which what lies before an edge, on its own side, may still be its own surface


@dataclass(frozen=True, eq=False)
class Edges:
    """Each edge of a closed mesh once, with the two faces that it joins."""

    vertices: Int[Tensor, "e 2"]
    """in the order of the first face, which lies to the left of this way, seen from outside"""
    faces: Int[Tensor, "e 2"]


@dataclass(frozen=True, eq=False)
class Crossings:
    """Places where outlines pass between the centres of neighbouring pixels."""

    first: Int[Tensor, " k"]
    """the left or upper pixel"""
    second: Int[Tensor, " k"]
    share: Float[Tensor, " k"]
    """of the way from the first centre to the second, in [0, 1)"""
    side: Float[Tensor, " k"]
    """1 where the surface is on the first one's side, -1 where it is on the second one's"""
    depth: Float[Tensor, " k"]
    """of the edge, along the view axis"""

    def __getitem__(self, keep: Bool[Tensor, " k"]) -> "Crossings":
        return Crossings(*(part[keep] for part in (self.first, self.second, self.share, self.side, self.depth)))


def edges_of(faces: Int[Tensor, "f 3"]) -> Edges:
    """Raises ValueError unless every edge joins two faces that are wound alike."""
    ways = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    owner = torch.arange(len(faces), device=faces.device).repeat(3)
    order = (ways.amin(1) * (ways.amax() + 1) + ways.amax(1)).argsort(stable=True)
    there, back = order[0::2], order[1::2]
    if len(there) != len(back) or not torch.equal(ways[there], ways[back].flip(1)):
        raise ValueError("the mesh is not closed: every edge must join two faces that are wound alike")
    return Edges(ways[there], torch.stack([owner[there], owner[back]], 1))


def crossings(
    edges: Edges,
    faces: Int[Tensor, "f 3"],
    place: Float[Tensor, "v 2"],
    depth: Float[Tensor, " v"],
    size: tuple[int, int],
) -> Crossings:
    """All outlines of a mesh on a picture of `size` (height, width), hidden ones included. Differentiable in `place`.

    Steep edges are looked for between left and right pixels, along the lines through their centres, flat ones between
    upper and lower ones: so each piece of an outline counts once.
    """
    front = facing(place.detach()[faces])[edges.faces]
    outline = (front[:, 0] != front[:, 1]).nonzero()[:, 0]
    ways = torch.where(front[outline, :1], edges.vertices[outline], edges.vertices[outline].flip(1))
    along = place.detach()[ways[:, 1]] - place.detach()[ways[:, 0]]
    steep = along[:, 1].abs() >= along[:, 0].abs()
    height, width = size
    parts = [
        _between_centres(ways[steep], place, depth, (width, height), (1, width), -along[steep, 1].sign()),
        _between_centres(ways[~steep], place.flip(1), depth, (height, width), (width, 1), along[~steep, 0].sign()),
    ]
    return Crossings(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _between_centres(
    ways: Int[Tensor, "o 2"],
    place: Float[Tensor, "v 2"],
    depth: Float[Tensor, " v"],
    size: tuple[int, int],
    stride: tuple[int, int],
    side: Float[Tensor, " o"],
) -> tuple[Tensor, ...]:
    """Fields of `Crossings` between pixels that are neighbours along the first axis of `place`.

    `size` and `stride` of the pixels' numbers are those along the two axes. A line through centres meets an edge that
    begins on it and not one that ends there, so that a chain of edges meets it once.
    """
    ends = place[:, 1].detach()[ways]
    first = (ends.amin(1) - 0.5).ceil().clamp(0, size[1])
    count = ((ends.amax(1) - 0.5).ceil().clamp(0, size[1]) - first).long()
    own = torch.arange(len(ways), device=ways.device).repeat_interleave(count)
    line = first[own].long() + torch.arange(len(own), device=own.device) - (count.cumsum(0) - count)[own]
    (u0, s0), (u1, s1) = (place.index_select(0, end).unbind(-1) for end in ways[own].unbind(1))
    part = (line + 0.5 - s0) / (s1 - s0)
    across = u0 + part * (u1 - u0) - 0.5
    before = across.detach().floor().long()
    near = 1 / depth.detach()[ways[own]]
    inside = (before >= 0) & (before < size[0] - 1)
    pixel = before * stride[0] + line * stride[1]
    at = 1 / torch.lerp(near[:, 0], near[:, 1], part.detach())
    found = (pixel, pixel + stride[0], across - before, side[own], at)
    return tuple(values[inside] for values in found)


def seen_only(found: Crossings, depth: Float[Tensor, " p"]) -> Crossings:
    """Without those that are hidden in a picture of these depths, infinite where it shows nothing.

    Nothing may lie before the edge where it ends, nor much before it on its own side, where its surface comes nearer.
    """
    first, second = depth[found.first], depth[found.second]
    ahead = found.side > 0
    own, other = torch.where(ahead, first, second), torch.where(ahead, second, first)
    return found[(other > found.depth) & (own > (1 - _SAME) * found.depth)]


def antialiased(picture: Float[Tensor, "p c"], found: Crossings) -> Float[Tensor, "p c"]:
    """Pixels of the shares that they show of both sides. Differentiable in the colours and in where outlines lie.

    Where several pass between the same two centres, each leads on to the other side: what counts is the sum.
    """
    if not len(found.first):
        return picture
    pairs, own = (2 * found.first + (found.second == found.first + 1)).unique(return_inverse=True)
    turns = found.side.new_zeros(len(pairs)).index_add(0, own, found.side)
    total = found.share.new_zeros(len(pairs)).index_add(0, own, found.side * found.share)
    first = torch.zeros_like(pairs).scatter(0, own, found.first)
    second = torch.zeros_like(pairs).scatter(0, own, found.second)
    kept = turns != 0  # elsewhere neither pixel shows what lies between them
    excess = (total[kept] / turns[kept]).clamp(0, 1) - 0.5
    beyond = excess > 0
    taker = torch.where(beyond, second[kept], first[kept])
    giver = torch.where(beyond, first[kept], second[kept])
    colours = picture.index_select(0, giver) - picture.index_select(0, taker)
    return picture.index_add(0, taker, excess.abs()[:, None] * colours)
