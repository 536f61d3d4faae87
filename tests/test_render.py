import math
from dataclasses import replace

import pytest
import torch

from dreamfusion.cameras import Cameras, orbit
from dreamfusion.config import BlobConfig, GridFieldConfig, OccupancyConfig, SolidBackground
from dreamfusion.lights import Light, albedo_only, key_light
from dreamfusion.nerf.background import Solid
from dreamfusion.nerf.fields.density import DensityActivation, Exp
from dreamfusion.nerf.fields.grid import GridField
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.rays import cast
from dreamfusion.nerf.render import RenderOptions, render, render_views
from dreamfusion.nerf.scene import Scene
from reference.analytic_fields import SoftBall, ball, slab
from reference.dense_render import dense_render

pytestmark = pytest.mark.processor

WHITE = (1.0, 1.0, 1.0)
EXACT = RenderOptions(samples=32, weight_threshold=0.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scene_of(field, radius=1.0, colour=WHITE):
    return Scene(field, Solid(SolidBackground(colour)), Occupancy(OccupancyConfig(cells=32), radius), radius)


def views(count=1, size=8, fov_deg=40.0):
    azimuth = torch.arange(count) * 2.0
    one = torch.ones(count)
    return orbit(azimuth, 0.3 * one, 3.0 * one, math.radians(fov_deg) * one, size)


def front(size, fov_deg):
    one = torch.ones(1)
    return orbit(0 * one, 0 * one, 3 * one, math.radians(fov_deg) * one, size)


def blob_scene(dtype=torch.float32):
    """A ragged, coloured blob with a soft edge."""
    config = GridFieldConfig(cells=(8, 32), colour_cells=(8, 16))
    law = DensityActivation(Exp(bias=-4.0, clamp=5.0), BlobConfig(height=9.0, width=0.35))
    field = GridField(config, law, 1.0, seeded())
    with torch.no_grad():
        field.logits[0].add_(0.7 * torch.randn(field.logits[0].shape, generator=seeded(1)))
        for level in field.features:
            level.copy_(torch.randn(level.shape, generator=seeded(2)))
    return scene_of(field).to(dtype)


# render against closed forms


def test_slab_has_the_opacity_and_depth_of_the_formula():
    # Rays almost parallel to z through 0.25 < z < 0.75, whose faces fall on the bins' edges: the camera is at z = 3.
    density = 3.0
    field = slab(0.25, 0.75, density)
    picture = render(scene_of(field), front(size=3, fov_deg=0.2), albedo_only(1), replace(EXACT, samples=32))
    assert torch.allclose(picture.opacity, torch.tensor(1 - math.exp(-0.5 * density)), atol=1e-4)
    # Mean of an exponential law cut off at the length 0.5, from the near face at distance 2.25.
    mean = 2.25 + 1 / density - 0.5 * math.exp(-0.5 * density) / (1 - math.exp(-0.5 * density))
    assert torch.allclose(picture.depth, torch.tensor(mean), atol=2e-3)
    expected = picture.opacity[..., None] * field.albedo + (1 - picture.opacity[..., None])
    assert torch.allclose(picture.rgb, expected, atol=1e-5)


def test_ball_has_the_opacity_of_its_chords():
    cameras, density, radius = front(size=9, fov_deg=30), 1.7, 0.6
    options = replace(EXACT, samples=512)
    picture = render(scene_of(ball(radius, density)), cameras, albedo_only(1), options, seeded())
    rays = cast(cameras)
    closest = torch.linalg.cross(rays.origin, rays.direction).norm(dim=-1)
    chord = 2 * (radius**2 - closest**2).clamp(min=0).sqrt()
    assert torch.allclose(picture.opacity.flatten(), 1 - torch.exp(-density * chord), atol=6e-3)
    assert (chord == 0).any()
    assert (picture.rgb.view(-1, 3)[chord == 0] == 1).all()


def test_opaque_ball_is_lit_like_a_ball():
    cameras = front(size=15, fov_deg=40)
    light = Light(torch.tensor([[0.0, 0.0, 50.0]]), torch.tensor([0.1]), torch.tensor([0.9]), torch.tensor([True]))
    picture = render(scene_of(SoftBall(0.5, 60.0)), cameras, light, replace(EXACT, samples=256))
    depth, rays = picture.depth.flatten(), cast(cameras)
    hit = picture.opacity.flatten() > 0.999
    # Each pixel's point on the sphere, its normal, and Lambert's law for a light far in front.
    point = rays.origin[hit] + depth[hit, None] * rays.direction[hit]
    assert hit.sum() > 20
    assert torch.allclose(point.norm(dim=-1), torch.tensor(0.5), atol=0.05)
    expected = 0.1 + 0.9 * (point[:, 2] / point.norm(dim=-1)).clamp(min=0)
    assert torch.allclose(picture.rgb.view(-1, 3)[hit], expected[:, None].expand(-1, 3), atol=0.02)
    assert torch.allclose(picture.normal.view(-1, 3)[hit], point / point.norm(dim=-1, keepdim=True), atol=0.05)


# render against the naive renderer


@pytest.mark.parametrize("lit", [False, True])
def test_render_without_threshold_is_the_dense_render(lit):
    scene, cameras = blob_scene(torch.float64), views(2)
    cameras = Cameras(cameras.pose.double(), cameras.fov_y.double(), 8, 8)
    light = key_light(cameras, textureless=False) if lit else albedo_only(2)
    light = Light(light.position.double(), light.ambient.double(), light.diffuse.double(), light.textureless)
    behind = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.5, 0.1]], dtype=torch.float64)
    towards = torch.randn(2, 8, 8, 3, generator=seeded(4), dtype=torch.float64)
    ours = render(scene, cameras, light, EXACT, background=behind)
    theirs, opacity = dense_render(scene, cameras, light, EXACT.samples, behind)
    assert torch.allclose(ours.rgb, theirs, atol=1e-9)
    assert torch.allclose(ours.opacity, opacity, atol=1e-9)
    parameters = list(scene.parameters())
    for mine, other in zip(
        torch.autograd.grad((ours.rgb * towards).sum(), parameters),
        torch.autograd.grad((theirs * towards).sum(), parameters),
        strict=True,
    ):
        assert torch.allclose(mine, other, atol=1e-9)


def flat_gradient(scene, cameras, options, towards):
    picture = render(scene, cameras, key_light(cameras, textureless=False), options)
    gradient = torch.autograd.grad((picture.rgb * towards).sum(), list(scene.parameters()))
    return picture, torch.cat([g.flatten() for g in gradient])


@pytest.mark.parametrize(
    ("seen", "coloured", "agreement", "share"),
    [(1e-3, 1e-3, 0.999, 0.85), (1e-4, 1e-4, 0.99999, 0.99), (1e-3, 0.03, 0.98, 0.25)],
)
def test_samples_nobody_sees_can_be_left_out(seen, coloured, agreement, share):
    scene, cameras = blob_scene(), views(2, size=16, fov_deg=25)  # all rays meet the ball
    towards = torch.randn(2, 16, 16, 3, generator=seeded(4))
    full, reference = flat_gradient(scene, cameras, EXACT, towards)
    options = replace(EXACT, weight_threshold=seen, colour_threshold=coloured)
    cheap, gradient = flat_gradient(scene, cameras, options, towards)
    assert len(cheap.along.row) < share * len(full.along.row)
    assert torch.cosine_similarity(gradient, reference, dim=0) > agreement
    assert torch.allclose(cheap.opacity, full.opacity, atol=1e-6)
    assert torch.allclose(cheap.depth, full.depth, atol=1e-5)
    # Colours lie in [0, 1], so what was left out can be wrong by its own weight, and is not at its worst everywhere.
    packed = torch.zeros(2 * 16 * 16).index_add(0, cheap.along.row, cheap.along.weight)
    left_out = (cheap.opacity.flatten() - packed)[:, None] + 1e-5
    error = (cheap.rgb - full.rgb).abs().view(-1, 3)
    assert (error <= left_out).all()
    assert error.mean() < 0.25 * left_out.mean()


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
def test_every_ray_that_shows_something_has_a_colour_and_learns(density):
    """However thin the matter: thresholds that no sample reaches leave each ray its heaviest one."""
    scene, cameras = scene_of(ball(0.5, density)), views(2, size=12)
    options = RenderOptions(samples=32, weight_threshold=1e-2, colour_threshold=3e-2)
    thin, full = (render(scene, cameras, albedo_only(2), chosen) for chosen in (options, EXACT))
    assert len(thin.along.row) <= (full.opacity > 0).sum()
    assert torch.allclose(thin.opacity, full.opacity, atol=1e-6)
    assert torch.allclose(thin.rgb, full.rgb, atol=1e-5)  # the ball has one colour
    learned, whole = (torch.autograd.grad(p.opacity.sum(), scene.field.strength)[0] for p in (thin, full))
    assert learned > 0.02 * whole


def test_a_tight_mask_shows_the_same_matter_more_finely():
    scene, cameras, radius = scene_of(ball(0.5, 8.0)), views(2, size=12), 0.5
    rays = cast(cameras)
    closest = torch.linalg.cross(rays.origin, rays.direction).norm(dim=-1)
    exact = 1 - torch.exp(-8.0 * 2 * (radius**2 - closest**2).clamp(min=0).sqrt())

    def rendered():
        picture = render(scene, cameras, albedo_only(2), EXACT, seeded(3))
        return picture, (picture.opacity.flatten() - exact).abs().mean()

    loose, loose_error = rendered()
    scene.occupancy.update(scene.field, seeded())
    tight, tight_error = rendered()
    assert len(tight.along.t) < 0.6 * len(loose.along.t)
    assert tight_error < 0.7 * loose_error
    assert (tight.rgb.view(-1, 3)[exact == 0] == 1).all()


# The rest


def test_pieces_without_gradients_make_the_same_picture():
    scene, cameras = blob_scene(), views(3, size=10)
    light, options = key_light(cameras, textureless=False), replace(EXACT, weight_threshold=1e-3, chunk=70)
    whole, pieces = render(scene, cameras, light, options), render_views(scene, cameras, light, options)
    for name in ("rgb", "opacity", "depth", "normal"):
        assert torch.allclose(getattr(whole, name), getattr(pieces, name), atol=1e-5)
    assert not pieces.rgb.requires_grad


def test_an_empty_scene_shows_the_background_with_finite_gradients():
    scene, cameras = scene_of(ball(0.0, 1.0), colour=(0.2, 0.4, 0.6)), views(1)
    for options in (EXACT, replace(EXACT, weight_threshold=1e-3)):
        picture = render(scene, cameras, key_light(cameras, textureless=False), options)
        assert torch.allclose(picture.rgb, torch.tensor([0.2, 0.4, 0.6]))
        assert torch.equal(picture.depth, torch.zeros_like(picture.depth))
        picture.rgb.sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in scene.parameters())


def test_huge_density_has_finite_gradients():
    law = DensityActivation(Exp(bias=-5.0, clamp=5.0), BlobConfig(height=8.0, width=0.35))
    scene = scene_of(GridField(GridFieldConfig(cells=(8,), colour_cells=(8,)), law, 1.0, seeded()))
    with torch.no_grad():
        scene.field.logits[0].fill_(1e6)
    cameras = views(1)
    picture = render(scene, cameras, key_light(cameras, textureless=False), RenderOptions(samples=16))
    (picture.rgb.sum() + picture.depth.sum()).backward()
    assert picture.rgb.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in scene.parameters())


def test_normals_are_composed_only_if_asked_or_lit():
    scene, cameras = blob_scene(), views(1)
    assert render(scene, cameras, albedo_only(1), EXACT).normal is None
    assert render(scene, cameras, albedo_only(1), replace(EXACT, normals=True)).normal is not None
    lit = render(scene, cameras, key_light(cameras, textureless=False), EXACT)
    assert (lit.normal.norm(dim=-1) <= lit.opacity + 1e-5).all()


def test_only_the_generator_moves_the_samples():
    scene, cameras = blob_scene(), views(1)
    first, again, other, even = (
        render(scene, cameras, albedo_only(1), EXACT, g).rgb for g in (seeded(1), seeded(1), seeded(2), None)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first - even).abs().max() < 0.2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("lit", [False, True])
def test_cuda_makes_the_same_picture_and_gradients(lit):
    results = []
    for device in ("cpu", "cuda"):
        scene, cameras = blob_scene().to(device), views(2).to(device)
        light = (key_light(cameras, textureless=False) if lit else albedo_only(2)).to(device)
        generator = seeded()
        scene.occupancy.update(scene.field, generator)
        picture = render(scene, cameras, light, EXACT, generator)
        picture.rgb.square().sum().backward()
        results.append([picture.rgb.detach().cpu(), *(p.grad.cpu() for p in scene.parameters())])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3 * max(1.0, float(ours.abs().max())))


def test_scene_in_double_precision_stays_there():
    scene, cameras = blob_scene(torch.float64), views(1)
    scene.occupancy.update(scene.field, seeded())
    cameras = replace(cameras, pose=cameras.pose.double(), fov_y=cameras.fov_y.double())
    light = key_light(cameras, textureless=False)
    behind = torch.zeros(1, 3, dtype=torch.float64)
    assert render(scene, cameras, light, RenderOptions(), seeded(), behind).rgb.dtype == torch.float64


def test_scene_groups_hold_every_parameter_once():
    scene = blob_scene()
    grouped = [id(p) for group in scene.parameter_groups().values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in scene.parameters())


def test_a_range_of_views_is_what_it_is_among_all_with_its_samples_light_and_background():
    scene, cameras = blob_scene(), views(3)
    light, behind = key_light(cameras, textureless=False), torch.rand(3, 3, generator=seeded(5))
    whole = render(scene, cameras, light, EXACT, seeded(6), behind)
    part = render(scene, cameras, light, replace(EXACT, views=slice(1, 3)), seeded(6), behind)
    for name in ("rgb", "opacity", "depth", "normal"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[1:])
    assert part.along.rays == 2 * 8 * 8
