from dataclasses import replace

import pytest
import torch

from dreamfusion.diffusion.guidance import (
    Guidance,
    combine_guidance,
    perpendicular_component,
    rescale_contrast,
)
from dreamfusion.diffusion.priors import Conditioning, NoiseSchedule, ViewCondition
from dreamfusion.lights import Light
from gaussian_prior import GaussianPrior, cosine_schedule

pytestmark = pytest.mark.processor

B, SIZE = 4, 3


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def prior():
    means = {
        "": random(3, SIZE, SIZE, seed=1),
        "chair": random(3, SIZE, SIZE, seed=2),
        "back": random(3, SIZE, SIZE, seed=3),
    }
    return GaussianPrior(means, 0.5, cosine_schedule(), SIZE)


def conditioning(prior, against=(), weights=()) -> Conditioning:
    empty, text, *others = (prior.embed([caption]).expand(B, -1, -1) for caption in ("", "chair", *against))
    stacked = torch.stack(others, dim=1) if others else text.new_zeros(B, 0, *text.shape[1:])
    weight = torch.tensor(weights, dtype=torch.float64).expand(B, len(weights))
    return Conditioning(text, empty, ViewCondition(), stacked, weight)


@pytest.fixture
def noisy():
    return random(B, 3, SIZE, SIZE), torch.tensor([20, 300, 600, 980])


def test_scale_one_is_conditional_and_zero_is_empty(prior, noisy):
    x, t = noisy
    given = conditioning(prior)
    torch.testing.assert_close(
        Guidance(1.0).guided(prior, x, t, given), prior.predict_noise(x, t, given.text, ViewCondition())
    )
    torch.testing.assert_close(
        Guidance(0.0).guided(prior, x, t, given), prior.predict_noise(x, t, given.null_text, ViewCondition())
    )


def test_guidance_of_gaussians_moves_the_mean(prior, noisy):
    """With equal spread, guidance is the conditional estimate of a Gaussian whose mean is extrapolated."""
    x, t = noisy
    given = conditioning(prior)
    further = given.null_text + 7.5 * (given.text - given.null_text)
    torch.testing.assert_close(
        Guidance(7.5).guided(prior, x, t, given), prior.predict_noise(x, t, further, ViewCondition())
    )


def test_perpendicular_part():
    v, axis = random(2, B, 3, 5, 5, seed=4), random(2, B, 3, 5, 5, seed=5)
    part = perpendicular_component(v, axis)
    torch.testing.assert_close(
        (part * axis).sum((-3, -2, -1)), torch.zeros(2, B, dtype=torch.float64), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(perpendicular_component(part, axis), part)
    torch.testing.assert_close(perpendicular_component(part + 3 * axis, axis), part)
    torch.testing.assert_close(perpendicular_component(v, torch.zeros_like(axis)), v)


def test_perp_neg_leaves_the_main_direction_alone(prior, noisy):
    """Along d the guided direction is s d whatever the other captions are; across it, the sign of the weight counts."""
    x, t = noisy
    plain, given = conditioning(prior), conditioning(prior, ["back"], [-0.6])
    empty = prior.predict_noise(x, t, given.null_text, ViewCondition())
    main = prior.predict_noise(x, t, given.text, ViewCondition()) - empty
    other = prior.predict_noise(x, t, given.perp_neg_text[:, 0], ViewCondition()) - empty
    change = Guidance(10.0).guided(prior, x, t, given) - Guidance(10.0).guided(prior, x, t, plain)
    along = (change * main).sum((1, 2, 3)) / (main * main).sum((1, 2, 3))
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-10, rtol=0)
    torch.testing.assert_close(change, -0.6 * 10.0 * perpendicular_component(other, main))
    assert bool(((change * other).sum((1, 2, 3)) < 0).all())


def test_a_caption_against_itself_or_of_no_weight_changes_nothing(prior, noisy):
    x, t = noisy
    plain = Guidance(10.0).guided(prior, x, t, conditioning(prior))
    same = Guidance(10.0).guided(prior, x, t, conditioning(prior, ["chair", "back"], [-2.0, 0.0]))
    torch.testing.assert_close(same, plain)


def test_several_captions_add_up_with_weights_per_picture():
    empty, text = random(2, B, 3, 2, 2, seed=6)
    against, weight = random(2, B, 3, 2, 2, seed=7), random(B, 2, seed=8)
    got = combine_guidance(empty, text, against, weight, 4.0)
    for picture in range(B):
        aside = sum(
            weight[picture, k] * perpendicular_component(against[k, picture] - empty[picture], (text - empty)[picture])
            for k in range(2)
        )
        expected = empty[picture] + 4.0 * ((text - empty)[picture] + aside)
        torch.testing.assert_close(got[picture], expected)


def test_rescaling_restores_the_contrast(prior, noisy):
    x, t = noisy
    given = conditioning(prior)
    schedule = prior.schedule
    text = prior.predict_noise(x, t, given.text, ViewCondition())

    def contrast(eps):
        return schedule.x0_from_eps(eps, x, t).std((1, 2, 3))

    guided = Guidance(30.0).guided(prior, x, t, given)
    assert bool((contrast(guided) > 10 * contrast(text))[1:].all())  # little can change where there is little noise
    torch.testing.assert_close(contrast(Guidance(30.0, 1.0)(prior, x, t, given).guided), contrast(text))
    torch.testing.assert_close(rescale_contrast(schedule, x, t, guided, text, 0.0), guided)
    half = Guidance(30.0, 0.5)(prior, x, t, given).guided
    torch.testing.assert_close(contrast(half), 0.5 * (contrast(text) + contrast(guided)))


def test_rescaling_leaves_pure_noise_as_it_is(prior, noisy):
    """Where alpha is 0 the estimate of the picture is no number."""
    x, _ = noisy
    t = torch.tensor([20, 300, 600, 999])
    schedule = NoiseSchedule.rectified_flow(torch.linspace(0.001, 1, 1000, dtype=torch.float64))
    guided, text = random(B, 3, SIZE, SIZE, seed=8), random(B, 3, SIZE, SIZE, seed=9)
    got = rescale_contrast(schedule, x, t, guided, text, 0.5)
    assert bool(got.isfinite().all())
    assert torch.equal(got[3], guided[3])
    assert (got[2] - guided[2]).abs().max() > 1e-3


def test_one_call_tells_every_picture_what_is_known_of_it(prior, noisy):
    """Each caption's copy of a picture comes with that picture's camera, background and light."""
    calls = []

    class Listening(GaussianPrior):
        def predict_noise(self, noisy, t, text, known):
            calls.append((noisy, t, known))
            return super().predict_noise(noisy, t, text, known)

    x, t = noisy
    number = torch.arange(B, dtype=torch.float64)
    light = Light(number[:, None].expand(B, 3), number, number + 10, number > 1)
    known = ViewCondition(number[:, None, None].expand(B, 4, 4), number[:, None].expand(B, 3), light)
    listening = Listening(prior.means, prior.std, prior.schedule, SIZE)
    Guidance(5.0).guided(listening, x, t, replace(conditioning(prior, ["back"], [-1.0]), known=known))
    assert len(calls) == 1
    seen, times, told = calls[0]
    index = [int((x == picture).flatten(1).all(1).nonzero()) for picture in seen]
    assert sorted(index) == sorted(list(range(B)) * 3)
    expected = number[index]
    assert torch.equal(times, t[index])
    assert torch.equal(told.pose[:, 2, 1], expected)
    assert torch.equal(told.background[:, 0], expected)
    assert torch.equal(told.light.position[:, 2], expected)
    assert torch.equal(told.light.ambient, expected)
    assert torch.equal(told.light.diffuse, expected + 10)
    assert torch.equal(told.light.textureless, expected > 1)


def test_the_default_is_the_papers_and_each_share_of_contrast_is_allowed():
    assert Guidance() == Guidance(scale=1 + 100.0, rescale=None)  # omega = 100
    assert Guidance(rescale=0.0).rescale == 0.0
