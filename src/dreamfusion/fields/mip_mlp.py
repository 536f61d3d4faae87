"""The paper's field: an MLP on integrated positional encodings (DreamFusion, appendix A.2)."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion.fields import Gaussians, Matter
from dreamfusion.fields.density import Activation, Exp, GaussianBlob
from dreamfusion.fields.encoding import encoded_size, integrated
from dreamfusion.fields.layers import linear


@dataclass(frozen=True)
class MipMlpOptions:
    """Sizes of the paper's field. The order inside a residual block is ours: LayerNorm, linear, SiLU, linear."""

    levels: int = 8
    """frequencies 2^0 .. 2^(levels - 1) of the encoding"""
    blocks: int = 5
    width: int = 128
    activation: Activation = field(default_factory=Exp)
    blob: GaussianBlob = field(default_factory=GaussianBlob)


class MipMlp(nn.Module):
    """Residual MLP with density and albedo heads on one trunk.

    It sees as finely as the Gaussians are narrow: `RenderOptions.variance`, annealed, is the paper's coarse-to-fine
    schedule.
    """

    sees_width = True

    def __init__(self, options: MipMlpOptions, generator: Generator) -> None:
        super().__init__()
        self.options = options
        width = options.width
        self.enter = linear(encoded_size(options.levels), width, generator)
        self.blocks = nn.ModuleList(Block(width, generator) for _ in range(options.blocks))
        self.norm = nn.LayerNorm(width)
        # Small heads: the first picture is the blob, in grey.
        self.to_density = linear(width, 1, generator, gain=0.1)
        self.to_albedo = linear(width, 3, generator, gain=0.1)

    def density(self, at: Gaussians) -> Float[Tensor, " m"]:
        """See `Field`."""
        return self._density_of(self._trunk(at), at)

    def matter(self, at: Gaussians) -> Matter:
        """See `Field`."""
        hidden = self._trunk(at)
        return Matter(density=self._density_of(hidden, at), albedo=torch.sigmoid(self.to_albedo(hidden)))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Field`."""
        return {"network": list(self.parameters())}

    def _trunk(self, at: Gaussians) -> Tensor:
        hidden = self.enter(integrated(at, self.options.levels))
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)

    def _density_of(self, hidden: Tensor, at: Gaussians) -> Tensor:
        return self.options.activation(self.to_density(hidden)[:, 0] + self.options.blob(at.mean))


class Block(nn.Module):
    """x + linear(SiLU(linear(LayerNorm(x)))); the last layer starts small, so that the block starts near identity."""

    def __init__(self, width: int, generator: Generator) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = linear(width, width, generator)
        self.second = linear(width, width, generator, gain=0.1)

    def forward(self, x: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        """One residual step."""
        return x + self.second(F.silu(self.first(self.norm(x))))
