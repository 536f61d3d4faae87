"""Which noise levels are looked at: at random, or falling over the run as DreamTime has it."""

import pytest
import torch

from dreamfusion.diffusion.distill import DreamTime, UniformTimesteps
from dreamfusion.diffusion.priors import NoiseSchedule
from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant, Ramp
from gaussian_prior import cosine_schedule

pytestmark = pytest.mark.processor

SCHEDULE = cosine_schedule()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def drawn(levels, count: int, progress: float = 0.0, draws: int = 1) -> torch.Tensor:
    return levels(SCHEDULE, (draws, count), progress, generator())


def test_timesteps_are_uniform_between_the_limits():
    t = drawn(UniformTimesteps(), 100_000)
    assert t.min() == 20
    assert t.max() == 979
    counts = torch.histc(t.double(), bins=48, min=20, max=980)
    expected = t.numel() / 48
    # Chi squared with 47 degrees of freedom: mean 47, standard deviation below 10.
    assert ((counts - expected) ** 2 / expected).sum() < 47 + 5 * 10


def test_timesteps_follow_the_run_and_stay_in_range():
    levels = UniformTimesteps(Constant(0.0), Ramp(1.0, 0.5))
    assert drawn(levels, 10_000).max() == 999
    assert drawn(levels, 10_000, progress=1.0).max() == 499
    assert drawn(UniformTimesteps(Constant(1.0), Constant(1.0)), 3).tolist() == [[999] * 3]


def test_draws_of_a_picture_are_stratified():
    t = drawn(UniformTimesteps(Constant(0.0), Constant(1.0)), 50, draws=10)
    assert torch.equal(t // 100, torch.arange(10)[:, None].expand(10, 50))


@pytest.mark.parametrize("kind", [UniformTimesteps, DreamTime])
def test_senseless_noise_levels_are_refused(kind):
    with pytest.raises(UserError, match="t_min"):
        drawn(kind(Constant(0.9), Constant(0.5)), 1)


def test_dreamtime_spends_its_time_as_its_weight_says():
    """The share of a run between two timesteps is the share of W(t) between them, by summation."""
    steps = 1000
    levels = DreamTime()
    t = torch.stack([levels(SCHEDULE, (1, 1), k / steps, generator())[0, 0] for k in range(steps)])
    assert bool((t.diff() <= 0).all())
    assert t.max() == 979
    assert t.min() >= 20
    at = torch.arange(20, 980)
    products = SCHEDULE.alpha(at) ** 2
    weight = ((1 - products) / products).sqrt() * torch.exp(-0.5 * ((at / 999 - 0.5) / 0.125) ** 2)
    spent = torch.bincount(t, minlength=1000)[at] / steps
    # A timestep more or less at the ends of an interval, and what the first of them loses to the start of the run.
    error = (spent.cumsum(0) - weight.cumsum(0) / weight.sum()).abs().max()
    assert error < weight.max() / weight.sum() + 1 / steps


def test_dreamtime_draws_nothing_and_is_the_same_for_all():
    random = generator()
    before = random.get_state()
    assert DreamTime()(SCHEDULE, (3, 4), 0.4, random).unique().numel() == 1
    assert torch.equal(random.get_state(), before)


def test_dreamtime_falls_once_where_the_limits_move():
    """A schedule's limits fall of themselves; DreamTime takes the widest, whichever end of the run has them."""
    plain, moving = DreamTime(), DreamTime(Ramp(0.98, 0.02), Ramp(0.98, 0.5))
    for progress in (0.0, 0.3, 0.7, 1.0):
        assert torch.equal(drawn(moving, 1, progress), drawn(plain, 1, progress))


def test_dreamtime_leaves_pure_noise_out():
    products = SCHEDULE.alphas**2
    silent = NoiseSchedule.variance_preserving(torch.cat([products[:-1], products.new_zeros(1)]))
    wide = DreamTime(Constant(0.0), Constant(1.0), centre=1.0)
    t = [int(wide(silent, (1, 1), k / 50, generator())) for k in range(51)]
    assert t == sorted(t, reverse=True)
    assert t[0] == 998
    assert t[-1] == 0
