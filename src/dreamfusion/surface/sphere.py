"""A sphere of triangles whose texture is that of an icosahedron's twenty faces, two to a square."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.geometry import normalise
from dreamfusion.surface.scene import Shape

_MARGIN = 0.05
"""About each triangle of the texture, as a share of its square, so that blurs do not mix neighbours"""
_SQUARES = 4
"""Squares per side of the texture; ten are used"""


def sphere(parts: int, radius: float) -> Shape:
    """An icosahedron, each edge in so many `parts`, blown up: 10 parts^2 + 2 vertices and 20 parts^2 faces."""
    corners, bases = _icosahedron()
    weights, small = _divided(parts)
    place = normalise(torch.einsum("pk,fkc->fpc", weights, corners[bases]))
    _, first, number = _distinct(place.flatten(0, 1))
    faces = number.view(len(bases), -1)[:, small].flatten(0, 1)
    uv = torch.einsum("pk,fkc->fpc", weights, _texture_corners(len(bases)))[:, small].flatten(0, 1)
    return Shape((radius * place.flatten(0, 1)[first]).float(), faces, uv.float())


def _icosahedron() -> tuple[Float[Tensor, "12 3"], Int[Tensor, "20 3"]]:
    """Unit vectors, and faces counter-clockwise from outside."""
    golden = (1 + math.sqrt(5)) / 2
    corners = torch.tensor(
        [[0.0, s, t * golden][i:] + [0.0, s, t * golden][:i] for i in range(3) for s in (-1.0, 1.0) for t in (-1, 1)],
        dtype=torch.float64,
    )
    triples = torch.combinations(torch.arange(12), 3)
    edges = corners[triples] - corners[triples.roll(1, 1)]
    triples = triples[(edges.norm(dim=-1) < 2.1).all(1)]  # edges are 2 long
    a, b, c = corners[triples].unbind(1)
    outward = (torch.linalg.cross(b - a, c - a) * a).sum(-1, keepdim=True) > 0
    return normalise(corners), torch.where(outward, triples, triples.flip(1))


def _divided(parts: int) -> tuple[Float[Tensor, "p 3"], Int[Tensor, "n 3"]]:
    """Points of a triangle's regular grid by the weights of its corners, and the small triangles, wound as it is."""
    places = [(i, j) for i in range(parts + 1) for j in range(parts + 1 - i)]
    number = {place: at for at, place in enumerate(places)}
    upright = [[(i, j), (i + 1, j), (i, j + 1)] for i, j in places if i + j < parts]
    inverted = [[(i + 1, j), (i + 1, j + 1), (i, j + 1)] for i, j in places if i + j < parts - 1]
    small = [[number[place] for place in triangle] for triangle in (*upright, *inverted)]
    weights = [[(parts - i - j) / parts, i / parts, j / parts] for i, j in places]
    return torch.tensor(weights, dtype=torch.float64), torch.tensor(small)


def _distinct(points: Float[Tensor, "n 3"]) -> tuple[int, Int[Tensor, " v"], Int[Tensor, " n"]]:
    """How many places there are, one point at each, and the number of each point's place."""
    places, number = (points * 1e6).round().long().unique(dim=0, return_inverse=True)
    first = torch.zeros(len(places), dtype=torch.long).scatter(0, number, torch.arange(len(points)))
    return len(places), first, number


def _texture_corners(count: int) -> Float[Tensor, "{count} 3 2"]:
    """Where the corners of the base faces are in the texture, counter-clockwise: two triangles in each square."""
    m = _MARGIN
    lower = [[m, m], [1 - 2 * m, m], [m, 1 - 2 * m]]
    upper = [[1 - m, 1 - m], [2 * m, 1 - m], [1 - m, 2 * m]]
    corners = torch.tensor([lower, upper] * (count // 2), dtype=torch.float64)
    square = torch.arange(count) // 2
    origin = torch.stack([square % _SQUARES, square // _SQUARES], -1)
    return (corners + origin[:, None]) / _SQUARES
