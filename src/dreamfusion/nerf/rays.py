"""Rays through pixels, the bins along them, and the Gaussians that stand for the bins.

A ray is the axis of a thin cone. Distances t along it are measured from the camera's position, in units of the world,
with unit directions.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.geometry import normalise
from dreamfusion.records import mapped


@dataclass(frozen=True, eq=False)
class Rays:
    """A batch of cones."""

    origin: Float[Tensor, "n 3"]
    direction: Float[Tensor, "n 3"]
    """unit vectors"""
    radius: Float[Tensor, " n"]
    """of the cone at distance 1"""

    def __len__(self) -> int:
        return len(self.origin)

    def __getitem__(self, rows: slice | Int[Tensor, " k"]) -> "Rays":
        """Some of the rays."""
        return mapped(self, lambda tensor: tensor[rows])


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Where a field is evaluated: Gaussians with a diagonal covariance. Zero variance: a point."""

    mean: Float[Tensor, "m 3"]
    var: Float[Tensor, "m 3"]
    """variance along each axis of the world, >= 0"""

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: Int[Tensor, " k"]) -> "Gaussians":
        """Those of the given numbers."""
        # One number spread over all rows, as of points, stays that.
        var = self.var.index_select(0, rows) if self.var.stride(0) else self.var[:1].expand(len(rows), -1)
        return Gaussians(self.mean.index_select(0, rows), var)


def cast(cameras: Cameras) -> Rays:
    """Rays through all pixel centres: b*h*w of them, view by view, row by row from the top, each row from the left.

    The cone is mip-NeRF's (Barron et al. 2021, section 3.1): its cross-section in the picture plane is a disc with the
    variance of a pixel's square, that is a radius of 2/sqrt(12) pixels.
    """
    pose, height, width = cameras.pose, cameras.height, cameras.width
    pixel = 2 * torch.tan(0.5 * cameras.fov_y) / height  # side of a pixel in the plane at depth 1
    x = torch.arange(width, device=pose.device) + 0.5 - 0.5 * width
    y = 0.5 * height - torch.arange(height, device=pose.device) - 0.5
    right, up, backward = pose[:, None, None, :3, :3].unbind(-1)
    in_plane = x[:, None] * right + y[:, None, None] * up
    plane = pixel[:, None, None, None] * in_plane - backward
    # A point at depth 1 is 1/cos away from the camera, so at distance 1 its pixel has shrunk by the cosine.
    radius = pixel[:, None, None] * (2 / math.sqrt(12)) / plane.norm(dim=-1)
    origin = cameras.position[:, None, None].expand_as(plane)
    return Rays(origin.reshape(-1, 3), normalise(plane).reshape(-1, 3), radius.reshape(-1))


def stratified(
    near: Float[Tensor, " n"], far: Float[Tensor, " n"], samples: int, generator: Generator | None
) -> Float[Tensor, "n {samples}+1"]:
    """Edges of `samples` bins between near and far: they never decrease and always cover the whole way.

    Without a generator all bins of a ray have one length. With one, every inner edge moves by up to half of that length
    to either side, for each ray by itself. Rays with near == far get bins of length zero.
    """
    share = torch.arange(samples + 1, device=near.device, dtype=near.dtype).expand(len(near), -1)
    if generator is not None:
        u = torch.rand(len(near), samples - 1, generator=generator, device=generator.device).to(near)
        share = torch.cat([share[:, :1], share[:, 1:-1] + u - 0.5, share[:, -1:]], dim=-1)
    return near[:, None] + (far - near)[:, None] * (share / samples)


def means(rays: Rays, t: Float[Tensor, "n edges"]) -> Float[Tensor, "n edges-1 3"]:
    """Centres of mass of the s = edges - 1 pieces of each cone between neighbouring `t`.

    The moments are those of a uniform body, mip-NeRF's (Barron et al. 2021, section 3.1): slices of the cone weigh t^2.
    With middle m, half length h and q = h^2 / (3 m^2 + h^2), carrying out the integral gives E[t] = m (1 + 2 q): no
    differences of large numbers, unlike the quotient of fourth and third powers.
    """
    middle, _, q = _pieces(t)
    return torch.addcmul(rays.origin[:, None], (middle * (1 + 2 * q))[..., None], rays.direction[:, None])


def variances(rays: Rays, t: Float[Tensor, "n edges"]) -> Float[Tensor, "n edges-1 3"]:
    """Variance along each axis of the world of the same pieces.

    E[t^2] = m^2 + h^2 (5/3 - 16/15 q), hence Var[t] = h^2 (1/3 - 16/15 q + 4/3 q^2). A slice is a disc of radius r t,
    which has the variance (r t)^2 / 4 along each of its axes.
    """
    middle, half_squared, q = _pieces(t)
    along = half_squared * (1 / 3 - 16 / 15 * q + 4 / 3 * q.square())
    across = 0.25 * rays.radius[:, None].square() * (middle.square() + half_squared * (5 / 3 - 16 / 15 * q))
    axis = rays.direction[:, None].square()
    return along[..., None] * axis + across[..., None] * (1 - axis)


def _pieces(
    t: Float[Tensor, "n edges"],
) -> tuple[Float[Tensor, "n edges-1"], Float[Tensor, "n edges-1"], Float[Tensor, "n edges-1"]]:
    """Middle m, squared half length h^2 and q = h^2 / (3 m^2 + h^2) of each piece."""
    middle, half_squared = 0.5 * (t[:, 1:] + t[:, :-1]), (0.5 * (t[:, 1:] - t[:, :-1])).square()
    total = 3 * middle.square() + half_squared
    # A bin of no length at the camera itself would be 0 / 0; q does not matter there.
    return middle, half_squared, half_squared / total.clamp_min(torch.finfo(t.dtype).tiny)
