"""A scene: everything of the 3D half that is learned or remembered."""

from torch import Generator, nn

from dreamfusion.nerf.background import Background
from dreamfusion.nerf.fields import AnnealedField, Field, GrowingField
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.proposals import Proposal


class Scene(nn.Module):
    """A field inside the ball of `radius` about the origin, a background outside, and a memory of empty space.

    With a `proposal`, samples follow the density of that network, else they are uniform.
    """

    def __init__(
        self,
        field: Field,
        background: Background,
        occupancy: Occupancy,
        radius: float,
        proposal: Proposal | None = None,
    ) -> None:
        super().__init__()
        self.field = field
        self.background = background
        self.occupancy = occupancy
        self.radius = radius
        self.proposal = proposal

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
