"""Joint field: the fields of several things in one space, each wherever it is placed, turned and scaled.

Matter adds up: the density of a place is the sum of what all things have there, and its colour and normal are the
means of theirs, weighted by density. A thing that is n times as large as in its own field lets light pass as deep into
it, in its own lengths, so its density per unit of length is 1 / n of that of its field. Outside the ball of its field a
thing is not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamfusion.config import PlaceConfig
from dreamfusion.geometry import normalise, rotation_xyz
from dreamfusion.nerf.fields import Field, FieldOutput, Gaussians, precomputed, surface
from dreamfusion.nerf.fields.encoding import isotropic


class JointField(nn.Module):
    """See the module's docstring."""

    uses_covariance = False

    turn: Tensor  # "p 3 3", from the axes of a thing to those of the scene
    position: Tensor  # "p 3"
    scale: Tensor  # "p"

    def __init__(self, things: Sequence[Field], places: Sequence[PlaceConfig], radius: float) -> None:
        """`radius` is that of the things' own balls. The things are modules, and none of them needs covariances."""
        super().__init__()
        self.things = nn.ModuleList(thing for thing in things if isinstance(thing, nn.Module))
        self.thing_of, self.radius = tuple(place.thing for place in places), radius
        rotation = torch.tensor([place.rotation for place in places]).deg2rad()
        # They are in the configuration, and so in no checkpoint.
        self.register_buffer("turn", rotation_xyz(rotation), persistent=False)
        self.register_buffer("position", torch.tensor([place.position for place in places]), persistent=False)
        self.register_buffer("scale", torch.tensor([place.scale for place in places]), persistent=False)

    def density(self, at: Gaussians) -> Float[Tensor, " m"]:
        """See `Field`."""
        return self.precomputed().density(at)

    def evaluate(self, at: Gaussians) -> FieldOutput:
        """See `Field`."""
        return self.precomputed().evaluate(at)

    def surface(self, at: Gaussians) -> FieldOutput:
        """See `SurfaceField`."""
        return self.precomputed().surface(at)

    def precomputed(self) -> "ReadyThings":
        """See `PrecomputableField`."""
        return ReadyThings(self, [precomputed(thing) for thing in self.fields()])

    def fields(self) -> list[Field]:
        """The things."""
        found = list[Field]()
        for thing in self.things:
            assert isinstance(thing, Field)
            found.append(thing)
        return found

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Field`."""
        groups = dict[str, list[nn.Parameter]]()
        for thing in self.fields():
            for name, parameters in thing.parameter_groups().items():
                groups.setdefault(name, []).extend(parameters)
        return groups


@dataclass(frozen=True, eq=False)
class ReadyThings:
    """A joint field whose things have done what they can once for several queries."""

    joint: JointField
    things: Sequence[Field]
    uses_covariance = False

    def density(self, at: Gaussians) -> Float[Tensor, " m"]:
        """See `Field`."""
        total = torch.zeros_like(at.mean[:, 0])
        for place, thing in enumerate(self.joint.thing_of):
            number, own = self._inside(place, at.mean)
            total = total.index_add(0, number, self.things[thing].density(own) / self.joint.scale[place])
        return total

    def evaluate(self, at: Gaussians) -> FieldOutput:
        """See `Field`."""
        return self._mixed(at, lambda thing, own: thing.evaluate(own))

    def surface(self, at: Gaussians) -> FieldOutput:
        """See `SurfaceField`."""
        return self._mixed(at, lambda thing, own: surface(thing, own, create_graph=torch.is_grad_enabled()))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Field`."""
        return self.joint.parameter_groups()

    def _inside(self, place: int, mean: Float[Tensor, "m 3"]) -> tuple[Tensor, Gaussians]:
        """Which of some places are in the ball of a thing, and where they are in its own space."""
        joint = self.joint
        own = (mean - joint.position[place]) @ joint.turn[place] / joint.scale[place]
        number = (own.square().sum(-1) <= joint.radius**2).nonzero()[:, 0]
        return number, isotropic(own.index_select(0, number), 0.0)

    def _mixed(self, at: Gaussians, ask: Callable[[Field, Gaussians], FieldOutput]) -> FieldOutput:
        total, normals = at.mean.new_zeros(len(at.mean), 7), False
        for place, thing in enumerate(self.joint.thing_of):
            number, own = self._inside(place, at.mean)
            matter = ask(self.things[thing], own)
            density, normals = matter.density[:, None] / self.joint.scale[place], matter.normal is not None
            normal = torch.zeros_like(matter.albedo) if matter.normal is None else matter.normal
            parts = torch.cat([torch.ones_like(density), matter.albedo, normal @ self.joint.turn[place].T], -1)
            total = total.index_add(0, number, density * parts)
        density, albedo, normal = total.split([1, 3, 3], -1)
        albedo = albedo / density.clamp(min=torch.finfo(density.dtype).tiny)
        return FieldOutput(density[:, 0], albedo, normalise(normal) if normals else None)
