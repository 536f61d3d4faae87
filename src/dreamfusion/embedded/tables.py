"""What things look like from anywhere, as tables of each: maps of a picture from a thing and two camera angles.

A picture is drawn cell by cell, 2 x 2 pixels each. A cell looks itself up in tables over pairs of (x, y, azimuth,
elevation) and in coarse pictures from all sides, multiplies what it finds in complementary pairs, and a decoder that
all things share makes ten maps of it: paint, rest, normal and coverage, each multiplied by the coverage. There is no
ray and no volume: tables of places in a picture and of camera angles (docs/reference/embedded-prior.md). Each thing
corrects the decoder in its own way (`corrections`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreamfusion.embedded.world import ELEVATION_DEG

CELL = 2
"""pixels per side"""
MAPS = (3, 3, 3, 1)
"""of a pixel: paint (what takes another colour), rest, normal in the world, coverage"""
EMBEDDING = 32
"""numbers of a thing that every cell is told"""
LOW, HIGH = (math.radians(degrees) for degrees in ELEVATION_DEG)


@dataclass(frozen=True)
class Shape:
    """How large the tables are, and the decoder."""

    size: int = 64
    """pixels per side of the pictures"""
    nodes: int = 24
    """along x and y, interpolated between"""
    azimuths: int = 48
    elevations: int = 10
    channels: int = 14
    coarse_nodes: int = 12
    """along x and y, of the coarse pictures"""
    coarse_azimuths: int = 24
    coarse_channels: int = 4
    width: int = 256
    rank: int = 2
    """of the corrections"""

    @property
    def cells(self) -> int:
        """per side"""
        return self.size // CELL

    @property
    def tables(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of xy, (azimuth, elevation), (x, azimuth), (y, azimuth), (x, elevation), (y, elevation)."""
        n, a, e = self.nodes, self.azimuths, self.elevations
        return (n, n), (a, e), (n, a), (n, a), (n, e), (n, e)

    @property
    def coarse_size(self) -> tuple[int, int, int, int]:
        """Rows, columns, azimuths and channels of the coarse pictures."""
        return self.coarse_nodes, self.coarse_nodes, self.coarse_azimuths, self.coarse_channels

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Places and channels of each table, of the coarse pictures and of the embedding, as they follow each other."""
        flat = tuple((rows * columns, self.channels) for rows, columns in self.tables)
        return *flat, (math.prod(self.coarse_size[:3]), self.coarse_size[3]), (EMBEDDING, 1)

    @property
    def numbers(self) -> int:
        """of a thing"""
        return sum(places * channels for places, channels in self.blocks)

    @property
    def told(self) -> int:
        """Numbers of a cell for the decoder: look-ups, products, the coarse picture, place and angles, embedding."""
        return 9 * self.channels + self.coarse_size[-1] + 5 + EMBEDDING

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of the decoder's layers with weights."""
        return (self.told, self.width), (self.width, self.width), (self.width, CELL * CELL * sum(MAPS))

    @property
    def vectors(self) -> tuple[int, ...]:
        """Lengths of the vectors that a thing's corrections are made of, `rank` of each."""
        return tuple(length for layer in self.layers for length in layer)

    @property
    def corrected(self) -> int:
        """Numbers of a thing's corrections."""
        return self.rank * sum(self.vectors)


@dataclass(frozen=True)
class Angles:
    """Of the cameras of m things, v views each, in radians."""

    azimuth: Float[Tensor, "m v"]
    elevation: Float[Tensor, "m v"]

    @classmethod
    def of(cls, pose: Float[Tensor, "m v 4 4"]) -> "Angles":
        """Of cameras about the origin, which is what they look at."""
        x, y, z = pose[..., :3, 3].unbind(-1)
        return cls(torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z)))


@dataclass(frozen=True)
class Looks:
    """The tables, looked up at the angles of each view and at all places along x and y; with the embedding."""

    xy: Float[Tensor, "m p c"]
    """p places, row by row"""
    ae: Float[Tensor, "m v c"]
    xa: Float[Tensor, "m v x c"]
    ya: Float[Tensor, "m v y c"]
    xe: Float[Tensor, "m v x c"]
    ye: Float[Tensor, "m v y c"]
    coarse: Float[Tensor, "m v p k"]
    embedding: Float[Tensor, "m n"]


def decoder(shape: Shape) -> nn.Sequential:
    """The network that all things share, from what a cell is told to its maps."""
    first, *others = (nn.Linear(*layer) for layer in shape.layers)
    return nn.Sequential(first, *(module for layer in others for module in (nn.SiLU(), layer)))


def look_up(things: Float[Tensor, "m n"], shape: Shape, angles: Angles) -> Looks:
    """Interpolate the tables of each thing for its views: linear along every axis, the azimuth goes round."""
    *flat, coarse, embedding = things.split([places * channels for places, channels in shape.blocks], dim=1)
    xy, ae, xa, ya, xe, ye = (
        part.unflatten(1, (*size, shape.channels)) for part, size in zip(flat, shape.tables, strict=True)
    )
    place, spot = (
        between(torch.linspace(0, nodes - 1, shape.cells, device=things.device), nodes).to(things)
        for nodes in (shape.nodes, shape.coarse_nodes)
    )
    turn = angles.azimuth / (2 * math.pi)
    around, turned = (
        between(turn * nodes, nodes, wraps=True).to(things) for nodes in (shape.azimuths, shape.coarse_azimuths)
    )
    above = between((angles.elevation - LOW) / (HIGH - LOW) * (shape.elevations - 1), shape.elevations).to(things)
    coarse = torch.einsum("mva,myxac->mvyxc", turned, coarse.unflatten(1, shape.coarse_size))
    coarse = torch.einsum("qx,mvpxc->mvpqc", spot, torch.einsum("py,mvyxc->mvpxc", spot, coarse))

    def along(table: Float[Tensor, "m k a c"], angle: Float[Tensor, "m v a"]) -> Float[Tensor, "m v places c"]:
        return torch.einsum("pk,mvkc->mvpc", place, torch.einsum("mva,mkac->mvkc", angle, table))

    return Looks(
        xy=torch.einsum("yk,mkxc->myxc", place, torch.einsum("xl,mklc->mkxc", place, xy)).flatten(1, 2),
        ae=torch.einsum("mva,mvac->mvc", around, torch.einsum("mve,maec->mvac", above, ae)),
        xa=along(xa, around),
        ya=along(ya, around),
        xe=along(xe, above),
        ye=along(ye, above),
        coarse=coarse.flatten(2, 3),
        embedding=embedding,
    )


def told(
    looks: Looks, angles: Angles, thing_view: Int[Tensor, " k"], place: Int[Tensor, " k"], cells: int
) -> Float[Tensor, "k t"]:
    """What the decoder is told of some cells, by thing * views + view and by row * cells + column."""
    views = looks.ae.shape[1]
    thing, row, column = thing_view // views, place // cells, place % cells
    in_row, in_column = thing_view * cells + row, thing_view * cells + column
    xy = looks.xy.flatten(0, 1).index_select(0, thing * cells**2 + place)
    ae = looks.ae.flatten(0, 1).index_select(0, thing_view)
    xa, xe = (table.flatten(0, 2).index_select(0, in_column) for table in (looks.xa, looks.xe))
    ya, ye = (table.flatten(0, 2).index_select(0, in_row) for table in (looks.ya, looks.ye))
    azimuth, elevation = angles.azimuth.flatten()[thing_view], angles.elevation.flatten()[thing_view]
    where = torch.stack([column / cells - 0.5, row / cells - 0.5, azimuth.sin(), azimuth.cos(), elevation], dim=1)
    coarse = looks.coarse.flatten(0, 2).index_select(0, thing_view * cells**2 + place)
    embedding = looks.embedding.index_select(0, thing)
    return torch.cat([xy, ae, xa, ya, xe, ye, xy * ae, xa * ye, xe * ya, coarse, where.to(xy), embedding], dim=1)


def draw(
    things: Float[Tensor, "m n"], decode: Callable[[Tensor], Tensor], shape: Shape, pose: Float[Tensor, "m v 4 4"]
) -> Float[Tensor, "m v h w 10"]:
    """Whole pictures: the maps of every view, multiplied by the coverage. `decode` is given all cells of each thing."""
    angles = Angles.of(pose)
    count, views = angles.azimuth.shape
    thing_view = torch.arange(count * views, device=things.device).repeat_interleave(shape.cells**2)
    place = torch.arange(shape.cells**2, device=things.device).repeat(count * views)
    cells = told(look_up(things, shape, angles), angles, thing_view, place, shape.cells)
    drawn = decode(cells.unflatten(0, (count, -1)))
    grid = drawn.unflatten(1, (views, shape.cells, shape.cells)).unflatten(-1, (CELL, CELL, sum(MAPS)))
    return grid.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def between(position: Float[Tensor, "*b"], nodes: int, wraps: bool = False) -> Float[Tensor, "*b {nodes}"]:
    """Weights of linear interpolation between nodes 0, 1, ... at positions in [0, nodes - 1]; outside, of the nearest.

    With `wraps`, node 0 follows the last one, and any position is good.
    """
    node = torch.arange(nodes, device=position.device)
    if wraps:
        apart = (position[..., None] - node).remainder(nodes)
        return (1 - torch.minimum(apart, nodes - apart)).clamp_min(0)
    return (1 - (position[..., None].clamp(0, nodes - 1) - node).abs()).clamp_min(0)


class StoredThings(nn.Module):
    """The numbers of all things at 8 bits: bytes, with a least value and a step for each channel of each block."""

    def __init__(self, count: int, shape: Shape):
        super().__init__()
        self.blocks = shape.blocks
        groups = sum(channels for _, channels in self.blocks)
        self.number = nn.Buffer(torch.zeros(count, shape.numbers, dtype=torch.uint8))
        self.least, self.step = nn.Buffer(torch.zeros(count, groups)), nn.Buffer(torch.zeros(count, groups))

    def forward(self, things: Int[Tensor, " m"]) -> Float[Tensor, "m n"]:
        """The numbers of some things."""
        step = self.step[things]
        return self.number[things].to(step) * self._each(step) + self._each(self.least[things])

    def _each(self, grouped: Float[Tensor, "m g"]) -> Float[Tensor, "m n"]:
        """The value of its group for every number."""
        parts = grouped.split([channels for _, channels in self.blocks], dim=1)
        return torch.cat([part.repeat(1, places) for part, (places, _) in zip(parts, self.blocks, strict=True)], dim=1)

    def store(self, things: Float[Tensor, "m n"]) -> None:
        """Take the numbers of all things, each rounded to the nearest of 256 values of its group."""
        flat = things.split([places * channels for places, channels in self.blocks], dim=1)
        parts = [part.unflatten(1, block) for part, block in zip(flat, self.blocks, strict=True)]
        least = torch.cat([part.amin(1) for part in parts], dim=1)
        step = (torch.cat([part.amax(1) for part in parts], dim=1) - least) / 255
        number = (things - self._each(least)) / self._each(step.clamp_min(1e-12))
        self.load_state_dict({"number": number.round().clamp(0, 255).byte(), "least": least, "step": step})
