"""How well a mesh stands on a flat floor, differentiable in its vertices.

A solid that leans by a small angle is held up by the points that are lowest then. It comes back if its centre of mass
is still on the inner side of them: the lever arm, the slope of the height of the centre over the angle, is above 0. The
least angle at which that fails to some side is the tip angle of `mesh.stance`.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.nerf.scene import Scene
from dreamfusion.surface.scene import MeshScene

LEANS = (0.05, 0.1)
"""radians; both above the 3 degrees at which `mesh.stance` calls a solid steady"""
SIDES = 24
"""directions to which it leans"""
MARGIN = 0.02
"""lever arm that is enough, in the mesh's heights"""
_SOFT = 1e-3
"""height, in the mesh's, over which the share of a vertex in holding up falls e-fold"""


def stability(scene: Scene) -> Float[Tensor, ""] | None:
    """Mean over small leans to all sides of max(0, MARGIN - lever arm)^2, in the mesh's squared height.

    It is 0 for a mesh that stands firmly. None where the scene is no mesh that may move. (Atlas3D, Chen et al. 2024,
    arXiv:2405.18515, penalises by how much the centre of mass sinks at small leans; this is the slope of the same.)
    """
    if not isinstance(scene, MeshScene) or not scene.offset.requires_grad:
        return None
    vertices = scene.shape.vertices
    height = (vertices[:, 1].amax() - vertices[:, 1].amin()).detach()
    arms = lever_arms(vertices, centre_of_mass(vertices, scene.faces), height * _SOFT)
    return (MARGIN - arms / height).clamp(min=0).square().mean()


def centre_of_mass(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, " 3"]:
    """Of what a closed mesh encloses, equally dense: the mean of the tetrahedra between a place and its faces."""
    middle = vertices.mean(0)  # any place would do; near ones lose fewer digits
    a, b, c = (vertices - middle)[faces].unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum(-1)
    return middle + (volume[:, None] * (a + b + c)).sum(0) / (4 * volume.sum())


def lever_arms(
    vertices: Float[Tensor, "v 3"], centre: Float[Tensor, " 3"], soft: Float[Tensor, ""]
) -> Float[Tensor, "leans sides"]:
    """By how much the centre is on the inner side of what holds it up, in world units, for each lean to each side.

    What holds it up is the mean of the vertices with weights exp(-height / soft), which is the lowest one as `soft`
    goes to 0.
    """
    side = torch.arange(SIDES, device=vertices.device, dtype=vertices.dtype) * (2 * math.pi / SIDES)
    lean = vertices.new_tensor(LEANS)[:, None]
    up = _towards(side, lean.sin(), lean.cos())
    inward = _towards(side, lean.cos(), -lean.sin())  # how `up` changes with the lean
    weights = (-(up @ (vertices - centre).T) / soft).softmax(-1)
    return -(inward * (weights @ (vertices - centre))).sum(-1)


def _towards(
    side: Float[Tensor, " s"], aside: Float[Tensor, "l 1"], upward: Float[Tensor, "l 1"]
) -> Float[Tensor, "l s 3"]:
    return torch.stack([aside * side.cos(), upward.expand(-1, len(side)), aside * side.sin()], -1)
