"""A field as fast ports of DreamFusion have it, in plain torch: a hashed multi-resolution grid and one small network.

Shared by `fields.py`, where it is a candidate, and `reference_path.py`, where it is what we are compared with.
"""

import torch
from torch import Tensor, nn

from dreamfusion import build
from dreamfusion.config.presets import FAST
from dreamfusion.nerf.fields import FieldOutput, Gaussians

LAW = build.density_activation(FAST.scene)


class HashGrid(nn.Module):
    """Instant-NGP's multi-resolution hash table in plain torch, all levels and corners at once."""

    cells: Tensor
    corners: Tensor
    primes: Tensor

    def __init__(
        self, levels: int = 12, entries: int = 2**15, features: int = 2, coarse: int = 8, fine: int = 128
    ) -> None:
        super().__init__()
        self.size, self.entries = levels * features, entries
        self.table = nn.Parameter(0.1 * torch.randn(levels * entries, features))
        growth = (fine / coarse) ** (1 / (levels - 1))
        self.register_buffer("cells", torch.floor(coarse * growth ** torch.arange(levels)))
        self.register_buffer("corners", torch.tensor([[c >> a & 1 for a in range(3)] for c in range(8)]))
        self.register_buffer("primes", torch.tensor([1, 2654435761, 805459861]))

    def forward(self, x: Tensor) -> Tensor:
        """Features "m size" at places "m 3" in [-1, 1]^3."""
        scaled = (x[:, None] + 1) / 2 * self.cells[:, None]  # m l 3
        low = scaled.detach().floor()
        share = (scaled - low)[:, :, None]
        weight = torch.where(self.corners.bool(), share, 1 - share).prod(-1)  # m l 8
        mixed = (low.long()[:, :, None] + self.corners) * self.primes
        row = (mixed[..., 0] ^ mixed[..., 1] ^ mixed[..., 2]) % self.entries
        row = row + self.entries * torch.arange(len(self.cells), device=x.device)[:, None]
        read = self.table.index_select(0, row.flatten()).view(*row.shape, self.table.shape[1])
        return (weight[..., None] * read).sum(2).flatten(1)


class Encoded(nn.Module):
    """A field of an encoder and one small network for density and albedo."""

    uses_covariance = False

    def __init__(self, encoder: nn.Module, size: int, width: int = 32) -> None:
        super().__init__()
        self.encoder = encoder
        self.network = nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, 4))

    def density(self, at: Gaussians) -> Tensor:
        return self._outputs(at)[0]

    def evaluate(self, at: Gaussians) -> FieldOutput:
        density, albedo = self._outputs(at)
        return FieldOutput(density=density, albedo=torch.sigmoid(albedo))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"grid": list(self.encoder.parameters()), "network": list(self.network.parameters())}

    def _outputs(self, at: Gaussians) -> tuple[Tensor, Tensor]:
        out = self.network(self.encoder(at.mean))
        return LAW(out[:, 0], at.mean), out[:, 1:]


def hash_field() -> Encoded:
    """A fresh one; draws from torch's own generator."""
    grid = HashGrid()
    return Encoded(grid, grid.size)
