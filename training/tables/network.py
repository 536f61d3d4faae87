"""What a thing looks like from anywhere, as six 2D tables: a picture from its number and two camera angles.

A picture is drawn cell by cell, 2 x 2 pixels each. A cell looks itself up in tables over pairs of (x, y, azimuth,
elevation), multiplies those of complementary pairs, and a decoder that all things share makes ten maps of it: paint,
rest, normal and coverage, each multiplied by the coverage. Shading and compositing are closed forms. There is no ray
and no volume: tables of places in a picture and of camera angles.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreamfusion.embedded.world import ELEVATION_DEG
from dreamfusion.lights import Light
from training.prior.data import shade
from training.tables.views import CELL, CELLS, MAPS

LOW, HIGH = (math.radians(degrees) for degrees in ELEVATION_DEG)


@dataclass(frozen=True)
class Shape:
    """How large the tables are, and the decoder."""

    nodes: int = 24
    """along x and y, interpolated between"""
    azimuths: int = 48
    elevations: int = 10
    channels: int = 16
    embedding: int = 32
    """numbers of a thing that every cell is told"""
    width: int = 256

    @property
    def tables(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of xy, (azimuth, elevation), (x, azimuth), (y, azimuth), (x, elevation), (y, elevation)."""
        n, a, e = self.nodes, self.azimuths, self.elevations
        return (n, n), (a, e), (n, a), (n, a), (n, e), (n, e)

    @property
    def numbers(self) -> int:
        """of a thing"""
        return self.embedding + self.channels * sum(rows * columns for rows, columns in self.tables)

    @property
    def told(self) -> int:
        """Numbers that the decoder is told of a cell: six look-ups, three products, place and angles, embedding."""
        return 9 * self.channels + 5 + self.embedding


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
    """The six tables, looked up at the angles of each view and at all places along x and y; with the embedding."""

    xy: Float[Tensor, "m p c"]
    """p places, row by row"""
    ae: Float[Tensor, "m v c"]
    xa: Float[Tensor, "m v x c"]
    ya: Float[Tensor, "m v y c"]
    xe: Float[Tensor, "m v x c"]
    ye: Float[Tensor, "m v y c"]
    embedding: Float[Tensor, "m n"]


def decoder(shape: Shape) -> nn.Sequential:
    """The network that all things share, from what a cell is told to its maps."""
    width, out = shape.width, CELL * CELL * MAPS
    return nn.Sequential(
        nn.Linear(shape.told, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, out)
    )


def new_things(count: int, shape: Shape, generator: torch.Generator) -> Float[Tensor, "things n"]:
    """Rows of numbers, normal with a standard deviation of 0.3: the tables and the embedding of each thing."""
    return 0.3 * torch.randn(count, shape.numbers, generator=generator)


def look_up(things: Float[Tensor, "m n"], shape: Shape, angles: Angles) -> Looks:
    """Interpolate the tables of each thing for its views: linear along every axis, the azimuth goes round."""
    sizes = [rows * columns * shape.channels for rows, columns in shape.tables]
    *flat, embedding = things.split([*sizes, shape.embedding], dim=1)
    xy, ae, xa, ya, xe, ye = (
        part.unflatten(1, (*size, shape.channels)) for part, size in zip(flat, shape.tables, strict=True)
    )
    place = between(torch.linspace(0, shape.nodes - 1, CELLS), shape.nodes)
    around = between(angles.azimuth / (2 * math.pi) * shape.azimuths, shape.azimuths, wraps=True)
    above = between((angles.elevation - LOW) / (HIGH - LOW) * (shape.elevations - 1), shape.elevations)

    def along(table: Float[Tensor, "m k a c"], angle: Float[Tensor, "m v a"]) -> Float[Tensor, "m v places c"]:
        return torch.einsum("pk,mvkc->mvpc", place, torch.einsum("mva,mkac->mvkc", angle, table))

    return Looks(
        xy=torch.einsum("yk,mkxc->myxc", place, torch.einsum("xl,mklc->mkxc", place, xy)).flatten(1, 2),
        ae=torch.einsum("mva,mvac->mvc", around, torch.einsum("mve,maec->mvac", above, ae)),
        xa=along(xa, around),
        ya=along(ya, around),
        xe=along(xe, above),
        ye=along(ye, above),
        embedding=embedding,
    )


def told(looks: Looks, angles: Angles, thing_view: Int[Tensor, " k"], place: Int[Tensor, " k"]) -> Float[Tensor, "k t"]:
    """What the decoder is told of cells, by thing * views + view and by row * CELLS + column."""
    views = looks.ae.shape[1]
    thing, row, column = thing_view // views, place // CELLS, place % CELLS
    in_row, in_column = thing_view * CELLS + row, thing_view * CELLS + column
    xy = looks.xy.flatten(0, 1).index_select(0, thing * CELLS**2 + place)
    ae = looks.ae.flatten(0, 1).index_select(0, thing_view)
    xa, xe = (table.flatten(0, 2).index_select(0, in_column) for table in (looks.xa, looks.xe))
    ya, ye = (table.flatten(0, 2).index_select(0, in_row) for table in (looks.ya, looks.ye))
    azimuth, elevation = angles.azimuth.flatten()[thing_view], angles.elevation.flatten()[thing_view]
    where = torch.stack([column / CELLS - 0.5, row / CELLS - 0.5, azimuth.sin(), azimuth.cos(), elevation], dim=1)
    embedding = looks.embedding.index_select(0, thing)
    return torch.cat([xy, ae, xa, ya, xe, ye, xy * ae, xa * ye, xe * ya, where, embedding], dim=1)


def draw(
    things: Float[Tensor, "m n"], decode: nn.Module, shape: Shape, pose: Float[Tensor, "m v 4 4"]
) -> Float[Tensor, "m v h w 10"]:
    """Whole pictures: the maps of every view, multiplied by the coverage."""
    angles = Angles.of(pose)
    count, views = angles.azimuth.shape
    thing_view = torch.arange(count * views).repeat_interleave(CELLS**2)
    place = torch.arange(CELLS**2).repeat(count * views)
    cells = decode(told(look_up(things, shape, angles), angles, thing_view, place))
    grid = cells.unflatten(0, (count, views, CELLS, CELLS)).unflatten(-1, (CELL, CELL, MAPS))
    return grid.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def between(position: Float[Tensor, "*b"], nodes: int, wraps: bool = False) -> Float[Tensor, "*b {nodes}"]:
    """Weights of linear interpolation between nodes 0, 1, ... at positions in [0, nodes - 1]; outside, of the nearest.

    With `wraps`, node 0 follows the last one, and any position is good.
    """
    node = torch.arange(nodes)
    if wraps:
        apart = (position[..., None] - node).remainder(nodes)
        return (1 - torch.minimum(apart, nodes - apart)).clamp_min(0)
    return (1 - (position[..., None].clamp(0, nodes - 1) - node).abs()).clamp_min(0)


def shown(maps: Float[Tensor, "v h w 10"], light: Light, background: Float[Tensor, "v 3"]) -> Float[Tensor, "v h w 3"]:
    """Maps multiplied by their coverage, shaded, before a background."""
    paint, rest, normal, alpha = maps.split((3, 3, 3, 1), dim=-1)
    alpha = alpha.clamp(0, 1)
    normal = normal / torch.maximum(alpha, normal.norm(dim=-1, keepdim=True)).clamp_min(1e-3)
    return (shade(paint + rest, normal, alpha, light) + (1 - alpha) * background[:, None, None]).clamp(0, 1)
