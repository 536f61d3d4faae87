import math
from dataclasses import replace

import pytest
import torch

from dreamfusion.config import BlobConfig, GridFieldConfig, MlpFieldConfig
from dreamfusion.geometry import normalise
from dreamfusion.nerf.fields import Field, Gaussians, SurfaceField, precomputed, surface
from dreamfusion.nerf.fields.density import DensityActivation, Exp, Softplus, gaussian, radius_above
from dreamfusion.nerf.fields.grid import GridField, refined
from dreamfusion.nerf.fields.mip_mlp import MipMlp
from dreamfusion.nerf.fields.trilinear import corners, interpolate
from reference.analytic_fields import SoftBall, trilinear
from reference.paper_mlp import paper_mlp

pytestmark = pytest.mark.processor

RADIUS = 1.5
SMALL = GridFieldConfig(cells=(2, 4, 8), colour_cells=(2, 4, 8), features=2, hidden=4)
PLAIN = DensityActivation(Exp(), BlobConfig())
SOFT = DensityActivation(Exp(bias=-5.0, clamp=5.0), BlobConfig(height=8.0, width=0.35))


def normals(field, at, create_graph):
    return surface(field, at, create_graph).normal


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def points(count, radius, seed=0, dtype=torch.float32):
    """Uniform in the cube."""
    mean = (torch.rand(count, 3, generator=seeded(seed), dtype=dtype) * 2 - 1) * radius
    return Gaussians(mean=mean, var=torch.zeros_like(mean))


def grid(config=SMALL, law=SOFT, radius=RADIUS, seed=0):
    return GridField(config, law, radius, seeded(seed))


def rough(config=SMALL, law=SOFT, dtype=torch.float64):
    """A grid field with random content on all levels."""
    field = grid(config, law).to(dtype)
    with torch.no_grad():
        for level in [*field.logits, *field.features]:
            level.copy_(torch.randn(level.shape, generator=seeded(level.numel()), dtype=dtype))
    return field


# Activations and the blob


def test_exp_is_exp_up_to_its_limit_then_a_straight_line():
    act, x = Exp(bias=-1.0, clamp=3.0), torch.tensor([-50.0, 0.0, 3.99, 5.0, 1000.0], requires_grad=True)
    density = act(x)
    assert torch.allclose(density[:3], torch.exp(x[:3] - 1))
    assert torch.allclose(density[3:], math.e**3 * torch.tensor([2.0, 997.0]))
    density.sum().backward()
    assert torch.allclose(x.grad[2:], torch.exp(torch.tensor([2.99, 3.0, 3.0])))


def test_softplus_has_its_asymptotes():
    act = Softplus(bias=-2.0, scale=3.0)
    density = act(torch.tensor([-100.0, 2.0, 102.0]))
    assert torch.allclose(density, torch.tensor([0.0, 3 * math.log(2), 300.0]))


def test_blob_has_the_papers_numbers():
    blob = BlobConfig()
    assert torch.allclose(
        gaussian(blob, torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.4, 0.0]])),
        5 * torch.tensor([1.0, math.exp(-0.5), math.exp(-2.0)]),
    )
    edge = radius_above(blob, 0.7)
    assert torch.allclose(gaussian(blob, torch.tensor([[0.0, edge, 0.0]])), torch.tensor(0.7))
    assert radius_above(blob, 6.0) == 0.0


def test_the_blob_can_be_added_on_either_side_of_the_activation():
    place, logit = torch.tensor([[0.0, 0.2, 0.0]]), torch.tensor([0.3])
    blob = 5 * math.exp(-0.5)
    on_logit = PLAIN(logit, place)
    on_density = DensityActivation(Exp(), BlobConfig(on="density"))(logit, place)
    assert on_logit.item() == pytest.approx(math.exp(0.3 + blob), rel=1e-5)
    assert on_density.item() == pytest.approx(math.exp(0.3) + blob, rel=1e-5)


# The paper's field


@pytest.mark.parametrize("order", ["norm-first", "norm-last"])
def test_the_papers_field_is_its_formula_place_by_place(order):
    config = MlpFieldConfig(levels=4, blocks=2, width=8, order=order)
    field = MipMlp(config, PLAIN, seeded()).double()
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seeded(parameter.numel())).double())
    field.set_variance(0.03)
    at = points(6, 0.5, dtype=torch.float64)
    matter = field.evaluate(at)
    for place, density, albedo in zip(at.mean, matter.density, matter.albedo, strict=True):
        logit, expected = paper_mlp(field.state_dict(), place, 0.03, 4, 2, order)
        blob = 5 * torch.exp(-place.square().sum() / (2 * 0.2**2))
        assert torch.allclose(density, torch.exp(logit + blob))
        assert torch.allclose(albedo, expected)


def test_the_papers_field_is_as_sharp_as_it_was_told_whatever_it_is_asked():
    field = MipMlp(MlpFieldConfig(levels=6, blocks=1, width=16), PLAIN, seeded())
    at = points(10, 0.5)
    wide = replace(at, var=torch.full_like(at.var, 0.1))
    assert torch.equal(field.density(at), field.density(wide))
    before = field.density(at)
    field.set_variance(1e-4)
    assert not torch.allclose(field.density(at), before, rtol=1e-4)
    again = MipMlp(MlpFieldConfig(levels=6, blocks=1, width=16), PLAIN, seeded(1))
    again.load_state_dict(field.state_dict())  # its sharpness is part of its state
    assert torch.equal(again.density(at), field.density(at))


# Both fields


def both_fields(seed=0):
    return [
        grid(replace(SMALL, cells=(8, 16, 32)), seed=seed),
        MipMlp(MlpFieldConfig(levels=4, blocks=2, width=32), PLAIN, seeded(seed)),
    ]


@pytest.mark.parametrize("field", both_fields(), ids=["grid", "mip_mlp"])
def test_density_alone_agrees_with_matter_and_surface(field):
    at = points(40, 1.0)
    matter, with_normals = field.evaluate(at), surface(field, at, create_graph=False)
    assert torch.allclose(field.density(at), matter.density)
    assert torch.allclose(with_normals.density, matter.density)
    assert torch.allclose(with_normals.albedo, matter.albedo)


@pytest.mark.parametrize("field", both_fields(), ids=["grid", "mip_mlp"])
def test_first_picture_is_a_grey_blob(field):
    at = points(300, 1.0)
    matter = field.evaluate(at)
    assert (matter.albedo - 0.5).abs().max() < 0.15
    peak = field.density(Gaussians(mean=torch.zeros(1, 3), var=torch.zeros(1, 3)))
    assert peak > 20 * matter.density[at.mean.norm(dim=-1) > 0.9].max()


@pytest.mark.parametrize("field", both_fields(), ids=["grid", "mip_mlp"])
def test_parameter_groups_hold_every_parameter_once(field):
    grouped = [id(p) for group in field.parameter_groups().values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in field.parameters())


@pytest.mark.parametrize("kind", [0, 1], ids=["grid", "mip_mlp"])
def test_first_weights_come_from_the_generator_alone(kind):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    twin = both_fields()[kind]
    assert torch.equal(torch.get_rng_state(), before)
    other = both_fields(1)[kind]
    at = points(5, 1.0)
    fresh = both_fields()[kind]
    assert torch.equal(twin.evaluate(at).albedo, fresh.evaluate(at).albedo)
    assert not torch.equal(twin.evaluate(at).albedo, other.evaluate(at).albedo)


def test_who_brings_its_own_normals():
    grid, mlp = both_fields()
    assert isinstance(grid, Field)
    assert isinstance(grid, SurfaceField)
    assert isinstance(mlp, Field)
    assert not isinstance(mlp, SurfaceField)


# The grid field


def test_grid_field_is_the_sum_of_its_levels():
    field = rough()
    at = points(30, RADIUS, dtype=torch.float64)
    place = at.mean / RADIUS
    logit = sum(SMALL.detail**i * trilinear(level, place)[:, 0] for i, level in enumerate(field.logits))
    assert torch.allclose(field.density(at), SOFT.activation(logit))
    features = torch.cat([trilinear(level.permute(3, 0, 1, 2), place) for level in field.features], dim=-1)
    hidden = torch.nn.functional.silu(features @ field.hide.weight.T + field.hide.bias)
    albedo = torch.sigmoid(hidden @ field.to_albedo.weight.T + field.to_albedo.bias)
    assert torch.allclose(field.evaluate(at).albedo, albedo)


def test_grid_field_passes_gradcheck():
    config = replace(SMALL, cells=(1, 2), colour_cells=(2,), features=2, hidden=3)
    field = rough(config)
    at = points(6, RADIUS, dtype=torch.float64)

    def everything(mean, *parameters):
        # The parameters are changed in place by gradcheck; they are arguments so that it knows of them.
        matter = field.surface(Gaussians(mean=mean, var=at.var))
        return matter.density, matter.albedo, matter.normal

    assert torch.autograd.gradcheck(everything, (at.mean.requires_grad_(), *field.parameters()))


def test_refined_grid_is_torchs_trilinear_interpolation():
    grid = torch.randn(2, 5, 5, 5, generator=seeded())
    expected = torch.nn.functional.interpolate(grid[None], size=(9, 9, 9), mode="trilinear", align_corners=True)[0]
    assert torch.allclose(refined(grid, 9), expected, atol=1e-6)


def test_colour_can_change_within_a_density_cell():
    config = replace(SMALL, cells=(2,), colour_cells=(2, 32))
    field = grid(config)
    at = points(4000, RADIUS)
    band = (torch.sin(at.mean[:, 1] * 2 * math.pi / 0.4) > 0).float()  # four bands per density cell
    optimiser = torch.optim.Adam(field.parameters(), 3e-2)
    for _ in range(60):
        optimiser.zero_grad()
        error = (field.evaluate(at).albedo - band[:, None]).square().mean()
        error.backward()
        optimiser.step()
    assert error < 0.03
    assert all(level.grad is None for level in field.logits) or field.logits[0].grad.abs().max() == 0


# Normals


def away_from_centre(count, low, high):
    direction = normalise(torch.randn(count, 3, generator=seeded()))
    distance = low + (high - low) * torch.rand(count, 1, generator=seeded(1))
    return direction, Gaussians(mean=direction * distance, var=torch.zeros(count, 3))


def test_analytic_normals_of_a_sphere_are_radial():
    direction, at = away_from_centre(50, 0.3, 0.7)
    assert torch.allclose(normals(SoftBall(), at, create_graph=False), direction, atol=1e-4)


def test_grid_normals_of_a_blob_are_radial():
    field = grid(GridFieldConfig(), replace(SOFT, blob=BlobConfig(5.0, 0.4)), 1.0)
    direction, at = away_from_centre(200, 0.2, 0.8)
    assert (normals(field, at, create_graph=False) * direction).sum(-1).min() > 0.999


def test_grid_normals_are_differences_one_cell_apart():
    field = rough(law=replace(SOFT, activation=Exp(clamp=100.0)))
    cell = 2 * RADIUS / SMALL.cells[-1]
    at = points(20, RADIUS - 1.01 * cell, dtype=torch.float64)

    def logit(mean):
        return field.density(Gaussians(mean=mean, var=at.var)).log()

    steps = cell * torch.eye(3, dtype=torch.float64)
    slope = torch.stack([logit(at.mean + step) - logit(at.mean - step) for step in steps], dim=-1)
    assert torch.allclose(normals(field, at, create_graph=False), -normalise(slope))


def test_network_normals_are_the_slope_of_density():
    field = MipMlp(MlpFieldConfig(levels=3, blocks=2, width=16), PLAIN, seeded()).double()
    at = points(10, 0.5, dtype=torch.float64)
    at = replace(at, var=torch.full_like(at.var, 1e-3))
    steps = 1e-5 * torch.eye(3, dtype=torch.float64)
    ends = [[field.density(replace(at, mean=at.mean + sign * step)) for sign in (1, -1)] for step in steps]
    slope = torch.stack([above - below for above, below in ends], dim=-1)
    assert torch.allclose(normals(field, at, create_graph=False), -normalise(slope), atol=1e-5)


@pytest.mark.parametrize("field", [*both_fields(), SoftBall()], ids=["grid", "mip_mlp", "soft_ball"])
def test_normals_can_train_and_can_be_had_without_gradients(field):
    at = points(20, 0.8)
    with torch.no_grad():
        frozen = surface(field, at, create_graph=False)
    assert not any(x.requires_grad for x in (frozen.density, frozen.albedo, frozen.normal))
    detached = surface(field, at, create_graph=False)
    assert detached.density.requires_grad
    assert not detached.normal.requires_grad
    trained = surface(field, at, create_graph=True)
    assert torch.allclose(trained.normal, frozen.normal, atol=1e-6)
    if not isinstance(field, SoftBall):  # whose normals do not depend on its radius
        (trained.normal[:, 0] * at.mean[:, 1]).sum().backward()
        assert max(p.grad.abs().max() for p in field.parameters() if p.grad is not None) > 0


def test_normals_where_nothing_is_are_zero_with_finite_gradients():
    field = grid(law=replace(SOFT, blob=BlobConfig(height=0.0)))
    normal = normals(field, points(10, 1.0), create_graph=True)
    assert torch.equal(normal, torch.zeros_like(normal))
    normal.sum().backward()
    assert all(level.grad.isfinite().all() for level in field.logits)


# Trilinear look-ups


def table_of(cells, channels):
    return torch.randn((cells + 1) ** 3, channels, generator=seeded(), dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 4])
def test_interpolation_is_trilinear(channels):
    place = torch.rand(40, 3, generator=seeded(1), dtype=torch.float64) * 2.4 - 1.2  # some beyond the border
    place = torch.cat([place, torch.tensor([[1.0, -1.0, 1.0], [0.5, 1.0, 0.0]], dtype=torch.float64)])
    table = table_of(4, channels)
    grid = table.view(5, 5, 5, channels).permute(3, 0, 1, 2)
    near = corners(place, 4)
    assert torch.allclose(interpolate(table, near), trilinear(grid, place.clamp(-1, 1)))
    assert torch.allclose(near.weight.sum(0), torch.ones(42, dtype=torch.float64))


@pytest.mark.parametrize("channels", [1, 3])
def test_interpolation_passes_gradcheck(channels):
    place = (torch.rand(7, 3, generator=seeded(1), dtype=torch.float64) * 1.8 - 0.9).requires_grad_()
    table = table_of(2, channels).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, p: interpolate(t, corners(p, 2)), (table, place))


def test_a_prepared_grid_answers_like_the_sum_of_its_levels_with_and_without_gradients():
    field = rough()
    at = points(30, RADIUS, dtype=torch.float64)
    place = at.mean / RADIUS
    logit = sum(SMALL.detail**i * trilinear(level, place)[:, 0] for i, level in enumerate(field.logits))
    expected = SOFT.activation(logit)
    merged = precomputed(field)
    with torch.no_grad():  # another path
        assert torch.allclose(merged.density(at), expected)
    asked = (
        merged.density(at).sum() + 2 * merged.evaluate(at).density.sum() + 3 * surface(merged, at, True).density.sum()
    )
    ours = torch.autograd.grad(asked, list(field.logits))
    theirs = torch.autograd.grad(6 * expected.sum(), list(field.logits))
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))
    network = MipMlp(MlpFieldConfig(levels=2, blocks=1, width=8), PLAIN, seeded())
    assert precomputed(network) is network
