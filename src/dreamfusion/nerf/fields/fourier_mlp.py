"""The field of Dream Fields: a residual MLP on Fourier features of random directions, integrated over a pixel's cone.

Places are projected on the three axes and on `directions` random ones, each with a frequency of its own, 2^(levels u)
for uniform u; what varies faster than the Gaussian is wide fades, as in mip-NeRF.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion.config import FourierFieldConfig
from dreamfusion.geometry import normalise
from dreamfusion.nerf.fields import FieldOutput, Gaussians
from dreamfusion.nerf.fields.density import DensityActivation
from dreamfusion.nerf.fields.layers import linear


class FourierMlp(nn.Module):
    """Four residual blocks between two layers; density and albedo are the last layer's numbers."""

    uses_covariance = True

    waves: Tensor  # "w 3", directions times frequencies; they belong to the field's state

    def __init__(self, config: FourierFieldConfig, law: DensityActivation, generator: Generator) -> None:
        super().__init__()
        self.config, self.law = config, law
        direction = normalise(torch.randn(config.directions, 3, generator=generator))
        frequency = 2 ** (config.levels * torch.rand(config.directions, 1, generator=generator))
        self.register_buffer("waves", torch.cat([torch.eye(3), frequency * direction]))
        self.enter = linear(2 * len(self.waves), config.width, generator)
        self.blocks = nn.ModuleList(Block(config.width, config.inner, generator) for _ in range(config.blocks))
        self.leave = linear(config.width, config.width, generator)
        self.to_matter = linear(config.width, 4, generator)

    def density(self, at: Gaussians) -> Float[Tensor, " m"]:
        """See `Field`."""
        return self.evaluate(at).density

    def evaluate(self, at: Gaussians) -> FieldOutput:
        """See `Field`."""
        hidden = F.silu(self.enter(encoded(at, self.waves)))
        for block in self.blocks:
            hidden = block(hidden)
        matter = self.to_matter(F.silu(self.leave(hidden)))
        return FieldOutput(density=self.law(matter[:, 3], at.mean), albedo=torch.sigmoid(matter[:, :3]))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Field`."""
        return {"network": list(self.parameters())}


class Block(nn.Module):
    """x + linear(SiLU(linear(LayerNorm(x)))), wider inside."""

    def __init__(self, width: int, inner: int, generator: Generator) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = linear(width, inner, generator), linear(inner, width, generator)

    def forward(self, x: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        """See the class."""
        return x + self.narrow(F.silu(self.widen(self.norm(x))))


def encoded(at: Gaussians, waves: Float[Tensor, "w 3"]) -> Float[Tensor, "m c"]:
    """The expectation of cos(w . x) and sin(w . x) under the Gaussians, all cosines first."""
    phase, damping = at.mean @ waves.T, torch.exp(-0.5 * at.var @ waves.square().T)
    return torch.cat([phase.cos() * damping, phase.sin() * damping], dim=-1)
