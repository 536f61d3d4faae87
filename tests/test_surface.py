"""The differentiable rasteriser: against finite differences, areas in closed form, and the plain rasteriser."""

import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras, orbit, turntable
from dreamfusion.config import MeshConfig, RefineConfig, SolidBackground
from dreamfusion.lights import Light, albedo_only, key_light
from dreamfusion.nerf.background import Solid
from dreamfusion.nerf.render import RenderOptions, render, render_views
from dreamfusion.surface import MeshScene, Shape, first_hits
from dreamfusion.surface.edges import edges_of
from dreamfusion.surface.regularise import bending, laplacian

pytestmark = pytest.mark.processor
BLACK = SolidBackground((0.0, 0.0, 0.0))


def scene_of(body: trimesh.Trimesh, texture_size: int = 16, dtype: torch.dtype = torch.float64) -> MeshScene:
    """A body in random colours before black; the texture is laid on along the z axis."""
    vertices, faces = torch.tensor(body.vertices, dtype=dtype), torch.tensor(np.asarray(body.faces), dtype=torch.long)
    config = MeshConfig(len(vertices), len(faces), told=RefineConfig(texture_size=texture_size))
    scene = MeshScene(config, Solid(BLACK), 1.0).to(dtype)
    uv = 0.5 + 0.4 * vertices[faces][..., :2] / vertices.abs().max()
    colours = torch.rand(texture_size, texture_size, 3, generator=Generator().manual_seed(3), dtype=dtype)
    scene.take(Shape(vertices, faces, uv), colours)
    return scene


def far_away(size: int, turn: float = 0.0, roll: float = 0.0) -> tuple[Cameras, float]:
    """A camera in front, so far away that sizes are the same at all depths, and pixels per unit of length."""
    angle, fov, distance = torch.tensor([turn], dtype=torch.float64), 2e-4, 1e4
    cameras = orbit(angle, torch.zeros_like(angle), torch.full_like(angle, distance), torch.full_like(angle, fov), size)
    c, s = math.cos(roll), math.sin(roll)
    about_view = torch.tensor([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    return Cameras(cameras.pose @ about_view, fov * torch.ones(1).double(), size, size), size / (distance * fov)


def unlit(cameras: Cameras) -> Light:
    light = albedo_only(len(cameras))
    return Light(light.position.double(), light.ambient.double(), light.diffuse.double(), light.textureless, lit=False)


def together(*bodies: trimesh.Trimesh) -> trimesh.Trimesh:
    joined = trimesh.util.concatenate(bodies)
    assert isinstance(joined, trimesh.Trimesh)
    return joined


def icosphere(radius: float = 0.7, level: int = 2) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(level, radius)


def lamps(cameras: Cameras) -> Light:
    return key_light(cameras, textureless=False)


def double(cameras: Cameras) -> Cameras:
    return Cameras(cameras.pose.double(), cameras.fov_y.double(), cameras.height, cameras.width)


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_that_of_finite_differences(seed: int) -> None:
    """In colours, opacity and normals, lit, with outlines that move; two bodies, of which one hides the other."""
    other = icosphere(0.4, 1)
    other.apply_translation([0.3, 0.1, 0.9])
    scene = scene_of(together(icosphere(), other))
    cameras, generator = double(turntable(2, 0.3, 3.0, 0.7, 20)), Generator().manual_seed(seed)
    want = torch.randn(2, 20, 20, 7, generator=generator, dtype=torch.float64)
    way = torch.randn(scene.offset.shape, generator=generator, dtype=torch.float64)
    along_texels = torch.randn(scene.texels.shape, generator=generator, dtype=torch.float64)

    def loss(step: float) -> Tensor:
        with torch.no_grad():
            scene.offset.copy_(step * way)
            scene.texels.add_(step * along_texels)
        picture = scene.draw(cameras, lamps(cameras), None, normals=True)
        assert picture.normal is not None
        with torch.no_grad():
            scene.texels.sub_(step * along_texels)
        return (want * torch.cat([picture.rgb, picture.opacity[..., None], picture.normal], -1)).sum()

    loss(0.0).backward()
    assert scene.offset.grad is not None
    assert scene.texels.grad is not None
    analytic = float((scene.offset.grad * way).sum() + (scene.texels.grad * along_texels).sum())
    step = 1e-7
    numeric = float((loss(step) - loss(-step)).detach()) / (2 * step)
    assert abs(analytic) > 1
    assert math.isclose(analytic, numeric, rel_tol=1e-4)


def test_colours_are_differentiable_in_where_the_texture_is_looked_up() -> None:
    scene, cameras = scene_of(icosphere()), double(turntable(1, 0.0, 3.0, 0.7, 16))
    scene.uv.requires_grad_()
    way = torch.randn(scene.uv.shape, generator=Generator().manual_seed(0), dtype=torch.float64)

    def loss(step: float) -> Tensor:
        moved = Shape(scene.start, scene.faces, scene.uv + step * way)
        return (drawn(scene, moved, cameras) * torch.linspace(-1, 1, 16)[:, None]).sum()

    (gradient,) = torch.autograd.grad(loss(0.0), scene.uv)
    numeric = float((loss(1e-7) - loss(-1e-7)).detach()) / 2e-7
    assert math.isclose(float((gradient * way).sum()), numeric, rel_tol=1e-4)
    assert abs(numeric) > 1e-2


def drawn(scene: MeshScene, shape: Shape, cameras: Cameras) -> Tensor:
    return scene.draw_shape(shape, cameras, unlit(cameras), None, normals=False).rgb[..., 0]


@pytest.mark.parametrize("level", [2, 4])  # triangles of three pixels, and of less than one
def test_a_disc_has_its_area_and_grows_by_its_boundary(level: int) -> None:
    scene = scene_of(icosphere(1.0, level))
    cameras, scale = far_away(40)
    radius = torch.tensor(0.72, dtype=torch.float64, requires_grad=True)
    shape = Shape(radius * scene.start, scene.faces, scene.uv)
    area = scene.draw_shape(shape, cameras, unlit(cameras), None, normals=False).opacity.sum() / scale**2
    (growth,) = torch.autograd.grad(area, radius)
    outline = {2: 0.985, 4: 0.999}[level]  # of the polygon that the outline is
    assert math.isclose(float(area.detach()), math.pi * 0.72**2, rel_tol=1.02 - outline)
    assert math.isclose(float(growth), 2 * math.pi * 0.72, rel_tol=1.03 - outline)


@pytest.mark.parametrize("roll", [0.0, 0.2, 0.7, math.pi / 4, 1.2])
def test_a_square_has_its_area_at_any_angle_and_moves_as_a_whole(roll: float) -> None:
    """The first moment of what is covered grows by the area for each unit of the way."""
    scene = scene_of(trimesh.creation.box((0.9, 0.7, 0.6)))
    cameras, scale = far_away(200, roll=roll)
    way = torch.tensor([0.013, 0.021, 0.0], dtype=torch.float64, requires_grad=True)
    shape = Shape(scene.start + way, scene.faces, scene.uv)
    covered = scene.draw_shape(shape, cameras, unlit(cameras), None, normals=False).opacity[0] / scale**2
    assert math.isclose(float(covered.sum().detach()), 0.63, rel_tol=1e-3)
    right = (torch.arange(200, dtype=torch.float64) + 0.5) / scale
    (moved,) = torch.autograd.grad((right * covered).sum(), way)
    expected = 0.63 * cameras.pose[0, :3, 0]
    assert torch.allclose(moved, expected, atol=0.02)  # at corners pixels have three sides


def test_pixels_away_from_outlines_are_those_of_the_plain_rasteriser() -> None:
    scene, cameras = scene_of(icosphere(0.8, 3), dtype=torch.float32), turntable(2, 0.3, 3.0, 0.7, 48)
    seen, distance = first_hits(scene.start, scene.faces, cameras)
    with torch.no_grad():
        picture = scene.draw(cameras, albedo_only(2), None, normals=False)
    hit = torch.zeros(2 * 48 * 48).index_put((seen.pixel,), torch.ones(len(seen.pixel)))
    assert torch.equal(picture.depth.flatten()[seen.pixel], distance)
    same = picture.opacity.flatten() == hit
    assert 0.03 < 1 - float(same.float().mean()) < 0.12  # the outline, a pixel wide
    assert float((picture.opacity.flatten() - hit).abs().max()) <= 0.5 + 1e-6


def test_a_ball_grows_until_it_fills_the_picture_that_is_wanted() -> None:
    scene, cameras = scene_of(icosphere(0.6), dtype=torch.float32), turntable(4, 0.3, 3.0, 0.8, 24)
    with torch.no_grad():
        wanted = (
            scene_of(icosphere(0.8), dtype=torch.float32).draw(cameras, albedo_only(4), None, normals=False).opacity
        )
    optimiser = torch.optim.Adam([scene.offset], 0.02)

    def missed() -> Tensor:
        return scene.draw(cameras, albedo_only(4), None, normals=False).opacity - wanted

    for _ in range(40):
        optimiser.zero_grad()
        missed().square().sum().backward()
        optimiser.step()
    assert float(missed().detach().abs().sum() / wanted.sum()) < 0.05  # 0.45 at first


def test_hidden_outlines_leave_no_trace() -> None:
    inside = together(icosphere(0.8, 3), trimesh.creation.box((0.5, 0.4, 0.3)))
    cameras = double(turntable(2, 0.3, 3.0, 0.7, 32))
    both, alone = scene_of(inside), scene_of(icosphere(0.8, 3))
    with torch.no_grad():
        first, second = (each.draw(cameras, lamps(cameras), None, normals=False) for each in (both, alone))
    assert torch.equal(first.opacity, second.opacity)


def test_an_outline_that_passes_a_centre_changes_nothing_at_once() -> None:
    """The pixel that gives and the one that takes change places without a jump."""
    scene, (cameras, scale) = scene_of(trimesh.creation.box((0.8, 0.8, 0.8))), far_away(32)
    shifts = torch.linspace(0, 2 / scale, 81, dtype=torch.float64)[:, None] * cameras.pose[0, :3, 0]
    shapes = (Shape(scene.start + shift, scene.faces, scene.uv) for shift in shifts)
    lamp = unlit(cameras)
    with torch.no_grad():
        seen = [scene.draw_shape(shape, cameras, lamp, None, normals=False).opacity[0, 12:20] for shape in shapes]
    pictures = torch.stack(seen)
    assert float(pictures.diff(dim=0).abs().max()) < 0.03  # a fortieth of a pixel each
    assert float(pictures.max(0).values.sub(pictures.min(0).values).max()) == 1


def test_an_open_mesh_is_refused() -> None:
    with pytest.raises(ValueError, match="not closed"):
        edges_of(torch.tensor([[0, 1, 2], [0, 2, 3]]))


def test_every_edge_is_found_once_with_its_two_faces() -> None:
    body = icosphere(1.0, 1)
    edges = edges_of(torch.tensor(np.asarray(body.faces), dtype=torch.long))
    ours = {tuple(sorted(edge)) for edge in edges.vertices.tolist()}
    assert ours == {tuple(sorted(edge)) for edge in body.edges_unique.tolist()}
    assert len(ours) == len(edges.vertices)
    for (a, b), (left, right) in zip(edges.vertices.tolist(), edges.faces.tolist(), strict=True):
        assert {a, b} <= set(body.faces[left]) & set(body.faces[right])
        assert list(body.faces[left]).index(b) == (list(body.faces[left]).index(a) + 1) % 3


def test_the_renderer_draws_a_mesh_as_it_does_a_volume() -> None:
    scene, cameras = scene_of(icosphere(), dtype=torch.float32), turntable(3, 0.2, 3.0, 0.7, 16)
    white = torch.ones(3, 3)
    whole = render(scene, cameras, lamps(cameras), RenderOptions(), None, white)
    part = render(scene, cameras, lamps(cameras), RenderOptions(views=slice(1, 3)), None, white)
    plain = render_views(scene, cameras, lamps(cameras), RenderOptions(), white)
    assert torch.allclose(whole.rgb[1:], part.rgb)
    assert torch.allclose(whole.rgb, plain.rgb)
    assert whole.rgb[0, 0, 0].tolist() == [1, 1, 1]
    assert not plain.rgb.requires_grad


def test_regularisers_are_zero_for_what_they_leave_alone() -> None:
    scene = scene_of(icosphere())
    shift, bent = laplacian(scene), bending(scene)
    assert shift is not None
    assert bent is not None
    assert float(shift) == 0
    assert 0.005 < float(bent) < 0.05
    with torch.no_grad():
        scene.offset.copy_(torch.tensor([0.1, 0.0, 0.2]))
    moved = laplacian(scene)
    assert moved is not None
    assert float(moved) < 1e-20  # all of it together
    with torch.no_grad():
        scene.offset.normal_(0, 0.02, generator=Generator().manual_seed(0))
    assert float(laplacian(scene) or 0) > 0.005
    assert float(bending(scene) or 0) > 1.3 * float(bent)


def test_a_flat_mesh_does_not_bend() -> None:
    box = trimesh.creation.box((1, 1, 1))
    expected = 12 / 18  # twelve edges of 18 are right angles, six lie in the sides
    assert math.isclose(float(bending(scene_of(box)) or 0), expected, rel_tol=1e-6)
