"""Fields whose pictures are known in closed form, and a trilinear interpolation written out corner by corner."""

import itertools

import torch
from torch import nn

from dreamfusion.nerf.fields import FieldOutput


class Shape(nn.Module):
    """Constant density and albedo where `inside(mean)` says so, nothing elsewhere."""

    uses_covariance = False

    def __init__(self, inside, density, albedo=(0.2, 0.5, 0.8)):
        super().__init__()
        self.inside = inside
        self.strength = nn.Parameter(torch.tensor(density))
        self.albedo = nn.Parameter(torch.tensor(albedo))

    def density(self, at):
        # Its slope is zero wherever it has one, which autograd only knows of something that depends on the place.
        return torch.where(self.inside(at.mean), self.strength + 0 * at.mean[:, 0], 0.0)

    def evaluate(self, at):
        return FieldOutput(density=self.density(at), albedo=self.albedo.expand(len(at.mean), 3))

    def parameter_groups(self):
        return {"network": list(self.parameters())}


def ball(radius, density):
    return Shape(lambda x: x.norm(dim=-1) < radius, density)


def slab(low, high, density):
    """Matter between the planes z = low and z = high."""
    return Shape(lambda x: (x[:, 2] > low) & (x[:, 2] < high), density)


class SoftBall(nn.Module):
    """density = sharpness * sigmoid((radius - |x|) * sharpness): its normals point away from the centre."""

    uses_covariance = True  # for no reason but to be told

    def __init__(self, radius=0.5, sharpness=20.0):
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(radius))
        self.sharpness = sharpness

    def density(self, at):
        return self.sharpness * torch.sigmoid((self.radius - at.mean.norm(dim=-1)) * self.sharpness)

    def evaluate(self, at):
        return FieldOutput(density=self.density(at), albedo=0.5 + 0.5 * torch.sin(5 * at.mean))

    def parameter_groups(self):
        return {"network": [self.radius]}


def trilinear(grid, place):
    """Values of grid "c d h w" (axes z, y, x; corners at -1 and 1) at places "m 3" in [-1, 1]^3, point by point."""
    size = grid.shape[-1]
    rows = []
    for x in (place + 1) / 2 * (size - 1):
        low = x.detach().floor().clamp(0, size - 2)
        share = x - low
        total = torch.zeros(len(grid), dtype=grid.dtype)
        for corner in itertools.product((0, 1), repeat=3):
            weight = torch.stack([s if c else 1 - s for s, c in zip(share, corner, strict=True)]).prod()
            i, j, k = (int(a) + c for a, c in zip(low, corner, strict=True))
            total = total + weight * grid[:, k, j, i]
        rows.append(total)
    return torch.stack(rows)
