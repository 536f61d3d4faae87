"""Histograms along rays, against loops over their bins."""

import pytest
import torch

from dreamfusion.nerf.stepfun import Histogram, inverse_cdf, max_dilate, outer_measure, sample_intervals
from reference import histograms

pytestmark = pytest.mark.processor

RAYS, BINS = 5, 9


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def histogram(seed=0, bins=BINS, ends=(1.0, 3.0)):
    """Some rays, with an empty bin in each."""
    cuts = torch.rand(RAYS, bins - 1, generator=seeded(seed), dtype=torch.float64).sort(-1).values
    edge = torch.ones(RAYS, 1, dtype=torch.float64)
    t = ends[0] + (ends[1] - ends[0]) * torch.cat([0 * edge, cuts, edge], dim=-1)
    mass = torch.rand(RAYS, bins, generator=seeded(seed + 1), dtype=torch.float64)
    mass[:, 3] = 0.0
    return t, mass / mass.sum(-1, keepdim=True)


def test_inverse_cdf_is_the_loops():
    t, mass = histogram()
    share = torch.rand(RAYS, 20, generator=seeded(7), dtype=torch.float64)
    expected = [
        [histograms.inverse_cdf(a, b, u) for u in us]
        for a, b, us in zip(t.tolist(), (3 * mass).tolist(), share.tolist(), strict=True)
    ]
    assert torch.allclose(inverse_cdf(t, 3 * mass, share), torch.tensor(expected, dtype=torch.float64))


def test_samples_by_random_shares_have_the_histograms_law():
    t, mass = histogram()
    share = torch.rand(RAYS, 40_000, generator=seeded(7), dtype=torch.float64)
    place = inverse_cdf(t, mass, share)
    counts = torch.stack(
        [((place >= a[:, None]) & (place < b[:, None])).double().mean(-1) for a, b in _bins(t)], dim=-1
    )
    assert (counts - mass).abs().max() < 4 * 0.5 / 200


def _bins(t):
    return zip(t[:, :-1].unbind(-1), t[:, 1:].unbind(-1), strict=True)


@pytest.mark.parametrize("offset", [0.0, 0.5, 0.9])
def test_resampled_edges_are_the_loops_and_stay_on_the_ray(offset):
    t, mass = histogram()
    edges = sample_intervals(t, mass, 16, torch.full((RAYS,), offset, dtype=torch.float64))
    expected = [histograms.resampled(a, b, 16, offset) for a, b in zip(t.tolist(), mass.tolist(), strict=True)]
    assert torch.allclose(edges, torch.tensor(expected, dtype=torch.float64))
    assert (edges.diff(dim=-1) >= 0).all()
    assert (edges[:, 0] >= t[:, 0]).all()
    assert (edges[:, -1] <= t[:, -1]).all()


def test_even_mass_gives_even_bins_over_the_whole_ray():
    t = torch.tensor([[2.0, 6.0]])
    edges = sample_intervals(t, torch.ones(1, 1), 8, torch.full((1,), 0.5))
    assert torch.allclose(edges, torch.linspace(2, 6, 9)[None])


def test_bins_gather_where_the_mass_is():
    t, mass = torch.linspace(0, 1, 11)[None], torch.full((1, 10), 1e-3)
    mass[:, 6] = 1.0
    edges = sample_intervals(t, mass, 32, torch.full((1,), 0.5))
    inside = ((edges > 0.6) & (edges < 0.7)).sum()
    assert inside >= 30


def test_a_ray_without_mass_is_cut_all_the_same():
    t = torch.linspace(0, 1, 5)[None]
    edges = sample_intervals(t, torch.zeros(1, 4), 4, torch.full((1,), 0.5))
    assert torch.allclose(edges, t)
    assert inverse_cdf(torch.zeros(1, 5), torch.zeros(1, 4), torch.rand(1, 3, generator=seeded())).isfinite().all()


def test_dilated_density_is_the_greatest_nearby():
    t, weights = histogram()
    by = torch.full((RAYS,), 0.07, dtype=torch.float64)
    wide, mass = max_dilate(t, weights, by)
    assert torch.equal(wide[:, [0, -1]], t[:, [0, -1]])
    for ray in range(RAYS):
        old, new = (t[ray].tolist(), weights[ray].tolist()), (wide[ray].tolist(), mass[ray].tolist())
        for place in torch.linspace(1.01, 2.99, 23).tolist():
            found = histograms.density(*new, place)
            seen = [histograms.greatest_nearby(*old, place, by) for by in (0.07 - 1e-3, 0.07 + 1e-3)]
            assert seen[0] - 1e-9 <= found <= seen[1] + 1e-9
    assert (mass.sum(-1) >= weights.sum(-1)).all()


def test_no_dilation_changes_no_density():
    t, weights = histogram()
    wide, mass = max_dilate(t, weights, torch.zeros(RAYS, dtype=torch.float64))
    back = outer_measure(t, Histogram(wide, mass))
    assert torch.allclose(back, weights)


def test_outer_is_the_loops_and_never_less_than_what_is_inside():
    (t, _), (other, weights) = histogram(0, 12), histogram(5, 7)
    bound = outer_measure(t, Histogram(other, weights))
    rows = zip(t.tolist(), other.tolist(), weights.tolist(), strict=True)
    assert torch.allclose(bound, torch.tensor([histograms.outer(*row) for row in rows], dtype=torch.float64))
    coarse = outer_measure(other, Histogram(other, weights))
    assert torch.allclose(coarse, weights)  # its own bins touch their neighbours in points only


def test_outer_passes_gradients_to_the_weights_alone():
    (t, _), (other, weights) = histogram(0, 4), histogram(5, 5)
    assert torch.autograd.gradcheck(lambda w: outer_measure(t, Histogram(other, w)), (weights.requires_grad_(),))
