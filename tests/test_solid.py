"""Meshes as real things: solids whose tip angles, poses, walls and overhangs have closed forms, and changes to them."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dreamfusion.cli.arguments import Material
from dreamfusion.errors import UserError
from dreamfusion.mesh import (
    BodyOptions,
    Mesh,
    MeshOptions,
    TextureOptions,
    bake,
    density_grid,
    make_mesh,
    paint,
    solid,
    surface,
    thickened,
    with_flat_base,
)
from dreamfusion.mesh.extract import manifold
from dreamfusion.mesh.reshape import STEADY_BASE_DEG, changed
from dreamfusion.mesh.solid import DENSITY, overhang
from dreamfusion.mesh.stance import centre_of_mass, stance
from dreamfusion.nerf.render import RenderOptions
from mesh_scenes import ball, scene_of

Triple = tuple[float, float, float]


def mesh_of(form: trimesh.Trimesh) -> Mesh:
    return Mesh(np.array(form.vertices, np.float32), np.array(form.faces, np.int64))


def box(size: Triple, middle: Triple = (0.0, 0.0, 0.0)) -> trimesh.Trimesh:
    return trimesh.creation.box(size).apply_translation(middle)


def joined(*parts: trimesh.Trimesh) -> Mesh:
    return mesh_of(trimesh.boolean.union(parts))


def upright(form: trimesh.Trimesh) -> Mesh:
    """With what was its z axis upward."""
    return mesh_of(form.apply_transform(trimesh.transformations.rotation_matrix(-math.pi / 2, (1, 0, 0))))


def pointed(radius: float, height: float) -> Mesh:
    """A cone on its point."""
    form = trimesh.creation.cone(radius, height, sections=90)
    return mesh_of(form.apply_transform(trimesh.transformations.rotation_matrix(math.pi / 2, (1, 0, 0))))


SPHERE = mesh_of(trimesh.creation.icosphere(5))
L_SHAPE = joined(box((1, 4, 1), (0.5, 2, 0)), box((6, 1, 1), (3, 4.5, 0)))
TABLE = joined(
    box((4, 0.5, 3), (0, 3.25, 0)), *(box((0.4, 3, 0.4), (x, 1.5, z)) for x in (-1.8, 1.8) for z in (-1.3, 1.3))
)


@pytest.mark.parametrize(("width", "height", "depth"), [(2, 6, 3), (5, 1, 4), (1, 1, 1)])
def test_a_box_tips_over_its_nearest_edge(width: float, height: float, depth: float) -> None:
    found = stance(mesh_of(box((width, height, depth))))
    near = min(width, depth) / 2
    assert found.tip_angle_deg == pytest.approx(math.degrees(math.atan(near / (height / 2))), abs=0.1)
    assert found.margin == pytest.approx(near, rel=0.01)


def test_a_box_comes_to_rest_on_a_side_as_often_as_that_is_seen_from_its_middle() -> None:
    """The side a x b at the distance c covers 4 asin(...) steradians: atan(ab / (2c sqrt(a^2 + b^2 + 4c^2)))."""
    poses = {round(pose.lean_deg): pose.chance for pose in stance(mesh_of(box((2, 3, 2.5)))).poses}
    angle = 4 * math.atan(2 * 2.5 / (2 * 1.5 * math.sqrt(2**2 + 2.5**2 + 4 * 1.5**2)))
    assert set(poses) == {0, 90, 180}
    assert poses[0] == pytest.approx(angle / (4 * math.pi), rel=1e-3)
    assert sum(poses.values()) == pytest.approx(1)


def test_a_cone_stands_on_its_base_and_lies_on_its_side() -> None:
    found = stance(upright(trimesh.creation.cone(1, 3, sections=90)))
    assert found.tip_angle_deg == pytest.approx(math.degrees(math.atan(1 / (3 / 4))), abs=0.2)
    assert [round(pose.lean_deg) for pose in found.poses] == [108, 0]  # 90 + atan(1 / 3)
    on_its_point = stance(pointed(1, 3))
    assert not on_its_point.stands
    assert on_its_point.tip_angle_deg == pytest.approx(0, abs=0.1)


def test_a_ball_falls_and_a_half_ball_rights_itself() -> None:
    assert not stance(SPHERE).stands
    half = trimesh.boolean.intersection([trimesh.creation.icosphere(4), box((3, 1, 3), (0, -0.5, 0))])
    # Its centre of mass is 3/8 below the ball's: 5/8 above the floor, and 1 when it is turned on its edge.
    assert stance(mesh_of(half)).tip_angle_deg == pytest.approx(math.degrees(math.acos(5 / 8)), abs=1)


def test_a_table_stands_on_four_legs_also_if_one_is_a_little_short() -> None:
    across = math.degrees(math.atan(1.5 / centre_of_mass(TABLE)[1]))
    assert stance(TABLE).tip_angle_deg == pytest.approx(across, abs=0.1)
    rocking = TABLE.vertices.copy()
    rocking[(rocking[:, 1] < 0.1) & (rocking[:, 0] > 0) & (rocking[:, 2] > 0), 1] += 0.05
    assert stance(replace(TABLE, vertices=rocking)).tip_angle_deg == pytest.approx(across, abs=2)


def test_what_is_heavier_beyond_its_foot_falls() -> None:
    assert stance(L_SHAPE).tip_angle_deg == 0
    assert not solid(L_SHAPE).stands
    assert "FALLS" in str(solid(L_SHAPE))


def test_volume_and_weight_are_those_at_the_height() -> None:
    found = solid(mesh_of(box((2, 4, 1))), height_mm=200.0, material="steel")
    assert found.volume_cm3 == pytest.approx(20 * 10 * 5)
    assert found.weight_g == pytest.approx(7.85 * 1000)
    assert found.margin_mm == pytest.approx(25, rel=0.01)
    assert set(get_args(Material)) == set(DENSITY)


def test_the_wall_of_a_hollow_box_is_measured_and_what_stands_in_it_is_a_piece() -> None:
    outer, inner = box((4, 5, 4)), box((3.4, 4.4, 3.4))
    hollow = mesh_of(trimesh.boolean.difference([outer, inner]))
    assert solid(hollow, 100.0).thinnest_mm == pytest.approx(0.3 * 20, rel=0.01)
    assert solid(hollow).pieces == 1
    inside = trimesh.boolean.union([trimesh.boolean.difference([outer, inner]), box((1, 1, 1))])
    assert solid(mesh_of(inside)).pieces == 2


def test_a_ball_is_as_thick_as_it_is_wide() -> None:
    assert solid(mesh_of(trimesh.creation.icosphere(4)), 100.0).thinnest_mm == pytest.approx(100, rel=0.01)


def test_the_arms_of_a_t_hang_over_and_slopes_of_less_than_45_degrees_do_not() -> None:
    tee = joined(box((1, 4, 1), (0, 2, 0)), box((5, 1, 1), (0, 4.5, 0)))
    assert overhang(tee) == pytest.approx(4)
    for half_width, share in ((0.9, 0.0), (1.1, 1.0)):  # of a point that grows to this at a height of 1
        funnel = pointed(half_width, 1)
        slope = math.pi * half_width * math.hypot(half_width, 1)
        assert overhang(funnel) == pytest.approx(share * slope, rel=0.01)


@pytest.mark.parametrize(
    ("body", "most"),
    [(mesh_of(trimesh.creation.icosphere(4)), 0.001), (L_SHAPE, 0.1), (TABLE, 0.01), (pointed(1, 3), 0.05)],
    ids=["ball", "L", "table", "cone on its point"],
)
def test_a_flat_base_makes_it_stand_with_little_change(body: Mesh, most: float) -> None:
    found = with_flat_base(body)
    assert stance(found).tip_angle_deg >= min(STEADY_BASE_DEG, 9.9)
    assert 0 <= changed(body, found) < most
    assert len(manifold(found).decompose()) == 1
    low = float(found.vertices[:, 1].min())
    assert low == pytest.approx(body.vertices[:, 1].min(), abs=0.11 * float(np.ptp(body.vertices[:, 1])))
    on_floor = found.vertices[found.vertices[:, 1] < low + 1e-4]
    assert np.ptp(on_floor[:, 0]) > 0.1


def test_the_plate_under_what_falls_is_the_least_of_all_that_were_tried() -> None:
    """No cut makes the L stand, so a plate comes below it, some 1.2 times as wide as needed."""
    found = with_flat_base(L_SHAPE)
    assert 10 < stance(found).tip_angle_deg < 16


def test_a_thin_plate_is_thickened_and_thick_parts_stay() -> None:
    body = joined(box((2, 2, 2)), box((2, 0.1, 1.5), (1.5, 0, 0)))
    found = thickened(body, 0.3)
    assert solid(body, 20.0).thinnest_mm == pytest.approx(1.0, rel=0.02)
    assert solid(found, 20.0).thinnest_mm >= 3.0 * 0.97
    # The plate sticks out by 1.5 x 1.5: what is added is 0.2 more of thickness, and half a rod along three edges.
    added = (1.5 * 1.5 * 0.2 + 4.5 * math.pi * 0.15**2 / 2) / manifold(body).volume()
    assert changed(body, found) == pytest.approx(added, rel=0.25)
    assert found.vertices[:, 0].min() == body.vertices[:, 0].min()


def test_parts_that_do_not_touch_are_joined() -> None:
    apart = mesh_of(
        trimesh.util.concatenate([box((1, 1, 1)), box((1, 1, 1), (1.5, 0.2, 0)), box((1, 1, 1), (0, 2, 0))])
    )
    assert solid(apart).pieces == 3
    found = thickened(apart, 0.2)
    assert solid(found).pieces == 1
    assert changed(apart, found) < 0.03


def test_what_is_thick_enough_is_left_as_it_is() -> None:
    body = mesh_of(box((2, 3, 2)))
    assert changed(body, thickened(body, 1.0)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(UserError, match="1/250 of the longest side"):
        thickened(body, 0.01)
    with pytest.raises(UserError, match="more than the whole object"):
        thickened(body, 3.0)


def halves(points: Tensor) -> Tensor:
    """Red above, blue below."""
    return torch.where(points[:, 1:2] > 0, points.new_tensor([1.0, 0.0, 0.0]), points.new_tensor([0.0, 0.0, 1.0]))


def test_a_changed_mesh_takes_the_colours_of_the_surface_beside_it() -> None:
    """A plate far below a ball, where the field says red: the ball is blue there."""

    def misleading(points: Tensor) -> Tensor:
        outside = points.norm(dim=-1, keepdim=True) > 0.5
        return torch.where(outside, points.new_tensor([1.0, 0.0, 0.0]), halves(points))

    scene = scene_of(ball(0.45, (0.0, 0.0, 0.0)), misleading)
    found = surface(density_grid(scene, 48, 0.03), 25.0)
    plate = mesh_of(box((0.6, 0.1, 0.6), (0, -0.7, 0)))
    assert paint(plate, scene).colours == pytest.approx(np.tile([1.0, 0, 0], (8, 1)), abs=0.01)
    assert paint(plate, scene, found).colours == pytest.approx(np.tile([0, 0, 1.0], (8, 1)), abs=0.01)
    texture = bake(plate, scene, TextureOptions(64), found).texture
    assert texture is not None
    assert (texture == (0, 0, 255)).all()
    sphere = paint(found, scene, found).colours
    assert sphere == pytest.approx(paint(found, scene).colours)


def test_a_mesh_that_is_to_stand_and_be_printable_is_and_says_what_that_changed() -> None:
    def stick(points: Tensor) -> Tensor:
        rod = torch.maximum(points[:, [0, 2]].norm(dim=-1) - 0.1, points[:, 1].abs() - 0.5)
        head = (points - points.new_tensor([0.25, 0.45, 0.0])).norm(dim=-1) - 0.3
        return 200.0 * torch.sigmoid(-100.0 * torch.minimum(rod, head))

    body = BodyOptions(height_mm=60.0, stand=True, wall_mm=15.0, material="bronze")
    options = MeshOptions(resolution=40, picture_size=32, faces=900, texture=TextureOptions(64), body=body)
    mesh, report = make_mesh(scene_of(stick), RenderOptions(samples=32), options)
    assert report.before is not None
    assert not report.before.stands
    assert report.solid.stands
    assert report.before.thinnest_mm < 13 < report.solid.thinnest_mm
    assert 0 < report.changed < 0.6
    assert report.solid.material == "bronze"
    assert mesh.texture is not None
    assert "before it was changed" in str(report)
    assert report.record()["solid"]["poses"][0]["chance"] > 0
    plain = make_mesh(scene_of(stick), RenderOptions(samples=32), replace(options, body=BodyOptions()))[1]
    assert plain.before is None
    assert plain.changed == 0
