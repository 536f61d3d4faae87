"""Proposals, and how they learn from the field alone."""

import math
from dataclasses import replace

import pytest
import torch

from dreamfusion.cameras import orbit
from dreamfusion.config import BlobConfig, OccupancyConfig, ProposalConfig
from dreamfusion.config.presets import PAPER
from dreamfusion.lights import albedo_only, key_light
from dreamfusion.nerf import integrate
from dreamfusion.nerf.background import Solid
from dreamfusion.nerf.fields import Gaussians
from dreamfusion.nerf.fields.density import DensityActivation, Exp
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.proposals import Proposal
from dreamfusion.nerf.rays import cast
from dreamfusion.nerf.regularise import interlevel
from dreamfusion.nerf.render import RenderOptions, render, render_views
from dreamfusion.nerf.sampling import keep_views, resample, sample_rays
from dreamfusion.nerf.scene import Scene
from dreamfusion.nerf.stepfun import max_dilate, outer_measure, sample_intervals
from reference import histograms
from reference.analytic_fields import SoftBall

pytestmark = pytest.mark.processor

LOOK = RenderOptions(samples=8, weight_threshold=0.0)
EMPTY = DensityActivation(Exp(bias=-3.0), BlobConfig(0.0, 1.0))
SMALL = ProposalConfig(rounds=(16, 12), levels=3, layers=2, width=16)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scene_of(config=SMALL, radius=1.0, field=None):
    occupancy = Occupancy(OccupancyConfig(cells=8), radius)
    scene = Scene(field or SoftBall(0.35, 40.0), Solid(), occupancy, radius, Proposal(config, EMPTY, seeded()))
    scene.set_variance(1e-3, 1.0)
    return scene


def views(count=1, size=8, distance=3.0):
    one = torch.ones(count)
    return orbit(torch.arange(count) * 2.0, 0.3 * one, distance * one, math.radians(40) * one, size)


def picture(scene, options=LOOK, seed=0):
    return render(scene, views(2), albedo_only(2), options, seeded(seed))


def test_bins_ascend_and_stay_inside_the_ball_also_for_cameras_in_it():
    for distance in (3.0, 0.7):
        scene = scene_of()
        rays = cast(views(2, 8, distance))
        ends = sample_rays(scene, rays, 8, seeded())
        bins, seen = resample(scene, ends, 8)
        assert [each.weights.shape[1] for each in seen] == [16, 12]
        for t in (bins.t, *(each.t for each in seen)):
            assert (t.diff(dim=-1) >= 0).all()
            places = bins.rays.origin[:, None] + t[..., None] * bins.rays.direction[:, None]
            assert places.norm(dim=-1).max() < 1.0 + 1e-5


def test_two_rounds_of_64_and_a_last_of_32_are_the_papers():
    scene = scene_of(replace(SMALL, rounds=PAPER.scene.proposal.rounds))
    along = picture(scene, replace(LOOK, samples=32)).along
    assert [each.weights.shape[1] for each in along.proposals] == [64, 64]
    assert along.weights.shape[1] == 32


def trained(scene, steps):
    optimiser = torch.optim.Adam(scene.proposal.parameters(), 1e-2)
    losses = []
    for step in range(steps):
        optimiser.zero_grad()
        loss = interlevel(picture(scene, seed=step))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_proposals_learn_to_find_the_matter_and_bins_gather_there():
    scene = scene_of()

    def share_of_bins_near_the_ball():
        along = picture(scene, seed=99).along
        middle = 0.5 * (along.t[:, 1:] + along.t[:, :-1])
        sees = along.weights.sum(-1) > 0.8
        return ((middle - 3).abs() < 0.5)[sees].float().mean().item()

    before = share_of_bins_near_the_ball()
    losses = trained(scene, 60)
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    assert share_of_bins_near_the_ball() > max(0.75, before + 0.2)


def test_levels_are_separated_by_stopped_gradients():
    scene = scene_of()
    drawn = picture(scene)
    interlevel(drawn).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in scene.field.parameters())
    assert max(parameter.grad.abs().max() for parameter in scene.proposal.parameters()) > 0
    scene.zero_grad()
    picture(scene).rgb.sum().backward()
    assert scene.field.radius.grad.abs() > 0
    assert all(parameter.grad is None for parameter in scene.proposal.parameters())


def test_interlevel_is_the_loops_and_zero_for_a_bound():
    scene = scene_of()
    drawn = picture(scene)
    along = drawn.along
    total = sum(
        histograms.interlevel(
            along.t[ray].tolist(),
            along.weights[ray].tolist(),
            [(each.t[ray].tolist(), each.weights[ray].tolist()) for each in along.proposals],
        )
        for ray in range(len(along.t))
    )
    assert interlevel(drawn).item() == pytest.approx(total / along.rays, rel=1e-4)
    assert total > 0
    generous = replace(along, proposals=tuple(replace(each, weights=each.weights + 1) for each in along.proposals))
    assert interlevel(replace(drawn, along=generous)) == 0
    assert (outer_measure(along.t, generous.proposals[0]) >= 1).all()


def test_early_in_the_run_weights_count_little():
    scene = scene_of()
    trained(scene, 30)
    spans = []
    for progress in (0.0, 0.1, 1.0):
        scene.set_variance(1e-3, progress)
        assert float(scene.proposal.power) == pytest.approx({0.0: 0.0, 0.1: 1 / 1.9, 1.0: 1.0}[progress])
        along = picture(scene).along
        spans.append((along.t[:, -1] - along.t[:, 0])[along.weights.sum(-1) > 0.8].mean().item())
    assert spans[0] > spans[1] > spans[2]


def test_bins_are_drawn_by_weights_half_an_expected_bin_and_a_quarter_percent_of_the_ray_wider():
    scene = scene_of()
    trained(scene, 30)
    rays = cast(views(2))
    ends = sample_rays(scene, rays, 8, seeded())
    bins, (first, second) = resample(scene, ends, 8)
    way = ends.t[:, 1] - ends.t[:, 0]
    for seen, expected, found, offset in ((first, 16, second.t, 1), (second, 16 * 12, bins.t, 2)):
        t, mass = max_dilate(seen.t, seen.weights.detach(), (0.5 / expected + 0.0025) * way)
        assert torch.allclose(found, sample_intervals(t, mass, found.shape[1] - 1, ends.offset[:, offset]), atol=1e-5)
        t, mass = max_dilate(seen.t, seen.weights.detach(), 0.5 / expected * way)
        other = sample_intervals(t, mass, found.shape[1] - 1, ends.offset[:, offset])
        assert not torch.allclose(found, other, atol=1e-4)


def test_focus_reaches_field_and_proposals():
    scene = scene_of()
    at = Gaussians(torch.rand(20, 3, generator=seeded()), torch.zeros(20, 3))
    sharp = scene.proposal.density(at)
    scene.set_variance(100.0, 1.0)
    blurred = scene.proposal.density(at)
    assert not torch.allclose(sharp, blurred)
    assert torch.allclose(blurred, blurred[:1].expand(20))  # so blurred that all places are one


@pytest.mark.parametrize("lit", [False, True])
def test_recomputing_in_pieces_changes_neither_picture_nor_gradients(lit):
    results = []
    for recompute in (0, 7, 10_000):
        scene = scene_of()
        cameras = views(2)
        light = key_light(cameras, textureless=False) if lit else albedo_only(2)
        drawn = render(scene, cameras, light, replace(LOOK, checkpoint_rays=recompute), seeded())
        normal = 0.0 if drawn.along.normal is None else (drawn.along.weight * drawn.along.normal[:, 0].square()).sum()
        (drawn.rgb.square().sum() + drawn.opacity.sum() + normal + 10 * interlevel(drawn)).backward()
        gradients = [parameter.grad for parameter in scene.parameters()]
        along = drawn.along
        results.append(
            [drawn.rgb.detach(), along.row, along.direction, along.proposals[1].weights.detach(), *gradients]
        )
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_range_of_the_views_is_pictured_as_among_all():
    scene = scene_of()
    cameras = views(4)
    light = key_light(cameras, textureless=False)
    whole = render(scene, cameras, light, LOOK, seeded())
    part = render(scene, cameras, light, replace(LOOK, views=slice(2, 4)), seeded())
    torch.testing.assert_close(part.rgb, whole.rgb[2:])  # products of other sizes may round differently
    torch.testing.assert_close(part.normal, whole.normal[2:])
    assert part.along.rays == whole.along.rays // 2


def test_pictures_for_people_are_proposed_too():
    scene = scene_of()
    cameras = views(2)
    whole = render(scene, cameras, albedo_only(2), LOOK)
    pieces = render_views(scene, cameras, albedo_only(2), replace(LOOK, chunk=9))
    assert torch.allclose(pieces.rgb, whole.rgb, atol=1e-6)


def test_without_a_generator_every_bin_is_cut_in_its_middle():
    bins = sample_rays(scene_of(), cast(views()), 8, None)
    assert bins.offset is not None
    assert torch.equal(bins.offset, torch.full((len(bins.number), 3), 0.5))


def test_the_rays_of_a_view_are_those_from_its_first_to_before_the_next():
    bins = sample_rays(scene_of(), cast(views(3, 8)), 8, seeded())
    parts = [keep_views(bins, slice(64 * view, 64 * (view + 1))) for view in range(3)]
    assert sum(len(part.number) for part in parts) == len(bins.number)
    assert all(((part.number >= 0) & (part.number < 64)).all() for part in parts)
    edge = replace(bins[torch.arange(3)], number=torch.tensor([63, 64, 128]))
    assert keep_views(edge, slice(64, 128)).number.tolist() == [0]


@pytest.mark.parametrize("graded", [True, False])
def test_memory_is_saved_only_where_there_are_gradients(monkeypatch, graded):
    pieces = []
    monkeypatch.setattr(integrate, "checkpointed", lambda make: pieces.append(1) or make())
    with torch.set_grad_enabled(graded):
        drawn = picture(scene_of(), replace(LOOK, checkpoint_rays=32))
    assert (len(pieces) > 1) == graded
    assert torch.equal(drawn.rgb, picture(scene_of(), LOOK).rgb)


def test_a_ray_whose_samples_are_all_too_thin_for_a_colour_is_finite():
    drawn = picture(scene_of(), replace(LOOK, weight_threshold=1e-4, colour_threshold=0.99))
    assert drawn.opacity.max() > 0.1
    assert drawn.rgb.isfinite().all()
