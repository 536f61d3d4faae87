"""Fields: a field maps Gaussians in world space to density and albedo."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamfusion.nerf.rays import Gaussians


@dataclass(frozen=True, eq=False)
class FieldOutput:
    """What a field holds at `m` places."""

    density: Float[Tensor, " m"]
    """per unit length, >= 0"""
    albedo: Float[Tensor, "m 3"]
    """reflected share of white light, in [0, 1]"""
    normal: Float[Tensor, "m 3"] | None = None
    """outward unit normals, or None if not requested"""


@runtime_checkable
class Field(Protocol):
    """An `nn.Module` that answers for any places inside the scene's ball."""

    uses_covariance: bool
    """whether its answers depend on the variance of the Gaussians; if not, it may be given zeros"""

    def density(self, at: Gaussians) -> Float[Tensor, " m"]:
        """Density alone; cheaper than `evaluate`."""
        ...

    def evaluate(self, at: Gaussians) -> FieldOutput:
        """Density and albedo, without normals."""
        ...

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters, by the kind of learning rate they need: "grid" and "network"."""
        ...


@runtime_checkable
class SurfaceField(Field, Protocol):
    """A field with a cheaper way to its normals than differentiating its density."""

    def surface(self, at: Gaussians) -> FieldOutput:
        """Density, albedo and normals, differentiable in the parameters."""
        ...


@runtime_checkable
class AnnealedField(Field, Protocol):
    """A field that is blurred, less and less as the run goes on (the paper's annealed lambda_Sigma)."""

    def set_variance(self, variance: float) -> None:
        """From now on, answer for places with this variance along each axis."""
        ...


@runtime_checkable
class GrowingField(Field, Protocol):
    """A field that gets finer, and more parameters, as the run goes on."""

    def grow(self, progress: float, occupied: Callable[[Tensor], Tensor]) -> bool:
        """Become as fine as it is to be at this progress of the run, in [0, 1], without changing what it answers.

        occupied: whether places "m 3" can hold matter, "m". Returns whether there are new parameters; old ones stay.
        """
        ...


@runtime_checkable
class DenseField(Field, Protocol):
    """A field whose density stands on one dense grid."""

    def merged_logits(self) -> Float[Tensor, "1 d h w"]:
        """The density logit at its vertices, differentiable."""
        ...


@runtime_checkable
class PrecomputableField(Field, Protocol):
    """A field that can do part of its work once for several queries."""

    def precomputed(self) -> Field:
        """A field with the same answers and gradients, for as long as the parameters stay as they are."""
        ...


def precomputed(field: Field) -> Field:
    """The field, ready for several queries before its parameters change."""
    return field.precomputed() if isinstance(field, PrecomputableField) else field


def surface(field: Field, at: Gaussians, create_graph: bool) -> FieldOutput:
    """Matter with normals: the field's own, or n = -grad density / |grad density| (DreamFusion, section 3.1).

    create_graph: whether a loss on the normals may train the field. Also works under `torch.no_grad()`.
    Where density is constant, the normal is the zero vector.
    """
    if isinstance(field, SurfaceField):
        matter = field.surface(at)
        return matter if create_graph or matter.normal is None else replace(matter, normal=matter.normal.detach())
    trains = torch.is_grad_enabled()
    with torch.enable_grad():
        mean = at.mean.detach().requires_grad_()
        matter = field.evaluate(Gaussians(mean=mean, var=at.var))
        (slope,) = torch.autograd.grad(
            matter.density.sum(), mean, create_graph=create_graph and trains, retain_graph=trains
        )
    if trains:
        return replace(matter, normal=normals_from_gradient(slope))
    return FieldOutput(
        density=matter.density.detach(), albedo=matter.albedo.detach(), normal=normals_from_gradient(slope)
    )


def normals_from_gradient(slope: Float[Tensor, "m 3"]) -> Float[Tensor, "m 3"]:
    """-slope, normalised; slopes under 1e-6 (nothing there) shrink to zero, with a finite gradient."""
    return -slope / (slope.square().sum(-1, keepdim=True) + 1e-12).sqrt()


__all__ = [
    "AnnealedField",
    "DenseField",
    "Field",
    "FieldOutput",
    "Gaussians",
    "GrowingField",
    "PrecomputableField",
    "SurfaceField",
    "normals_from_gradient",
    "precomputed",
    "surface",
]
