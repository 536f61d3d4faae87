from dataclasses import replace

import pytest
import torch

from dreamfusion.diffusion.distill import (
    AlphaSigma,
    Distillation,
    SigmaSquared,
    Uniform,
    UniformTimesteps,
    clip_per_image_norm,
    surrogate,
)
from dreamfusion.diffusion.guidance import Guidance
from dreamfusion.diffusion.priors import Conditioning, ViewCondition
from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant
from gaussian_prior import GaussianPrior, cosine_schedule

SIZE, STD = 2, 0.4


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(t: int) -> UniformTimesteps:
    """One timestep of a thousand."""
    return UniformTimesteps(Constant((t + 0.5) / 1000), Constant((t + 0.5) / 1000))


@pytest.fixture
def prior():
    return GaussianPrior(
        {"": random(3, SIZE, SIZE, seed=1), "chair": random(3, SIZE, SIZE, seed=2)}, STD, cosine_schedule(), SIZE
    )


def conditioning(prior, count: int) -> Conditioning:
    empty, text = (prior.embed([caption]).expand(count, -1, -1) for caption in ("", "chair"))
    return Conditioning(
        text, empty, ViewCondition(), text.new_zeros(count, 0, *text.shape[1:]), text.new_zeros(count, 0)
    )


def mode(prior, scale: float) -> torch.Tensor:
    return prior.means[""] + scale * (prior.means["chair"] - prior.means[""])


def moments(prior, weighting, low: int, high: int) -> tuple[float, float]:
    """Factor of (x - mode) in the expected gradient, and the standard deviation of one draw's noise about it.

    With A = w sigma / (alpha^2 std^2 + sigma^2), one gradient is A alpha (x - mode) + (A sigma - w) eps.
    """
    t = torch.arange(low, high)
    alpha, sigma, w = prior.schedule.alpha(t), prior.schedule.sigma(t), weighting(prior.schedule, t)
    a = w * sigma / (alpha**2 * STD**2 + sigma**2)
    return (a * alpha).mean().item(), ((a * sigma - w) ** 2).mean().sqrt().item()


@pytest.mark.parametrize("weighting", [SigmaSquared(), Uniform(), AlphaSigma()])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_expected_gradient_is_the_closed_form(prior, weighting, scale):
    draws = 20_000
    x = random(2, 3, SIZE, SIZE, seed=3)
    sds = Distillation(guidance=Guidance(scale), weighting=weighting, noise_samples=draws)
    gradient = sds(x, conditioning(prior, 2), prior, 0.0, generator())
    slope, spread = moments(prior, weighting, 20, 980)
    distance = x - mode(prior, scale)
    # The stratified timesteps add next to nothing to the error of the mean over independent noise.
    assert bool(((gradient - slope * distance).abs() < 5 * spread / draws**0.5 + 1e-3 * slope * distance.abs()).all())


def test_single_draws_have_the_same_expectation(prior):
    """The paper's case: one draw per picture, many pictures."""
    count = 20_000
    x = random(1, 3, SIZE, SIZE, seed=3)
    gradient = Distillation(guidance=Guidance(3.0))(
        x.repeat(count, 1, 1, 1), conditioning(prior, count), prior, 0.0, generator()
    )
    slope, _ = moments(prior, SigmaSquared(), 20, 980)
    error = gradient.std(0) / count**0.5
    assert bool(((gradient.mean(0) - slope * (x[0] - mode(prior, 3.0))).abs() < 5 * error).all())


def test_gradient_vanishes_at_the_mode_in_expectation(prior):
    draws = 20_000
    x = mode(prior, 3.0)[None]
    gradient = Distillation(guidance=Guidance(3.0), noise_samples=draws)(
        x, conditioning(prior, 1), prior, 0.0, generator()
    )
    assert gradient.abs().max() < 5 * moments(prior, SigmaSquared(), 20, 980)[1] / draws**0.5


@pytest.mark.parametrize("weighting", [SigmaSquared(), Uniform(), AlphaSigma()])
def test_a_sure_prior_needs_no_luck(prior, weighting):
    """For a prior that knows one picture, eps_hat - eps = alpha / sigma (x - x0) whatever the noise is."""
    sure = replace(prior, std=0.0)
    x = random(1, 3, SIZE, SIZE, seed=3)
    sds = Distillation(guidance=Guidance(1.0), timesteps=only(500), weighting=weighting)
    t = torch.tensor([500])
    factor = (weighting(sure.schedule, t) * sure.schedule.alpha(t) / sure.schedule.sigma(t)).item()
    for seed in range(3):
        gradient = sds(x, conditioning(sure, 1), sure, 0.0, generator(seed))
        torch.testing.assert_close(gradient, factor * (x - sure.means["chair"]))


def test_descent_finds_the_mode(prior):
    x = random(1, 3, SIZE, SIZE, seed=4).requires_grad_()
    optimiser = torch.optim.SGD([x], lr=1.0)
    random_numbers, sds = generator(), Distillation(guidance=Guidance(3.0), noise_samples=16)
    trail = []
    for step in range(150):
        optimiser.param_groups[0]["lr"] = 1.0 / (1 + step / 20)
        optimiser.zero_grad()
        surrogate(x, sds(x, conditioning(prior, 1), prior, step / 150, random_numbers)).backward()
        optimiser.step()
        trail.append(x.detach().clone())
    start = (trail[0] - mode(prior, 3.0)).norm()
    assert (torch.cat(trail[-50:]).mean(0) - mode(prior, 3.0)).norm() < 0.02 * start


def test_surrogate_feeds_the_gradient_into_backpropagation():
    angle = random(5, 3, 2, 2).requires_grad_()
    gradient = random(5, 3, 2, 2, seed=1)
    surrogate(angle.sin(), gradient).backward()
    torch.testing.assert_close(angle.grad, gradient * angle.detach().cos() / 5)


def test_there_is_no_graph(prior):
    x = random(1, 3, SIZE, SIZE).requires_grad_()
    assert not Distillation()(x, conditioning(prior, 1), prior, 0.0, generator()).requires_grad


def test_limited_norm_keeps_the_direction():
    gradient = random(3, 3, 4, 4) * torch.tensor([0.001, 1.0, 100.0], dtype=torch.float64)[:, None, None, None]
    limited = clip_per_image_norm(gradient, 2.0)
    torch.testing.assert_close(limited[0], gradient[0])
    torch.testing.assert_close(limited[1:].flatten(1).norm(dim=1), torch.full((2,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(limited[2] / limited[2].norm(), gradient[2] / gradient[2].norm())
    assert torch.equal(clip_per_image_norm(torch.zeros_like(gradient), 2.0), torch.zeros_like(gradient))


def test_knobs_reach_the_gradient(prior):
    """The limit, and the rescale, which at full share undoes a guidance that only scales the picture."""
    x, given = random(2, 3, SIZE, SIZE), conditioning(prior, 2)
    free = Distillation()(x, given, prior, 0.0, generator())
    torch.testing.assert_close(
        Distillation(grad_clip=0.1)(x, given, prior, 0.0, generator()), clip_per_image_norm(free, 0.1)
    )
    assert Distillation(guidance=Guidance(rescale=1.0))(x, given, prior, 0.0, generator()).norm() < 0.5 * free.norm()


def test_a_seed_means_the_same_in_single_precision(prior):
    x = random(2, 3, SIZE, SIZE)
    double = Distillation(guidance=Guidance(3.0))(x, conditioning(prior, 2), prior, 0.0, generator())
    single = Distillation(guidance=Guidance(3.0))(x.float(), conditioning(prior, 2), prior, 0.0, generator())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("knobs", [{"noise_samples": 0}, {"grad_clip": 0.0}])
def test_senseless_knobs_are_refused(knobs):
    with pytest.raises(UserError):
        Distillation(**knobs)


def test_a_senseless_rescale_is_refused():
    with pytest.raises(UserError, match="rescale"):
        Guidance(rescale=1.5)


def test_by_default_each_picture_is_looked_at_once(prior):
    seen = []

    class Counting(GaussianPrior):
        def predict_noise(self, noisy, t, text, known):
            seen.append(len(noisy))
            return super().predict_noise(noisy, t, text, known)

    counting = Counting(prior.means, prior.std, prior.schedule, SIZE)
    Distillation()(random(5, 3, SIZE, SIZE), conditioning(prior, 5), counting, 0.0, generator())
    assert seen == [2 * 5]  # with the caption and without
