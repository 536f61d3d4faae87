"""The paper's field: an MLP on integrated positional encodings (DreamFusion, appendix A.2)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion.config import MlpFieldConfig
from dreamfusion.nerf.fields import FieldOutput, Gaussians
from dreamfusion.nerf.fields.density import DensityActivation
from dreamfusion.nerf.fields.encoding import encoded_size, integrated, isotropic
from dreamfusion.nerf.fields.layers import linear

Order = Literal["norm-first", "norm-last"]

FIRST_VARIANCE = 5e-2
"""lambda_Sigma at the beginning of the paper's schedule"""


class MipMlp(nn.Module):
    """Residual MLP with density and albedo heads on one trunk.

    It answers for blurred places: their covariance is lambda_Sigma * I, not what a pixel sees, and lambda_Sigma shrinks
    over the run. The present one is the buffer `variance`, which belongs to the field's state like its weights: nobody,
    the mesh included, can ask more sharply than it has learned.
    """

    uses_covariance = False

    variance: Tensor

    def __init__(self, config: MlpFieldConfig, law: DensityActivation, generator: Generator) -> None:
        super().__init__()
        self.config, self.law = config, law
        width, first = config.width, config.order == "norm-first"
        self.register_buffer("variance", torch.tensor(FIRST_VARIANCE))
        self.enter = linear(encoded_size(config.levels), width, generator)
        self.blocks = nn.ModuleList(Block(width, config.order, generator) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width) if first else nn.Identity()
        # Small heads: the first picture is the blob, in grey.
        self.to_density = linear(width, 1, generator, gain=0.1)
        self.to_albedo = linear(width, 3, generator, gain=0.1)

    def set_variance(self, variance: float) -> None:
        """See `AnnealedField`."""
        self.variance.fill_(variance)

    def density(self, at: Gaussians) -> Float[Tensor, " m"]:
        """See `Field`."""
        return self._density_of(self._trunk(at), at)

    def evaluate(self, at: Gaussians) -> FieldOutput:
        """See `Field`."""
        hidden = self._trunk(at)
        return FieldOutput(density=self._density_of(hidden, at), albedo=torch.sigmoid(self.to_albedo(hidden)))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Field`."""
        return {"network": list(self.parameters())}

    def _trunk(self, at: Gaussians) -> Tensor:
        hidden = self.enter(integrated(isotropic(at.mean, self.variance), self.config.levels))
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)

    def _density_of(self, hidden: Tensor, at: Gaussians) -> Tensor:
        return self.law(self.to_density(hidden)[:, 0], at.mean)


class Block(nn.Module):
    """One residual step of two linear layers; the second starts small, so that the block starts near identity.

    norm-first: x + linear(SiLU(linear(LayerNorm(x)))). norm-last: LayerNorm(x + linear(SiLU(linear(x)))).
    """

    def __init__(self, width: int, order: Order, generator: Generator) -> None:
        super().__init__()
        self.order = order
        self.norm = nn.LayerNorm(width)
        self.first = linear(width, width, generator)
        self.second = linear(width, width, generator, gain=0.1)

    def forward(self, x: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
        """See the class."""
        if self.order == "norm-first":
            return x + self.second(F.silu(self.first(self.norm(x))))
        return self.norm(x + self.second(F.silu(self.first(x))))
