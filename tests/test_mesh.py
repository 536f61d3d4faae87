"""Meshes of bodies whose surface and volume are known; levels that agree with the rendering."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dreamfusion.cli.arguments import MakeMesh
from dreamfusion.config.presets import FAST
from dreamfusion.errors import NoSurface, UserError
from dreamfusion.generate import mesh_blur, own_mesh_options
from dreamfusion.mesh import (
    Mesh,
    MeshOptions,
    TextureOptions,
    bake,
    glb_bytes,
    make_mesh,
    paint,
    simplified,
    surface,
)
from dreamfusion.mesh.agreement import shape_agreement, sides, views_of
from dreamfusion.mesh.level import best_level, level_curve
from dreamfusion.mesh.sample import BLUR, DensityGrid, density_at
from dreamfusion.mesh.triangles import closed
from dreamfusion.nerf.render import RenderOptions
from mesh_scenes import CENTRE, RADIUS, Known, ball, bell, by_place, density_grid, scene_of, soft_ball, union

pytestmark = pytest.mark.processor

LOOK = RenderOptions(samples=32)


def solid(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def test_a_ball_is_closed_simple_wound_outward_and_as_large_as_it_is() -> None:
    body = solid(surface(density_grid(scene_of(ball(0.6)), 64), 25.0))
    assert body.is_watertight
    assert body.is_winding_consistent
    assert body.euler_number == 2
    assert body.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.02)  # negative if wound inward
    assert body.center_mass == pytest.approx(CENTRE, abs=2e-3)


@pytest.mark.parametrize("blur", [0.0, BLUR])
def test_vertices_lie_on_the_level_set_far_below_the_lattice_spacing(blur: float) -> None:
    """A bell of spread s, blurred by a bell of spread b, is one of spread sqrt(s^2 + b^2) with the same mass."""
    peak, spread, level = 40.0, 0.2, 3.0
    grid = density_grid(scene_of(bell(peak, spread)), 48, blur)
    wide = math.hypot(spread, blur)
    expected = wide * math.sqrt(2 * math.log(peak * (spread / wide) ** 3 / level))
    distance = np.linalg.norm(surface(grid, level).vertices, axis=1)
    assert np.abs(distance - expected).max() < 0.1 * grid.spacing


def test_a_torus_keeps_its_hole() -> None:
    def torus(points: Tensor) -> Tensor:
        ring = points[:, [0, 2]].norm(dim=-1) - 0.55
        return 50.0 * ((ring.square() + points[:, 1].square()).sqrt() < 0.2)

    body = solid(surface(density_grid(scene_of(torus), 64), 25.0))
    assert body.is_watertight
    assert body.euler_number == 0
    assert body.volume == pytest.approx(2 * math.pi**2 * 0.55 * 0.2**2, rel=0.08)  # the blur shrinks what is round


def test_matter_everywhere_is_cut_off_at_the_bounding_ball() -> None:
    body = solid(surface(density_grid(scene_of(lambda points: torch.full_like(points[:, 0], 20.0)), 64), 10.0))
    assert body.is_watertight
    assert body.euler_number == 2
    assert body.volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.02)


def test_the_field_is_asked_in_occupied_cells_alone_and_the_lattice_ends_with_them() -> None:
    scene = scene_of(ball(0.2, (0.4, 0.4, -0.4)))
    scene.occupancy.update(scene.field, torch.Generator().manual_seed(0))
    asked: list[Tensor] = []
    law = scene.field.density_law
    scene.field.density_law = lambda points: asked.append(points) or law(points)
    grid = density_grid(scene, 64)
    places = torch.cat(asked)
    assert bool(scene.occupancy.mask(places).all())
    assert len(places) < 0.2 * 64**3
    assert max(grid.density.shape) < 48
    outermost = [np.take(grid.density, edge, axis) for axis in range(3) for edge in (0, -1)]
    assert max(layer.max() for layer in outermost) == 0
    assert solid(surface(grid, 25.0)).center_mass == pytest.approx((0.4, 0.4, -0.4), abs=5e-3)


def test_floaters_and_cavities_go_and_large_parts_stay() -> None:
    shell, hollow = ball(0.5, (-0.3, 0.0, 0.0)), ball(0.25, (-0.3, 0.0, 0.0), 1.0)
    second, floater = ball(0.25, (0.6, 0.0, 0.0)), ball(0.1, (0.0, 0.8, 0.0))
    grid = density_grid(scene_of(lambda points: union(shell, second, floater)(points) * (1 - hollow(points))), 64)
    parts = solid(surface(grid, 25.0)).split()
    assert sorted(part.volume for part in parts) == pytest.approx(
        [4 / 3 * math.pi * radius**3 for radius in (0.25, 0.5)], rel=0.08
    )


def test_what_is_in_a_cavity_goes_with_it_and_what_is_in_a_ring_stays() -> None:
    def shell(points: Tensor) -> Tensor:
        return ball(0.6, (0.0, 0.0, 0.0))(points) * (points.norm(dim=-1) > 0.45)

    core, outer, level = ball(0.25, (0.0, 0.0, 0.0)), 4 / 3 * math.pi * 0.6**3, 25.0
    hollow = solid(surface(density_grid(scene_of(union(shell, core)), 64), level))
    assert hollow.body_count == 1
    assert hollow.volume == pytest.approx(outer, rel=0.03)

    def ring(points: Tensor) -> Tensor:
        return union(shell, core)(points) * ((points[:, 1].abs() < 0.2) | (points.norm(dim=-1) < 0.3))

    assert solid(surface(density_grid(scene_of(ring), 64), level)).body_count == 2


def test_a_surface_needs_one_copy_of_its_lattice() -> None:
    grid = density_grid(scene_of(ball(0.3)), 128)
    tracemalloc.start()
    surface(grid, 25.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * grid.density.nbytes


def noisy(points: Tensor) -> Tensor:
    """Lumps that touch each other in many places."""
    return 20.0 * (torch.sin(23 * points).prod(-1) + 0.3 > 0) * (points.norm(dim=-1) < 0.7)


@pytest.mark.parametrize("faces", [10_000, 1_500])
def test_fewer_faces_leave_a_closed_manifold_surface(faces: int) -> None:
    rough = surface(density_grid(scene_of(noisy), 64, 0.015), 8.0)
    body = solid(simplified(rough, faces))
    assert len(rough.faces) > 2 * faces
    assert 0.85 * faces < len(body.faces) <= faces
    assert body.is_watertight
    assert body.is_winding_consistent
    assert np.bincount(body.edges_unique_inverse).tolist() == [2] * len(body.edges_unique)


def test_fewer_faces_keep_the_silhouette() -> None:
    grid = density_grid(scene_of(ball(0.6)), 64)
    rough = surface(grid, 25.0)
    few = simplified(rough, 1000)
    assert solid(few).volume == pytest.approx(solid(rough).volume, rel=0.005)
    assert np.abs(np.linalg.norm(few.vertices - np.array(CENTRE), axis=1) - 0.6).max() < 0.5 * grid.spacing


def test_the_level_of_a_solid_body_gives_its_silhouette_and_place() -> None:
    scene = scene_of(ball(0.6, density=300.0))
    views, grid = views_of(scene, sides(scene, 32), LOOK), density_grid(scene, 40)
    curve = level_curve(grid, views, scene.radius)
    found = shape_agreement(surface(grid, best_level(curve)), views, scene.radius)
    assert found.silhouette_iou > 0.96
    assert found.depth_error < 0.03


def test_the_chosen_level_is_the_best_of_many() -> None:
    scene = scene_of(bell(60.0, 0.25))
    views, grid = views_of(scene, sides(scene, 24), LOOK), density_grid(scene, 28)
    curve = level_curve(grid, views, scene.radius)
    assert [tried.level for tried in curve] == sorted(tried.level for tried in curve)
    shapes = [
        shape_agreement(surface(grid, level), views, scene.radius)
        for level in np.geomspace(curve[0].level, curve[-1].level, 15)
    ]
    rival = max(shape.silhouette_iou - 0.5 * shape.depth_error for shape in shapes)
    assert max(tried.score for tried in curve) > rival - 0.01


@pytest.mark.anywhere
def test_a_whole_mesh_and_what_is_said_of_it() -> None:
    scene = scene_of(soft_ball(0.6))
    options = MeshOptions(40, blur=0.03, faces=800, texture=TextureOptions(128), fit=False)
    mesh, report = make_mesh(scene, LOOK, options)
    assert (report.faces, report.vertices) == (len(mesh.faces), len(mesh.vertices))
    assert report.watertight
    assert report.simplification_iou > 0.97
    assert report.agreement.silhouette_iou > 0.96
    assert report.agreement.depth_error < 0.04
    assert report.agreement.albedo_psnr_db > 24
    assert report.agreement.albedo_object_psnr_db < report.agreement.albedo_psnr_db - 0.5
    assert "without the backdrop" in str(report)
    assert report.record()["agreement"]["albedo_psnr_db"] == pytest.approx(report.agreement.albedo_psnr_db, rel=1e-3)
    assert "closed and manifold" in str(report)
    by_hand = simplified(surface(density_grid(scene, 40), report.level), 800)
    again = bake(paint(by_hand, scene), scene, TextureOptions(128))
    assert glb_bytes(again, {}) == glb_bytes(mesh, {})


@pytest.mark.parametrize(
    ("density", "message"), [(0.0, "empty scene"), (0.01, "empty scene"), (0.2, r"fog: .*0\.3.*--regularise.entropy")]
)
def test_an_empty_scene_and_a_thin_fog_have_no_surface(density: float, message: str) -> None:
    scene = scene_of(lambda points: torch.full_like(points[:, 0], density))
    with pytest.raises(UserError, match=message):
        level_curve(density_grid(scene, 24), views_of(scene, sides(scene, 16), LOOK), scene.radius)


def test_a_ball_that_is_opaque_only_in_its_middle_is_fog() -> None:
    """Density 0.4 is opaque along chords longer than ln 2 / 0.4: a disc with a quarter of the ball's outline."""
    scene = scene_of(lambda points: torch.full_like(points[:, 0], 0.4))
    views = views_of(scene, sides(scene, 24), LOOK)
    assert bool(views.opaque.any())
    with pytest.raises(UserError, match="fog"):
        level_curve(density_grid(scene, 24), views, scene.radius)


def test_a_speck_in_thin_fog_is_fog() -> None:
    """The speck is seen from some sides alone; that neither it nor its mesh is seen from the others proves nothing."""
    thin = scene_of(union(ball(0.8, density=0.2), ball(0.03, (0.3, 0.2, 0.1), 5000.0)))
    views = views_of(thin, sides(thin, 16), RenderOptions(samples=128))
    assert 0 < views.opaque.any(2).any(1).sum() < 4
    with pytest.raises(UserError, match="fog"):
        level_curve(density_grid(thin, 64), views, thin.radius)


def test_the_field_is_prepared_once_for_a_lattice() -> None:
    scene, asked = scene_of(ball(0.6)), list[int]()

    def precomputed() -> Known:
        asked.append(1)
        return Known(ball(0.6), by_place)

    scene.field.precomputed = precomputed
    assert density_grid(scene, 16).density.max() > 25
    assert len(asked) == 1


def test_a_level_above_everything_and_a_lattice_of_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="no density above 60"):
        surface(density_grid(scene_of(ball(0.6)), 32), 60.0)
    with pytest.raises(UserError, match="resolution"):
        density_grid(scene_of(ball(0.6)), 2)


def test_a_level_within_rounding_of_the_maximum_has_a_surface_or_is_refused() -> None:
    refused = 0
    for most in range(3, 60):
        density = np.zeros((7, 7, 7), np.float32)
        density[2:5, 2:5, 2:5] = most
        try:
            assert len(surface(DensityGrid(density, np.zeros(3), 0.1), most * (1 - 8e-8)).faces) > 0
        except NoSurface:
            refused += 1
    assert 0 < refused < 57


def test_bodies_that_share_an_edge_are_not_closed() -> None:
    """As a mesh with vertices of their own they are, but .stl files know places alone."""
    first, second, far = (trimesh.creation.box().apply_translation((x, x, 0)) for x in (0, 1, 3))

    def joined(other: trimesh.Trimesh) -> Mesh:
        both = trimesh.util.concatenate([first, other])
        return Mesh(both.vertices.astype(np.float32), np.asarray(both.faces, np.int64))

    assert len(joined(second).vertices) == 16
    assert not closed(joined(second))
    assert closed(joined(far))
    assert not closed(Mesh(joined(far).vertices, joined(far).faces[1:]))
    turned = joined(far).faces.copy()
    turned[0] = turned[0, ::-1]
    assert not closed(Mesh(joined(far).vertices, turned))


def test_the_blur_of_the_command_line_is_that_of_meshes() -> None:
    fast = replace(FAST, prompt="a ball")
    assert MakeMesh.blur is None
    assert mesh_blur(fast) == mesh_blur(replace(fast, size=32)) == MeshOptions.blur == BLUR
    assert mesh_blur(replace(fast, size=256)) == own_mesh_options(replace(fast, size=256)).blur == BLUR / 2


def test_density_outside_the_ball_is_zero() -> None:
    scene = scene_of(lambda points: torch.ones_like(points[:, 0]))
    assert density_at(scene, scene.field, torch.tensor([[0.9, 0.0, 0.0], [0.8, 0.8, 0.0]]), 0.1).tolist() == [1.0, 0.0]
