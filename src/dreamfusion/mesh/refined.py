"""Between meshes in files and scenes that are meshes: into one, and out of it again."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from dreamfusion.files import rounded
from dreamfusion.mesh.solid import Solid, solid
from dreamfusion.mesh.texture import shown_texels, spread
from dreamfusion.mesh.triangles import Mesh, closed
from dreamfusion.surface import LimitScene, MeshScene, Shape, colours_at


@dataclass(frozen=True)
class RefinedReport:
    """What the mesh of a second stage is like."""

    faces: int
    vertices: int
    """without the doubles that texture seams need in most formats"""
    watertight: bool
    """see `Report`"""
    solid: Solid
    """what it would be as a real thing"""

    def __str__(self) -> str:
        surface = f"{self.faces} triangles, " + ("closed and manifold" if self.watertight else "NOT manifold as .stl")
        return f"{surface}\n{self.solid}"

    def record(self) -> dict[str, Any]:
        """For a JSON file."""
        return rounded(asdict(self))


def refined_report(mesh: Mesh, height_mm: float, material: str) -> RefinedReport:
    """What a mesh that learned is like, at a height, of a material."""
    return RefinedReport(len(mesh.faces), len(mesh.vertices), closed(mesh), solid(mesh, height_mm, material))


def put_into(scene: MeshScene, mesh: Mesh) -> None:
    """Let a scene of the mesh's sizes begin with a mesh that is baked."""
    assert mesh.uv is not None
    assert mesh.texture is not None
    shape = Shape(*(torch.from_numpy(part) for part in (mesh.vertices, mesh.faces, mesh.uv)))
    scene.take(shape, torch.from_numpy(mesh.texture) / 255)


@torch.no_grad()
def taken_from(scene: MeshScene) -> Mesh:
    """The mesh as it is now; texels that no face shows are their nearest neighbours'."""
    shape = scene.shape
    texture = (scene.texture[0].movedim(0, -1) * 255).round().byte().cpu().numpy()
    vertices, faces, uv = (part.cpu().numpy() for part in (shape.vertices, shape.faces, shape.uv))
    mesh = Mesh(vertices, faces, uv=uv)
    mesh = replace(mesh, texture=spread(texture, shown_texels(mesh, len(texture))), colours=_at_vertices(scene))
    if isinstance(scene, LimitScene):
        bumps = scene.normal_map[0].movedim(0, -1)
        mesh = replace(mesh, normal_map=((0.5 + 0.5 * bumps) * 255).round().byte().cpu().numpy())
    return mesh


def _at_vertices(scene: MeshScene) -> Float[np.ndarray, "v 3"]:
    """Mean of what the texture shows at the corners of the faces that meet there."""
    corner = scene.faces.flatten()
    colours = colours_at(scene.texture, scene.uv.flatten(0, 1))
    total = torch.zeros_like(scene.start).index_add(0, corner, colours)
    count = torch.zeros_like(scene.start[:, 0]).index_add(0, corner, torch.ones_like(colours[:, 0]))
    return (total / count[:, None]).cpu().numpy()
