import math

import pytest
import torch

from dreamfusion.nerf.fields import Gaussians
from dreamfusion.nerf.fields.encoding import encoded_size, integrated, isotropic, positional

pytestmark = pytest.mark.processor


def places(count, seed=0):
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def test_zero_variance_is_the_plain_encoding():
    x = places(50)
    assert torch.equal(integrated(Gaussians(mean=x, var=torch.zeros_like(x)), 8), positional(x, 8))


def test_plain_encoding_lists_sines_then_cosines_level_by_level():
    x = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64)
    expected = [f(2**level * v) for f in (math.sin, math.cos) for level in range(3) for v in (0.1, 0.2, 0.3)]
    assert torch.allclose(positional(x, 3)[0], torch.tensor(expected, dtype=torch.float64))
    assert positional(x, 3).shape[1] == encoded_size(3)


def test_integrated_encoding_is_the_mean_under_the_gaussian():
    generator = torch.Generator().manual_seed(1)
    mean, var = places(4), torch.tensor([[0.04, 0.01, 0.0025]], dtype=torch.float64).expand(4, 3)
    draws = 40_000
    noise = torch.randn(draws, 4, 3, generator=generator, dtype=torch.float64)
    encoded = positional((mean + noise * var.sqrt()).flatten(0, 1), 5).view(draws, 4, -1)
    error = integrated(Gaussians(mean=mean, var=var), 5) - encoded.mean(0)
    # A feature is at most 1, so the mean of the draws has a standard error of at most 1/sqrt(draws).
    assert error.abs().max() < 5 / math.sqrt(draws)


def test_isotropic_replaces_the_covariance_and_kills_high_frequencies():
    x = places(20)
    blurred = isotropic(x, 0.05)
    assert torch.equal(blurred.mean, x)
    assert (blurred.var == 0.05).all()
    fine = integrated(blurred, 8).view(20, 2, 8, 3)[:, :, 5:]
    assert fine.abs().max() < math.exp(-0.5 * 0.05 * 32**2) * 1.001
