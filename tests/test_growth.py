"""Fields that grow along a run, and the size of the views: nothing is lost or made up where they do."""

import itertools
from dataclasses import replace

import pytest
import torch

from dreamfusion import checkpoint
from dreamfusion.config import BlobConfig, GridFieldConfig, MlpFieldConfig, OccupancyConfig
from dreamfusion.config.check import validate
from dreamfusion.config.presets import FAST
from dreamfusion.diffusion.priors.spaces import PixelSpace
from dreamfusion.errors import UserError
from dreamfusion.loop import optimise, prompt_table, start
from dreamfusion.nerf.fields import Gaussians, GrowingField
from dreamfusion.nerf.fields.bricks import SIDE, Bricks, bricks_near_surfaces
from dreamfusion.nerf.fields.density import DensityActivation, Exp
from dreamfusion.nerf.fields.grid import GROWN, GridField
from dreamfusion.nerf.occupancy import FINEST, Occupancy
from dreamfusion.schedules import Constant, Steps
from gaussian_prior import GaussianPrior
from reference.analytic_fields import ball, trilinear

pytestmark = pytest.mark.processor

RADIUS = 1.5
SMALL = GridFieldConfig(cells=(2, 4, 8), colour_cells=(2, 8), features=2, hidden=4, grow=(0.25, 0.5))
SOFT = DensityActivation(Exp(bias=-5.0, clamp=5.0), BlobConfig(height=8.0, width=0.5))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def points(count, radius=RADIUS, dtype=torch.float64):
    mean = (torch.rand(count, 3, generator=seeded(9), dtype=dtype) * 2 - 1) * radius
    return Gaussians(mean=mean, var=torch.zeros_like(mean))


def anywhere(place):
    return torch.ones(len(place), dtype=torch.bool)


def shaken(field, amount=0.3):
    with torch.no_grad():
        for number, parameter in enumerate(field.parameters()):
            parameter.add_(amount * torch.randn(parameter.shape, generator=seeded(number), dtype=parameter.dtype))
    return field


def rough(config=SMALL):
    return shaken(GridField(config, SOFT, RADIUS, seeded()).double())


def dense_of(level: Bricks, table):
    """The table's values at all vertices, "c d d d", brick by brick."""
    side = level.cells + 1
    grid = torch.zeros(table.shape[1], side, side, side, dtype=table.dtype)
    corners = itertools.product(range(level.per_side), repeat=3)
    for (z, y, x), first in zip(corners, level.first.tolist(), strict=True):
        if first < 0:
            continue
        brick = table[first : first + SIDE**3].view(SIDE, SIDE, SIDE, -1)
        z, y, x = z * SIDE, y * SIDE, x * SIDE
        part = grid[:, z : z + SIDE, y : y + SIDE, x : x + SIDE]
        part.copy_(brick.permute(3, 0, 1, 2)[:, : part.shape[1], : part.shape[2], : part.shape[3]])
    return grid


# The field


def test_growing_changes_nothing_but_the_number_of_parameters():
    field, at = rough(), points(500)
    before = field.surface(at)
    count = sum(p.numel() for p in field.parameters())
    assert isinstance(field, GrowingField)
    assert not field.grow(0.2, anywhere)
    for progress in (0.25, 0.9):
        assert field.grow(progress, anywhere)
        assert not field.grow(progress, anywhere)
        after = field.surface(at)
        for name in ("density", "albedo", "normal"):
            assert torch.equal(getattr(after, name), getattr(before, name))
        with torch.no_grad():
            assert torch.allclose(field.density(at), before.density, rtol=1e-12)
    assert field.cells == 32
    assert sum(p.numel() for p in field.parameters()) > count
    assert sorted(map(id, field.parameter_groups()["grid"] + field.parameter_groups()["network"])) == sorted(
        map(id, field.parameters())
    )


def test_a_grown_field_is_the_sum_of_dense_levels_and_so_is_its_slope():
    field, at = rough(), points(40, 0.9)
    base = field.surface(at)
    field.grow(1.0, anywhere)
    shaken(field.fine, 0.5)
    assert 0 < int((field.fine[1].first >= 0).sum()) < field.fine[1].per_side ** 3
    place = (at.mean / RADIUS).requires_grad_()
    extra = sum(GROWN * trilinear(dense_of(level, level.logits), place)[:, 0] for level in field.levels())
    (slope,) = torch.autograd.grad(extra.sum(), place)
    logit = base.density.log() + 5 + extra
    again = replace(field.config, grow=())
    assert torch.allclose(field.surface(at).density, SOFT.activation(logit))
    assert torch.allclose(field.evaluate(at).density, SOFT.activation(logit))
    assert torch.allclose(field.density(at), SOFT.activation(logit))
    with torch.no_grad():
        assert torch.allclose(field.density(at), SOFT.activation(logit))
    # Normals: the coarse differences over two cells, per unit of length, and the exact slope of what was added.
    plain = GridField(again, SOFT, RADIUS, seeded()).double()
    plain.load_state_dict({k: v for k, v in field.state_dict().items() if not k.startswith("fine")})
    cell = 2 / 8
    at_steps = [[Gaussians(at.mean + s * cell * RADIUS * axis, at.var) for s in (1, -1)] for axis in torch.eye(3)]
    coarse = torch.stack([(plain.density(a).log() - plain.density(b).log()) / (2 * cell) for a, b in at_steps], -1)
    wanted = -torch.nn.functional.normalize(coarse + slope, dim=-1)
    assert torch.allclose(field.surface(at).normal, wanted, atol=1e-6)


def test_gradients_reach_the_dense_levels_values():
    field, at = rough(), points(40, 0.9)
    field.grow(1.0, anywhere)
    shaken(field.fine, 0.5)
    level = field.fine[1]
    for table, asked in ((level.logits, lambda: level.logit(at.mean)), (level.features, lambda: _features(level, at))):
        dense = dense_of(level, table.detach()).requires_grad_()
        weight = torch.randn(asked().shape, generator=seeded(3), dtype=torch.float64)
        (ours,) = torch.autograd.grad((asked() * weight).sum(), table)
        value = trilinear(dense, at.mean).view(weight.shape)
        (theirs,) = torch.autograd.grad((value * weight).sum(), dense)
        assert torch.allclose(dense_of(level, ours), theirs * (dense_of(level, torch.ones_like(table)) > 0))


def _features(level, at):
    from dreamfusion.nerf.fields.trilinear import interpolate

    return interpolate(level.features, level.near(at.mean))


def test_a_grown_field_passes_gradcheck():
    config = replace(SMALL, cells=(2,), colour_cells=(2,), features=2, hidden=2, grow=(0.0,))
    field, at = rough(config), points(5)
    field.grow(0.0, anywhere)
    shaken(field.fine, 0.5)

    def everything(*parameters):
        matter = field.surface(at)
        return matter.density, matter.albedo, matter.normal

    assert torch.autograd.gradcheck(everything, tuple(field.fine.parameters()), fast_mode=True)


def soft_ball(cells, radius=0.6):
    """Densities at the vertices of a ball in the cube of side 2: 100 inside, 0 outside, a flank of some cells."""
    axis = torch.linspace(-1, 1, cells + 1)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return 100 * torch.sigmoid((radius - (x.square() + y.square() + z.square()).sqrt()) * 2 * cells)


def test_what_grows_grows_with_the_surface_and_not_with_the_volume():
    counts = {cells: int(bricks_near_surfaces(soft_ball(cells), 0.5, 15.0).sum()) for cells in (32, 64, 128)}
    assert 3.5 < counts[64] / counts[32] < 4.5
    assert 3.5 < counts[128] / counts[64] < 4.5
    assert counts[128] * SIDE**3 < 0.11 * 257**3


def test_bricks_are_where_the_surface_is_and_a_cell_around_it():
    cells, radius = 64, 0.6
    present = bricks_near_surfaces(soft_ball(cells, radius), 0.5, 15.0)
    assert present.shape == (2 * cells // SIDE + 1,) * 3
    level = Bricks(2 * cells, 1, present)
    direction = torch.nn.functional.normalize(torch.randn(2000, 3, generator=seeded()), dim=-1)
    for distance in (radius, radius + 2 / cells, radius - 2 / cells):
        assert level.near(direction * distance).there.all()
    for distance in (0.0, 0.4, 0.85):
        assert not level.near(direction * distance).there.any()


def test_an_empty_field_grows_too():
    field = GridField(SMALL, replace(SOFT, blob=BlobConfig(height=0.0)), RADIUS, seeded())
    before = field.density(points(50, dtype=torch.float32))
    field.grow(1.0, lambda place: ~anywhere(place))
    assert torch.equal(field.density(points(50, dtype=torch.float32)), before)


# Occupancy


def test_a_refined_occupancy_keeps_all_matter_in_smaller_cells():
    occupancy, field = Occupancy(OccupancyConfig(cells=16), 1.0), ball(0.62, 10.0)
    occupancy.update(field, seeded())
    coarse, places = occupancy.occupied_fraction(), points(20_000, 1.0, torch.float32).mean
    before = occupancy.mask(places)
    occupancy.refine(field, seeded(1))
    assert occupancy.cells == 32
    assert occupancy.density.shape == (32**3,)
    after = occupancy.mask(places)
    assert after[places.norm(dim=-1) < 0.62].all()
    assert 0.5 * coarse < occupancy.occupied_fraction() < 0.9 * coarse
    assert (after & ~before).float().mean() < 0.01  # what a margin of smaller cells adds at the border
    occupancy.update(field, seeded(2), parts=4)
    low, high = occupancy.bounds
    assert ((low < -0.6) & (high > 0.6)).all()


def test_an_occupancy_grows_up_to_a_limit_and_not_if_there_is_none():
    occupancy = Occupancy(OccupancyConfig(cells=FINEST, every=0), 1.0)
    occupancy.refine(ball(0.5, 10.0), seeded())
    assert occupancy.cells == FINEST
    none = Occupancy(OccupancyConfig(cells=8, every=0), 1.0)
    none.refine(ball(0.5, 10.0), seeded())
    assert none.cells == 8
    assert none.occupied.all()


# The run


class AnySize(GaussianPrior):
    """Takes pictures of every size, as real priors do."""

    def encode(self, image):
        return PixelSpace(self.image_size).encode(image)


@pytest.fixture
def any_size(disc_prior):
    return AnySize(disc_prior.means, disc_prior.std, disc_prior.schedule, disc_prior.image_size)


@pytest.fixture
def growing(tiny_config):
    field = replace(tiny_config.scene.field, grow=(0.25, 0.75))
    scene = replace(tiny_config.scene, field=field)
    return replace(tiny_config, scene=scene, size=24, size_schedule=Steps((0.5, 1.0), (0.5,)))


def follow(run, prior, until):
    return list(optimise(run, prior, prompt_table(run.config, prior), until))


def state(run):
    moments = {
        f"{index}.{name}": value
        for index, found in run.optimiser.state_dict()["state"].items()
        for name, value in found.items()
    }
    return run.scene.state_dict() | moments | {"generator": run.generator.get_state()}


def test_growth_and_size_are_reached_when_they_are_due(growing, any_size):
    run, cells, sizes = start(growing, torch.device("cpu")), [], []
    run.recipe = replace(run.recipe, regularisers={"seen": (Constant(1.0), lambda render, scene: note(render))})

    def note(render):
        sizes.append(render.rgb.shape[1])
        return render.rgb.mean()

    for step in range(1, growing.steps + 1):
        follow(run, any_size, step)
        cells.append((run.scene.field.cells, run.scene.occupancy.cells))
    assert cells == [(8, 8)] * 3 + [(16, 16)] * 6 + [(32, 32)] * 3
    assert sizes == [12] * 6 + [24] * 6


def test_memory_of_what_was_there_is_kept_and_new_parameters_begin_without(growing, any_size):
    run = start(growing, torch.device("cpu"))
    follow(run, any_size, 3)
    old = {parameter: dict(run.optimiser.state[parameter]) for parameter in run.scene.parameters()}
    copies = {p: {name: value.clone() for name, value in found.items()} for p, found in old.items()}
    from dreamfusion import build

    assert run.scene.grow(run.progress, run.generator)
    build.follow(run.optimiser, run.scene)
    held = {parameter for group in run.optimiser.param_groups for parameter in group["params"]}
    assert held == set(run.scene.parameters())
    for parameter, found in copies.items():
        assert all(torch.equal(run.optimiser.state[parameter][name], value) for name, value in found.items())
    assert not any(parameter in run.optimiser.state for parameter in run.scene.field.fine.parameters())
    follow(run, any_size, 4)
    assert all(run.optimiser.state[parameter]["step"] == 1 for parameter in run.scene.field.fine.parameters())
    assert all(run.optimiser.state[parameter]["step"] == 4 for parameter in old)


@pytest.mark.anywhere
def test_a_run_goes_on_across_its_growth_bit_for_bit(growing, any_size, tmp_path):
    whole, stops = start(growing, torch.device("cpu")), (2, 3, 4, 9, 10, 12)
    for at in stops:
        follow(whole, any_size, at)
        checkpoint.save(whole, tmp_path / str(at))
    theirs = state(whole)
    for at in stops:
        again = checkpoint.load(tmp_path / str(at), torch.device("cpu"))
        assert again.step == at
        follow(again, any_size, growing.steps)
        ours = state(again)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_that_has_grown_otherwise_is_refused(growing, any_size, tmp_path):
    run = start(growing, torch.device("cpu"))
    follow(run, any_size, 5)
    checkpoint.save(run, tmp_path)
    field = replace(growing.scene.field, grow=())
    told = replace(growing, scene=replace(growing.scene, field=field))
    with pytest.raises(UserError, match=r"scene\.field\.grow is .* in config\.json"):
        checkpoint.load(tmp_path, torch.device("cpu"), told)
    with pytest.raises(UserError, match="size_schedule is"):
        checkpoint.load(tmp_path, torch.device("cpu"), replace(growing, size_schedule=Steps((0.5, 1.0), (0.6,))))
    run.config = told
    checkpoint.save(run, tmp_path)
    with pytest.raises(UserError, match="does not fit its configuration"):
        checkpoint.load(tmp_path, torch.device("cpu"))


def test_sums_over_pixels_are_over_those_that_there_are(growing, any_size):
    """With `reduction` sum a weight means the same beside a prior that is asked pixel by pixel, at any size."""
    weights = replace(growing.regularise, reduction="sum")
    told = [
        follow(start(config, torch.device("cpu")), any_size, 1)[0].losses["opacity"]
        for config in (growing, replace(growing, regularise=weights))
    ]
    assert told[1] == pytest.approx(12**2 * told[0], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grow": (0.5, 0.5)}, "--scene.field.grow must grow from each to the next"),
        ({"grow": (0.5, 1.5)}, "--scene.field.grow must be at least 0 and at most 1"),
        ({"grow": (0.1, 0.2, 0.3, 0.4)}, "makes 1024 cells"),
        ({"grow": (0.1,), "cells": (15,)}, "an even number"),
    ],
)
def test_growth_that_cannot_be_is_refused(change, message):
    field = replace(GridFieldConfig(), **change)
    with pytest.raises(UserError, match=message):
        validate(replace(FAST, prompt="a ball", scene=replace(FAST.scene, field=field)))


def test_sizes_that_cannot_be_are_refused():
    for schedule, message in (
        (Steps((0.1, 1.0), (0.5,)), "--size-schedule makes views of 6 pixels"),
        (Steps((1.0, 2.0), (0.5,)), "--size-schedule must"),
    ):
        with pytest.raises(UserError, match=message):
            validate(replace(FAST, prompt="a ball", size_schedule=schedule))


def test_growth_needs_an_optimiser_that_balances_each_number_alone():
    field, optimise_ = replace(GridFieldConfig(), grow=(0.5,)), replace(FAST.optimise, method="shampoo")
    scene = replace(FAST.scene, field=field)
    with pytest.raises(UserError, match="adam"):
        validate(replace(FAST, prompt="a ball", scene=scene, optimise=optimise_))
    validate(replace(FAST, prompt="a ball", scene=replace(scene, field=MlpFieldConfig()), optimise=optimise_))
