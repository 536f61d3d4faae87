"""Regularisers of a mesh. Each maps a scene to one number >= 0, or None where it is no mesh that may move."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.geometry import normalise
from dreamfusion.nerf.scene import Scene
from dreamfusion.surface.scene import MeshScene, face_normals


def laplacian(scene: Scene) -> Float[Tensor, ""] | None:
    """Mean square distance of the vertices' displacements from the mean of their neighbours', in edges' mean squares.

    So what the mesh began with costs nothing, and its size and fineness do not matter.
    """
    if not isinstance(scene, MeshScene) or not scene.offset.requires_grad:
        return None
    ends, start = scene.edge_vertices, scene.start
    edge = (start[ends[:, 0]] - start[ends[:, 1]]).square().sum(-1).mean()
    return (scene.offset - neighbours_mean(scene.offset, ends)).square().sum(-1).mean() / edge


def bending(scene: Scene) -> Float[Tensor, ""] | None:
    """Mean over the edges of 1 - cos of the angle between their two faces."""
    if not isinstance(scene, MeshScene) or not scene.offset.requires_grad:
        return None
    normal = normalise(face_normals(scene.shape.vertices, scene.faces))
    one, other = (normal.index_select(0, faces) for faces in scene.edge_faces.unbind(1))
    return (1 - (one * other).sum(-1)).mean()


def neighbours_mean(values: Float[Tensor, "v 3"], ends: Int[Tensor, "e 2"]) -> Float[Tensor, "v 3"]:
    """Of the vertices at the other ends of all edges of each vertex."""
    here, there = ends.flatten(), ends.flip(1).flatten()
    count = torch.zeros_like(values[:, 0]).index_add(0, here, torch.ones_like(here, dtype=values.dtype))
    return torch.zeros_like(values).index_add(0, here, values.index_select(0, there)) / count[:, None]
