"""A scene: everything of the 3D half that is learned or remembered."""

from torch import nn

from dreamfusion.background import Background
from dreamfusion.fields import Field
from dreamfusion.occupancy import Occupancy


class Scene(nn.Module):
    """A field inside the ball of `radius` about the origin, a background outside, and a memory of empty space."""

    def __init__(self, field: Field, background: Background, occupancy: Occupancy, radius: float) -> None:
        super().__init__()
        self.field = field
        self.background = background
        self.occupancy = occupancy
        self.radius = radius

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters, by the learning rate they need: "grid", "network" (the field's) and "background"."""
        groups = dict(self.field.parameter_groups())
        surrounding = [p for group in self.background.parameter_groups().values() for p in group]
        return groups | ({"background": surrounding} if surrounding else {})
