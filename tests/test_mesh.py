"""Meshes of bodies whose surface, volume and colour are known; files that come back as they went."""

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dreamfusion.background import Solid
from dreamfusion.cameras import turntable
from dreamfusion.errors import UserError
from dreamfusion.fields import Gaussians, Matter
from dreamfusion.lights import albedo_only
from dreamfusion.mesh import Mesh, export, extract, glb_bytes, linear_from_srgb, paint, srgb_from_linear
from dreamfusion.mesh.extract import Cleaning, choose_level, density_grid
from dreamfusion.occupancy import Occupancy, OccupancyOptions
from dreamfusion.render import RenderOptions, render_views
from dreamfusion.scene import Scene

RADIUS = 1.0
CENTRE = (0.1, -0.05, 0.02)
Law = Callable[[Tensor], Tensor]


class Known(nn.Module):
    """A field given by formulas for density and albedo."""

    sees_width = False

    def __init__(self, density: Law, albedo: Law) -> None:
        super().__init__()
        self.density_law, self.albedo_law = density, albedo

    def density(self, at: Gaussians) -> Tensor:
        return self.density_law(at.mean)

    def matter(self, at: Gaussians) -> Matter:
        return Matter(self.density(at), self.albedo_law(at.mean))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {}


def by_place(points: Tensor) -> Tensor:
    return 0.5 + 0.5 * points


def ball(radius: float, centre: tuple[float, float, float] = CENTRE, density: float = 50.0) -> Law:
    return lambda points: density * ((points - points.new_tensor(centre)).norm(dim=-1) < radius)


def union(*laws: Law) -> Law:
    return lambda points: torch.stack([law(points) for law in laws]).amax(0)


def scene_of(density: Law, albedo: Law = by_place) -> Scene:
    return Scene(Known(density, albedo), Solid(), Occupancy(OccupancyOptions(cells=8), RADIUS), RADIUS)


def solid(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def test_a_ball_is_closed_simple_wound_outward_and_as_large_as_it_is() -> None:
    body = solid(extract(scene_of(ball(0.6)), resolution=64))
    assert body.is_watertight
    assert body.is_winding_consistent
    assert body.euler_number == 2
    assert body.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.01)  # negative if wound inward
    assert body.center_mass == pytest.approx(CENTRE, abs=2e-3)


def test_vertices_lie_on_the_surface_far_below_the_grid_spacing() -> None:
    mesh = extract(scene_of(ball(0.6)), resolution=48, cleaning=Cleaning(smoothing=0))
    distance = np.linalg.norm(mesh.vertices - np.array(CENTRE), axis=1)
    assert np.abs(distance - 0.6).max() < 0.05 * 2 * RADIUS / 47


def test_a_torus_keeps_its_hole() -> None:
    def torus(points: Tensor) -> Tensor:
        ring = points[:, [0, 2]].norm(dim=-1) - 0.55
        return 50.0 * ((ring.square() + points[:, 1].square()).sqrt() < 0.2)

    body = solid(extract(scene_of(torus), resolution=64))
    assert body.is_watertight
    assert body.euler_number == 0
    assert body.volume == pytest.approx(2 * math.pi**2 * 0.55 * 0.2**2, rel=0.02)


def test_matter_everywhere_is_cut_off_at_the_bounding_ball() -> None:
    body = solid(extract(scene_of(lambda points: torch.full_like(points[:, 0], 20.0)), resolution=64))
    assert body.is_watertight
    assert body.euler_number == 2
    assert body.volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.01)


def test_the_chosen_level_has_the_silhouette_of_the_rendering() -> None:
    """Density A exp(-r^2 / 2 s^2): a ray at distance b has optical depth A s sqrt(2 pi) exp(-b^2 / 2 s^2), which is
    ln 2 (opacity 1/2) just where the density at b is ln 2 / (s sqrt(2 pi)), whatever A is."""
    spread = 0.2
    for peak in (20.0, 400.0):
        scene = scene_of(lambda points, peak=peak: peak * torch.exp(-points.square().sum(-1) / (2 * spread**2)))
        silhouette = spread * math.sqrt(2 * math.log(peak * spread * math.sqrt(2 * math.pi) / math.log(2)))
        assert np.linalg.norm(extract(scene, 64).vertices, axis=1).mean() == pytest.approx(silhouette, rel=0.015)


def test_the_mesh_covers_the_pixels_that_the_renderer_makes_opaque() -> None:
    offset = torch.tensor([0.25, -0.1, 0.3])
    scene = scene_of(
        lambda points: 30.0 * torch.exp(-8 * ((points - offset) / torch.tensor([1.5, 1.0, 0.6])).square().sum(-1))
    )
    mesh = extract(scene, 64)
    cameras = turntable(3, 0.3, 3.0, 0.7, 64)
    opacity = render_views(scene, cameras, albedo_only(3), RenderOptions(samples=128)).opacity
    for view in range(3):
        camera_from_world = torch.linalg.inv(cameras.pose[view]).numpy()
        x, y, z = (mesh.vertices @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]).T
        scale = 32 / math.tan(0.35)
        columns, rows = 32 + scale * x / -z, 32 - scale * y / -z
        seen_rows, seen_columns = (opacity[view] > 0.5).nonzero().numpy().T
        outline = (seen_columns.min(), seen_columns.max() + 1, seen_rows.min(), seen_rows.max() + 1)
        assert (columns.min(), columns.max(), rows.min(), rows.max()) == pytest.approx(outline, abs=1.5)


def test_the_level_grows_with_the_density() -> None:
    """In a scene r times as dense and r times as small everything looks the same, and the level is r times as high."""
    grid = density_grid(scene_of(lambda points: 40.0 * torch.exp(-6 * points.square().sum(-1))), 32)
    assert choose_level(7 * grid, 0.05 / 7) == pytest.approx(7 * choose_level(grid, 0.05), rel=1e-3)


def test_floaters_and_cavities_go_and_large_parts_stay() -> None:
    shell = ball(0.5, (-0.3, 0.0, 0.0))
    hollow = ball(0.3, (-0.3, 0.0, 0.0), 1.0)
    second, floater = ball(0.25, (0.6, 0.0, 0.0)), ball(0.08, (0.0, 0.8, 0.0))
    scene = scene_of(lambda points: union(shell, second, floater)(points) * (1 - hollow(points)))
    parts = solid(extract(scene, 64, level=10.0)).split()
    expected = [4 / 3 * math.pi * radius**3 for radius in (0.25, 0.5)]
    assert sorted(part.volume for part in parts) == pytest.approx(expected, rel=0.02)
    assert len(solid(extract(scene, 64, 10.0, Cleaning(smallest_part=0.001))).split()) == 3


def test_smoothing_evens_out_ripples_and_keeps_the_volume() -> None:
    def rippled(points: Tensor) -> Tensor:
        return 50.0 * (points.norm(dim=-1) < 0.6 + 0.01 * torch.sin(60 * points).prod(-1))

    rough, smooth = (solid(extract(scene_of(rippled), 64, cleaning=Cleaning(smoothing=steps))) for steps in (0, 10))
    spread = [np.linalg.norm(body.vertices, axis=1).std() for body in (rough, smooth)]
    assert spread[1] < 0.5 * spread[0]
    assert smooth.volume == pytest.approx(rough.volume, rel=0.01)


@pytest.mark.parametrize("density", [0.0, 0.2])
def test_an_empty_scene_and_a_thin_fog_have_no_surface(density: float) -> None:
    scene = scene_of(lambda points: torch.full_like(points[:, 0], density))
    with pytest.raises(UserError, match="empty scene"):
        extract(scene, 32)


def test_a_level_above_everything_and_a_grid_of_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="no density above 60"):
        extract(scene_of(ball(0.6)), 32, level=60.0)
    with pytest.raises(UserError, match="resolution"):
        extract(scene_of(ball(0.6)), 2)


def test_vertices_take_the_albedo_of_the_field() -> None:
    mesh = paint(extract(scene_of(ball(0.6)), 48), scene_of(ball(0.6)))
    assert mesh.colours is not None
    # the visible layer of density 50 is some 1/50 thick, and by_place changes by 1/2 per unit
    assert np.abs(mesh.colours - (0.5 + 0.5 * mesh.vertices)).max() < 0.5 * 2 / 50


def test_what_lies_outside_and_deep_inside_does_not_colour_the_surface() -> None:
    def red_skin(points: Tensor) -> Tensor:
        radius = points.norm(dim=-1, keepdim=True)
        red, green, blue = torch.eye(3, dtype=points.dtype)
        return torch.where(radius > 0.6, green, torch.where(radius > 0.5, red, blue))

    scene = scene_of(ball(0.6, (0.0, 0.0, 0.0), 300.0), red_skin)
    mesh = paint(extract(scene, 48), scene)
    assert mesh.colours is not None
    assert np.abs(mesh.colours - np.array([1, 0, 0])).max() < 0.01


@given(st.floats(0, 1))
def test_colour_encodings_invert_each_other(value: float) -> None:
    display = np.array([value])
    assert srgb_from_linear(linear_from_srgb(display)) == pytest.approx(display, abs=1e-6)


def test_middle_grey_has_a_fifth_of_the_light() -> None:
    assert linear_from_srgb(np.array([0.0, 0.04, 0.5, 1.0])) == pytest.approx([0, 0.04 / 12.92, 0.21404, 1], abs=1e-5)


@pytest.fixture(scope="module")
def painted() -> Mesh:
    scene = scene_of(union(ball(0.3, (0.0, 0.4, 0.0)), ball(0.4, (0.0, -0.2, 0.1))))
    return paint(extract(scene, 40), scene)


def chunks_of(content: bytes) -> tuple[dict, bytes]:
    """JSON and binary chunk of a GLB, by the format's definition."""
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size = struct.unpack_from("<I", content, 12)[0]
    return json.loads(content[20 : 20 + size]), content[28 + size :]


def attribute(tree: dict, binary: bytes, name: str) -> np.ndarray:
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"][name]]
    view = tree["bufferViews"][accessor["bufferView"]]
    assert accessor["componentType"] == 5126
    assert accessor["type"] == "VEC3"
    return np.frombuffer(binary, "<f4", accessor["count"] * 3, view.get("byteOffset", 0)).reshape(-1, 3)


def test_glb_comes_back_equal_with_linear_colours(painted: Mesh, tmp_path: Path) -> None:
    assert painted.colours is not None
    export(painted, tmp_path / "mesh.glb", {"prompt": "two balls", "seed": 4})
    (body,) = trimesh.load_scene(tmp_path / "mesh.glb", process=False).geometry.values()
    assert np.array_equal(body.faces, painted.faces)
    assert body.is_watertight
    assert body.volume > 0
    tree, binary = chunks_of((tmp_path / "mesh.glb").read_bytes())
    assert np.abs(srgb_from_linear(attribute(tree, binary, "COLOR_0")) - painted.colours).max() < 1e-5
    read = body.visual.vertex_attributes["color"]
    assert np.abs(read - linear_from_srgb(painted.colours)).max() < 1e-6
    assert tree["asset"]["extras"] == {"prompt": "two balls", "seed": 4}


def test_glb_stands_upright_on_the_ground_one_metre_long_and_matte(painted: Mesh) -> None:
    tree, binary = chunks_of(glb_bytes(painted, {}))
    place = attribute(tree, binary, "POSITION")
    low, high = place.min(0), place.max(0)
    assert (high - low).max() == pytest.approx(1, abs=1e-5)
    assert (low[1], low[0] + high[0], low[2] + high[2]) == pytest.approx((0, 0, 0), abs=1e-5)
    size = painted.vertices.max(0) - painted.vertices.min(0)
    assert (high - low) / size == pytest.approx(np.full(3, 1 / size.max()), rel=1e-4)  # turned nowhere, one scale
    assert all("matrix" not in node or node["matrix"] == list(np.eye(4).ravel()) for node in tree["nodes"])
    material = tree["materials"][tree["meshes"][0]["primitives"][0]["material"]]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert not material["doubleSided"]
    assert material["pbrMetallicRoughness"]["roughnessFactor"] >= 0.9


def test_glb_normals_are_smooth_and_point_outward() -> None:
    tree, binary = chunks_of(glb_bytes(extract(scene_of(ball(0.6)), 48), {}))
    normal, place = attribute(tree, binary, "NORMAL"), attribute(tree, binary, "POSITION")
    outward = (place - [0, 0.5, 0]) / np.linalg.norm(place - [0, 0.5, 0], axis=1, keepdims=True)
    assert (normal * outward).sum(1).min() > 0.98
    assert "COLOR_0" not in tree["meshes"][0]["primitives"][0]["attributes"]


def test_equal_meshes_give_equal_bytes(painted: Mesh) -> None:
    extras = {"prompt": "two balls"}
    assert glb_bytes(painted, extras) == glb_bytes(painted, extras)


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_other_formats_keep_shape_and_display_colours(painted: Mesh, tmp_path: Path, suffix: str) -> None:
    assert painted.colours is not None
    export(painted, tmp_path / f"mesh{suffix}", {})
    body = trimesh.load_mesh(tmp_path / f"mesh{suffix}", process=False)
    assert body.is_watertight
    assert body.volume > 0
    assert len(body.faces) == len(painted.faces)
    assert np.abs(body.visual.vertex_colors[:, :3] / 255 - painted.colours).max() < 2 / 255


def test_an_unknown_format_is_refused_before_anything_is_written(painted: Mesh, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.glb, \.obj, \.ply"):
        export(painted, tmp_path / "mesh.docx", {})
    assert not list(tmp_path.iterdir())
