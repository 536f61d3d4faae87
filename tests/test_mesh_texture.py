"""Colours of surfaces and textures of known fields; tangent frames in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamfusion.mesh import (
    Mesh,
    TextureOptions,
    bake,
    linear_from_srgb,
    paint,
    simplified,
    srgb_from_linear,
    surface,
)
from dreamfusion.mesh.texture import to_tangent_space
from dreamfusion.mesh.triangles import split, tangents, vertex_normals
from dreamfusion.nerf.scene import Scene
from dreamfusion.surface import cover
from mesh_scenes import ball, bell, by_place, density_grid, scene_of, soft_ball

pytestmark = pytest.mark.processor

SIZE = 128


def of(scene: Scene, level: float = 25.0, faces: int = 1200) -> Mesh:
    return simplified(surface(density_grid(scene, 40), level), faces)


@pytest.fixture(scope="module")
def baked() -> Mesh:
    scene = scene_of(ball(0.6))
    return bake(of(scene), scene, TextureOptions(SIZE))


def looked_up(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Between four texels each; v = 0 is the lower border of the picture."""
    size = len(texture)
    x, y = np.clip(uv[:, 0] * size - 0.5, 0, size - 1.001), np.clip((1 - uv[:, 1]) * size - 0.5, 0, size - 1.001)
    column, row = x.astype(int), y.astype(int)
    right, down = (x - column)[:, None], (y - row)[:, None]
    upper = texture[row, column] * (1 - right) + texture[row, column + 1] * right
    lower = texture[row + 1, column] * (1 - right) + texture[row + 1, column + 1] * right
    return (upper * (1 - down) + lower * down) / 255


def test_vertices_take_the_albedo_of_the_field() -> None:
    scene = scene_of(ball(0.6))
    mesh = paint(of(scene), scene)
    assert mesh.colours is not None
    # the visible layer of density 50 is some 1/50 thick, and by_place changes by 1/2 per unit
    assert np.abs(mesh.colours - (0.5 + 0.5 * mesh.vertices)).max() < 0.5 * 2 / 50


def test_what_lies_outside_and_deep_inside_does_not_colour_the_surface() -> None:
    def red_skin(points: Tensor) -> Tensor:
        radius = points.norm(dim=-1, keepdim=True)
        red, green, blue = torch.eye(3, dtype=points.dtype)
        return torch.where(radius > 0.62, green, torch.where(radius > 0.5, red, blue))

    scene = scene_of(ball(0.6, (0.0, 0.0, 0.0), 300.0), red_skin)
    mesh = paint(surface(density_grid(scene, 40), 150.0), scene)
    assert mesh.colours is not None
    assert np.abs(mesh.colours - np.array([1, 0, 0])).max() < 0.01


def test_what_no_rendering_shows_does_not_colour_the_surface() -> None:
    """Green matter outside the scene's ball, and in cells that the scene knows as empty."""
    red, green = torch.eye(3)[:2]

    def hidden(points: Tensor) -> Tensor:
        return torch.where((points.norm(dim=-1) > 1)[:, None] | (points[:, :1] > 0.5), green, red)

    scene = scene_of(lambda points: torch.full_like(points[:, 0], 300.0), hidden)
    scene.occupancy.occupied.view(8, 8, 8)[..., 6:] = False  # x above 0.5
    mesh = paint(surface(density_grid(scene, 40), 150.0), scene)
    assert mesh.colours is not None
    assert np.abs(mesh.colours - red.numpy()).max() < 0.01


def test_every_point_of_the_surface_finds_its_own_colour_in_the_texture(baked: Mesh) -> None:
    assert baked.texture is not None
    assert baked.uv is not None
    weights = np.random.default_rng(0).dirichlet([1, 1, 1], len(baked.faces))
    place = np.einsum("fc,fcd->fd", weights, baked.vertices[baked.faces])
    shown = looked_up(baked.texture, np.einsum("fc,fcd->fd", weights, baked.uv))
    assert np.abs(shown - (0.5 + 0.5 * place)).max() < 0.04
    assert np.abs(shown - (0.5 + 0.5 * place)).mean() < 0.01


def test_no_seam_shows_not_even_in_a_smaller_copy_of_the_texture(baked: Mesh) -> None:
    """The corners of faces, on the borders of the charts, looked up where texels of the gap count too."""
    assert baked.texture is not None
    assert baked.uv is not None
    half = baked.texture.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))
    shown = looked_up(half, baked.uv.reshape(-1, 2))
    assert np.abs(shown - (0.5 + 0.5 * baked.vertices[baked.faces.ravel()])).max() < 0.08


def test_charts_do_not_overlap(baked: Mesh) -> None:
    assert baked.uv is not None
    assert 0 <= baked.uv.min() <= baked.uv.max() <= 1
    a, b, c = baked.uv.astype(np.float64).transpose(1, 0, 2)
    area = np.abs(np.cross(np.c_[b - a, 0 * a[:, :1]], np.c_[c - a, 0 * a[:, :1]])[:, 2]).sum() / 2
    covered = cover(torch.from_numpy(baked.uv * 512), 512, 512).pixel.unique()
    assert len(covered) / 512**2 == pytest.approx(area, rel=0.01)


def test_a_texture_is_the_same_every_time(baked: Mesh) -> None:
    again = bake(replace(baked, uv=None, texture=None), scene_of(ball(0.6)), TextureOptions(SIZE))
    assert again.texture is not None
    assert np.array_equal(again.texture, baked.texture)
    assert np.array_equal(again.uv, baked.uv)


def test_cutting_at_seams_keeps_every_corner(baked: Mesh) -> None:
    cut = split(baked)
    assert np.array_equal(cut.vertex[cut.faces], baked.faces)
    assert np.array_equal(cut.uv[cut.faces], baked.uv)
    assert len(baked.vertices) < len(cut.vertex) < 2 * len(baked.vertices)


@pytest.mark.parametrize("mirrored", [False, True])
def test_tangents_follow_u_and_their_sign_gives_v(mirrored: bool) -> None:
    """A square in the plane z = 0 whose texture is turned by 30 degrees, and maybe mirrored."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    turn = np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
    uv = 0.5 * vertices[:, :2] @ turn.T * (np.array([1, -1]) if mirrored else 1)
    mesh = Mesh(vertices, faces, uv=uv.astype(np.float32)[faces])
    cut = split(mesh)
    frame = tangents(mesh, cut)
    along_v = frame[:, 3:] * np.cross(vertex_normals(mesh)[cut.vertex], frame[:, :3])
    assert frame[:, :3] == pytest.approx(np.tile([*turn[0], 0], (4, 1)), abs=1e-6)
    assert along_v == pytest.approx(np.tile([*turn[1], 0], (4, 1)) * (-1 if mirrored else 1), abs=1e-6)


def test_a_normal_map_holds_the_field_s_normals_not_the_mesh_s() -> None:
    """Density that grows along one direction has one normal everywhere, whatever the shape of the mesh."""
    way = torch.tensor([0.3, -0.8, 0.52]) / torch.tensor([0.3, -0.8, 0.52]).norm()
    slope = scene_of(lambda points: 30 * torch.exp(2 * points @ way))
    mesh = bake(of(scene_of(ball(0.6)), faces=400), slope, TextureOptions(SIZE, normal_map=True))
    assert mesh.normal_map is not None
    cut = split(mesh)
    frame, normal = tangents(mesh, cut), vertex_normals(mesh)[cut.vertex]
    x, y, z = (2 * looked_up(mesh.normal_map, cut.uv) - 1).T[..., None]
    found = x * frame[:, :3] + y * frame[:, 3:] * np.cross(normal, frame[:, :3]) + z * normal
    cosine = found @ -way.numpy() / np.linalg.norm(found, axis=1)
    assert np.quantile(cosine, 0.05) > 0.97
    assert np.median(cosine) > 0.995


def test_faces_that_cancel_leave_whole_frames() -> None:
    """A triangle and its back, with vertices in common, and a vertex without a face."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1], [5, 5, 5]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 1]])
    mesh = Mesh(vertices, faces, uv=vertices[faces][..., [0, 2]])
    assert np.array_equal(vertex_normals(mesh), np.tile([0, 1, 0], (4, 1)))
    frame = tangents(mesh, split(mesh))
    assert np.linalg.norm(frame[:, :3], axis=1) == pytest.approx(1)
    assert np.abs(frame[:, 1]).max() < 1e-6


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("turn", [0.1, 1.0, 2.5])
def test_faces_that_cancel_but_for_rounding_leave_whole_frames(turn: float, size: float) -> None:
    """Fans of triangles and their backs, whose sums round, in every size."""
    angle = turn + np.arange(7) * 0.9
    rim = np.stack([np.cos(angle), np.sin(angle), 0.3 * angle], 1)
    vertices = (size * np.r_[[[0.1, 0.2, 0.3]], rim]).astype(np.float32)
    fan = np.array([[0, i, i + 1] for i in range(1, 7)])
    faces = np.r_[fan, fan[::-1, ::-1]]
    mesh = Mesh(vertices, faces, uv=np.random.default_rng(0).random((len(faces), 3, 2)).astype(np.float32))
    assert np.array_equal(vertex_normals(mesh), np.tile([0, 1, 0], (8, 1)))
    frame = tangents(mesh, split(mesh))
    assert np.linalg.norm(frame[:, :3], axis=1) == pytest.approx(1)
    assert np.abs(frame[:, 1]).max() < 1e-6
    one_sided = vertex_normals(Mesh(vertices, fan))
    assert np.linalg.norm(one_sided, axis=1) == pytest.approx(1)
    assert one_sided[0] == pytest.approx(vertex_normals(Mesh(vertices / size, fan))[0], abs=1e-4)


def test_normals_in_axes_invert_their_sum_and_flat_is_what_has_none() -> None:
    axes = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0))
    normal = torch.nn.functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    axes[1, :, 2] = axes[1, :, 1]
    axes[2] = 0
    normal[3] = 0
    found = to_tangent_space(axes, normal)
    assert torch.equal(found[1:4], torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3))
    for number in (0, 4):
        assert torch.allclose(
            torch.nn.functional.normalize(axes[number] @ found[number], dim=0), normal[number], atol=1e-4
        )
    assert torch.allclose(found.norm(dim=-1), torch.ones(5))


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("lean", [0.0, 1e-7, 1e-5, 1e-3, 0.1])
def test_axes_that_nearly_lie_in_a_plane_give_their_own_normal_or_the_flat_one(lean: float, scale: float) -> None:
    """Whether axes span space depends on their directions alone; turned by rotations, all rounding differs."""
    turns = torch.linalg.qr(torch.randn(200, 3, 3, generator=torch.Generator().manual_seed(0))).Q
    frame = torch.tensor([[1.0, 0, 1], [0, 1, 0], [lean, 0, 0]]).expand(200, 3, 3)
    normal = torch.tensor([0.6, 0.8, 0]) + 0.3 * torch.tensor([lean, 0, 0])
    lengths = scale * torch.tensor([1.0, 0.01, 3.0])
    found = to_tangent_space(turns @ frame * lengths, (turns @ normal[:, None])[..., 0])
    expected = torch.tensor([0.0, 80.0, 0.2]) if lean > 1e-4 else torch.tensor([0.0, 0.0, 1.0])
    expected = torch.nn.functional.normalize(expected, dim=0)
    assert (found - expected).norm(dim=-1).max() < 0.01


def test_baked_light_comes_from_above_and_is_said_to_be_there() -> None:
    scene = scene_of(soft_ball(0.6), lambda points: torch.full_like(points, 0.8))
    plain, lit = (bake(of(scene, 100.0), scene, TextureOptions(SIZE, bake_light=light)) for light in (False, True))
    assert (plain.lit, lit.lit) == (False, True)
    assert plain.texture is not None
    assert lit.texture is not None
    assert lit.uv is not None
    assert np.abs(plain.texture / 255 - 0.8).max() < 0.01
    place = lit.vertices[lit.faces].mean(1)
    shown = looked_up(lit.texture, lit.uv.mean(1))[:, 0]
    to_lamp = place @ [np.cos(0.96) * 0.5, np.sin(0.96), np.cos(0.96) * 0.866] / 0.6
    assert shown == pytest.approx(0.8 * (0.6 + 0.45 * np.maximum(to_lamp, 0)), abs=0.06)
    assert np.ptp(shown) > 0.3


def test_a_soft_body_is_painted_with_what_rays_see_in_it() -> None:
    scene = scene_of(bell(30.0, 0.3))
    mesh = paint(surface(density_grid(scene, 32), 3.0), scene)
    assert mesh.colours is not None
    inner = by_place(torch.from_numpy(mesh.vertices * 0.96)).numpy()  # some 0.025 below the surface
    assert np.abs(mesh.colours - inner).max() < 0.01


@given(st.floats(0, 1))
def test_colour_encodings_invert_each_other(value: float) -> None:
    display = np.array([value])
    assert srgb_from_linear(linear_from_srgb(display)) == pytest.approx(display, abs=1e-6)


def test_middle_grey_has_a_fifth_of_the_light() -> None:
    assert linear_from_srgb(np.array([0.0, 0.04, 0.5, 1.0])) == pytest.approx([0, 0.04 / 12.92, 0.21404, 1], abs=1e-5)
