"""A scene: everything of the 3D half that is learned or remembered."""

import torch
from torch import Generator, Tensor, nn

from dreamfusion.nerf.background import Background
from dreamfusion.nerf.fields import AnnealedField, Field, Gaussians, GrowingField
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.proposals import Proposal

_POINTS = 4096
"""Places that are asked where the matter is, each step"""


class Scene(nn.Module):
    """A field inside the ball of `radius` about the origin, a background outside, and a memory of empty space.

    With a `proposal`, samples follow the density of that network, else they are uniform. With a `centre_memory`, views
    are taken about the running mean of the matter's centre, its `centre`, else about the origin.
    """

    centre: Tensor | None

    def __init__(
        self,
        field: Field,
        background: Background,
        occupancy: Occupancy,
        radius: float,
        proposal: Proposal | None = None,
        centre_memory: float = 0.0,
    ) -> None:
        super().__init__()
        self.field = field
        self.background = background
        self.occupancy = occupancy
        self.radius = radius
        self.proposal = proposal
        self.centre_memory = centre_memory
        self.register_buffer("centre", torch.zeros(3) if centre_memory else None)

    @torch.no_grad()
    def track(self, generator: Generator) -> None:
        """Let the centre, if there is one, follow the matter (Dream Fields): centre of mass at random places."""
        if self.centre is None:
            return
        place = (2 * torch.rand(_POINTS, 3, generator=generator, device=generator.device) - 1).to(self.centre)
        place = place * self.radius
        inside = place.square().sum(-1) <= self.radius**2
        density = self.field.density(Gaussians(mean=place, var=torch.zeros_like(place))) * inside
        mean = (density[:, None] * place).sum(0) / density.sum().clamp(min=torch.finfo(density.dtype).tiny)
        self.centre.lerp_(mean, 1 - self.centre_memory)

    def set_variance(self, variance: float, progress: float) -> None:
        """Make all that is blurred as sharp as it is to be at this progress of the run, in [0, 1]."""
        if isinstance(self.field, AnnealedField):
            self.field.set_variance(variance)
        if self.proposal is not None:
            self.proposal.set_variance(variance, progress)

    def grow(self, progress: float, generator: Generator) -> bool:
        """Make the field as fine as it is to be at this progress of the run; whether there are new parameters."""
        if not isinstance(self.field, GrowingField) or not self.field.grow(progress, self.occupancy.mask):
            return False
        self.occupancy.refine(self.field, generator)
        return True

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters, by the learning rate they need: "grid", "network" (the field's and the proposal's) and
        "background".
        """
        groups = {name: list(parameters) for name, parameters in self.field.parameter_groups().items()}
        if self.proposal is not None:
            groups["network"] = [*groups.get("network", []), *self.proposal.parameters()]
        surrounding = [p for group in self.background.parameter_groups().values() for p in group]
        return groups | ({"background": surrounding} if surrounding else {})
