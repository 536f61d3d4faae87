import pytest
import torch
from torch import Tensor

from dreamfusion.diffusion.priors import NoiseSchedule, Prediction
from gaussian_prior import cosine_schedule

pytestmark = pytest.mark.processor


@pytest.fixture
def triple():
    """x0, eps and timesteps, the extreme ones among them."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 5, 3, 4, 4, generator=generator, dtype=torch.float64)
    return x0, eps, torch.tensor([0, 20, 500, 980, 999])


def test_signal_and_noise_share_the_variance(triple):
    schedule = cosine_schedule()
    t = triple[2]
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(5, dtype=torch.float64))
    assert bool((schedule.sigma(t).diff() > 0).all())


def test_noisy_pictures_have_the_right_moments():
    schedule, t = cosine_schedule(), torch.tensor([300])
    eps = torch.randn(1, 3, 200, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noisy = schedule.add_noise(torch.full_like(eps, 0.7), eps, t)
    error = noisy.numel() ** -0.5
    assert abs(noisy.mean() - 0.7 * schedule.alpha(t)) < 5 * error
    assert abs(noisy.std() - schedule.sigma(t)) < 5 * error


def test_conversions_invert(triple):
    schedule = cosine_schedule()
    x0, eps, t = triple
    noisy = schedule.add_noise(x0, eps, t)
    torch.testing.assert_close(schedule.x0_from_eps(eps, noisy, t), x0)
    torch.testing.assert_close(schedule.eps_from_x0(x0, noisy, t), eps)
    torch.testing.assert_close(schedule.eps_from_v(velocity(schedule, x0, eps, t), noisy, t), eps)


def velocity(schedule: NoiseSchedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """What v-prediction predicts (Salimans and Ho 2022)."""
    alpha, sigma = schedule.alpha(t)[:, None, None, None], schedule.sigma(t)[:, None, None, None]
    return alpha * eps - sigma * x0


def test_every_prediction_becomes_the_same_epsilon(triple):
    schedule = cosine_schedule()
    x0, eps, t = triple
    noisy = schedule.add_noise(x0, eps, t)
    outputs = {Prediction.EPSILON: eps, Prediction.X0: x0, Prediction.V: velocity(schedule, x0, eps, t)}
    outputs[Prediction.FLOW] = eps - x0
    for prediction in Prediction:
        torch.testing.assert_close(schedule.epsilon(prediction, outputs[prediction], noisy, t), eps)


def test_results_take_the_dtype_of_the_pictures(triple):
    x0, eps, t = triple
    assert cosine_schedule().add_noise(x0.float(), eps.float(), t).dtype == torch.float32


@pytest.mark.parametrize("alpha", [[0.5, 0.6], [1.0, 0.5], [0.5, -0.1], [0.5, 0.5], [float("nan"), 0.5]])
def test_what_is_no_signal_is_refused(alpha):
    with pytest.raises(ValueError, match="signal"):
        NoiseSchedule(torch.tensor(alpha), torch.tensor([0.5, 0.6]))


@pytest.mark.parametrize("sigma", [[0.5, 0.4], [0.0, 0.5], [0.5, 1.1], [float("nan"), 0.5]])
def test_what_is_no_noise_is_refused(sigma):
    with pytest.raises(ValueError, match="noise"):
        NoiseSchedule(torch.tensor([0.6, 0.5]), torch.tensor(sigma))


# --- straight paths --------------------------------------------------------------------------------------------------


@pytest.fixture
def straight() -> NoiseSchedule:
    """Ends in pure noise."""
    return NoiseSchedule.rectified_flow(torch.arange(1, 1001, dtype=torch.float64) / 1000)


def test_straight_paths_share_the_sum(straight, triple):
    x0, eps, t = triple
    torch.testing.assert_close(straight.alpha(t) + straight.sigma(t), torch.ones(5, dtype=torch.float64))
    sigma = straight.sigma(t)[:, None, None, None]
    torch.testing.assert_close(straight.add_noise(x0, eps, t), (1 - sigma) * x0 + sigma * eps)


def test_the_velocity_is_the_slope_of_the_path(straight, triple):
    """dx / dsigma between neighbours, exactly, as the path is straight; and it gives back the noise, at its end too."""
    x0, eps, t = triple
    later = straight.add_noise(x0, eps, t.clamp(max=998) + 1)
    now = straight.add_noise(x0, eps, t.clamp(max=998))
    velocity = (later - now) * 1000
    torch.testing.assert_close(velocity, eps - x0)
    noisy = straight.add_noise(x0, eps, t)
    torch.testing.assert_close(straight.epsilon(Prediction.FLOW, velocity, noisy, t), eps)


def test_conversions_of_straight_paths_invert(straight, triple):
    x0, eps, t = triple[0], triple[1], triple[2].clamp(max=998)
    noisy = straight.add_noise(x0, eps, t)
    torch.testing.assert_close(straight.x0_from_eps(eps, noisy, t), x0)
    torch.testing.assert_close(straight.eps_from_x0(x0, noisy, t), eps)
