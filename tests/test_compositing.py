import math

import pytest
import torch

from dreamfusion.nerf.compositing import composed, composite, learning

pytestmark = pytest.mark.processor


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_weights_of_two_bins_by_hand():
    w = composite(torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 1.5, 1.7]]))
    assert torch.allclose(w, torch.tensor([[1 - math.exp(-1), math.exp(-1) * (1 - math.exp(-1))]]))


def test_weights_are_shares_and_sum_to_the_opacity():
    t = torch.rand(50, 21, generator=seeded()).sort(-1).values
    density = 30 * torch.rand(50, 20, generator=seeded(1)) ** 3
    w = composite(density, t)
    assert (w >= 0).all()
    assert (w <= 1).all()
    assert torch.allclose(w.sum(-1), 1 - torch.exp(-(density * t.diff(dim=-1)).sum(-1)), atol=1e-6)


def test_weights_do_not_depend_on_how_a_homogeneous_ray_is_cut():
    coarse, fine = torch.linspace(0, 1, 5)[None], torch.linspace(0, 1, 21)[None]
    density = torch.tensor([[1.0, 0.0, 8.0, 3.0]])
    w = composite(density.repeat_interleave(5, dim=-1), fine).view(1, 4, 5).sum(-1)
    assert torch.allclose(composite(density, coarse), w, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e4, 1e20, 3e38])
def test_weights_and_gradients_are_finite_for_any_density(value):
    density = torch.full((2, 8), value, requires_grad=True)
    t = torch.stack([torch.linspace(0, 16, 9), torch.zeros(9)])  # the second ray has no length
    w = composite(density, t)
    (w * torch.arange(8.0)).sum().backward()
    assert w.isfinite().all()
    assert density.grad.isfinite().all()
    assert torch.allclose(w.sum(-1), torch.tensor([1.0 if value > 1 else 0.0, 0.0]))


def test_composite_passes_gradcheck():
    density = (3 * torch.rand(2, 5, generator=seeded(), dtype=torch.float64)).requires_grad_()
    t = torch.linspace(0, 1, 6, dtype=torch.float64).expand(2, 6)
    assert torch.autograd.gradcheck(lambda d: composite(d, t), (density,))


def autograd_weights(density, t):
    """The formula, differentiated by torch."""
    depth = density * t.diff(dim=-1)
    before = torch.nn.functional.pad(depth[:, :-1].cumsum(-1), (1, 0))
    return torch.exp(-before) * (1 - torch.exp(-depth))


def test_the_gradient_in_closed_form_is_that_of_the_formula():
    t = torch.rand(7, 12, generator=seeded(), dtype=torch.float64).sort(-1).values
    density = (20 * torch.rand(7, 11, generator=seeded(1), dtype=torch.float64) ** 2).requires_grad_()
    towards = torch.randn(7, 11, generator=seeded(2), dtype=torch.float64)
    (ours,) = torch.autograd.grad((composite(density, t) * towards).sum(), density)
    (theirs,) = torch.autograd.grad((autograd_weights(density, t) * towards).sum(), density)
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_only_the_densities_that_are_named_learn():
    t = torch.rand(3, 6, generator=seeded(), dtype=torch.float64).sort(-1).values
    density = 10 * torch.rand(3, 5, generator=seeded(1), dtype=torch.float64)
    towards = torch.randn(3, 5, generator=seeded(2), dtype=torch.float64)
    index = torch.tensor([14, 2, 7])
    few = density.flatten()[index].requires_grad_()
    weights = learning(composed(density, t), index, few)
    assert torch.allclose(weights, autograd_weights(density, t))
    (gradient,) = torch.autograd.grad((weights * towards).sum(), few)
    whole = density.clone().requires_grad_()
    (expected,) = torch.autograd.grad((autograd_weights(whole, t) * towards).sum(), whole)
    assert torch.allclose(gradient, expected.flatten()[index])


def test_what_nothing_hides_behind_has_no_gradient_at_all():
    """Not even rounding noise, which Adam would blow up to a full step."""
    density = torch.tensor([[5.0, 1e4, 3.0, 0.0, 2.0]], requires_grad=True)
    weights = composite(density, torch.linspace(0, 1, 6)[None])
    (gradient,) = torch.autograd.grad((weights * torch.tensor([0.3, -0.7, 0.2, 0.9, 0.1])).sum(), density)
    assert gradient[0, 0] != 0
    assert gradient[0, 2:].abs().max() < 1e-30
