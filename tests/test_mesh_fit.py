"""A mesh that learns from the renderings of its scene shows them better, and stays a mesh that can be printed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamfusion.mesh import Mesh, MeshOptions, TextureOptions, make_mesh, mesh_of
from dreamfusion.mesh.agreement import agreement, sides, views_of
from dreamfusion.mesh.fit import fitted
from dreamfusion.mesh.triangles import closed
from dreamfusion.nerf.render import RenderOptions
from mesh_scenes import scene_of, soft_ball

LOOK = RenderOptions(samples=48)
OPTIONS = MeshOptions(24, 24, 0.06, level=30.0, faces=600, texture=TextureOptions(64))


def striped(points: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.sin(9 * points[:, :1]) > 0, 0.9, 0.1).expand(-1, 3)


def shrunk(mesh: Mesh, factor: float) -> Mesh:
    return replace(mesh, vertices=mesh.vertices * np.float32(factor))


@pytest.mark.parametrize("factor", [0.86, 1.0])  # radii of 0.565 and 0.657, where the rendering's is some 0.61
def test_a_mesh_that_was_too_small_or_too_large_becomes_as_large_as_the_rendering(factor: float) -> None:
    scene = scene_of(soft_ball(0.6), striped)
    first = shrunk(mesh_of(scene, LOOK, replace(OPTIONS, fit=False)).mesh, factor)
    again = fitted(first, scene, LOOK, 48)
    views = views_of(scene, sides(scene, 48, turn=0.5), LOOK)
    before, after = (agreement(mesh, scene, views, LOOK) for mesh in (first, again))
    assert after.albedo_object_psnr_db > before.albedo_object_psnr_db + 1
    assert 1 - after.silhouette_iou < 0.6 * (1 - before.silhouette_iou)
    assert closed(again)
    assert np.array_equal(first.faces, again.faces)


def test_a_mesh_is_fitted_unless_that_is_refused_and_has_its_extras_then() -> None:
    scene = scene_of(soft_ball(0.6), striped)
    mesh, report = make_mesh(scene, LOOK, replace(OPTIONS, texture=TextureOptions(64, normal_map=True)))
    bare = mesh_of(scene, LOOK, replace(OPTIONS, fit=False)).mesh
    assert report.watertight
    assert mesh.normal_map is not None
    assert not np.array_equal(mesh.vertices, bare.vertices)
    assert mesh.uv is not None
    assert bare.uv is not None
    assert np.array_equal(mesh.uv, bare.uv)
    lit = make_mesh(scene, LOOK, replace(OPTIONS, texture=TextureOptions(64, bake_light=True)))[0]
    assert lit.lit
    assert np.array_equal(lit.vertices, mesh.vertices)
