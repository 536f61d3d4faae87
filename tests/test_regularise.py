import math

import pytest
import torch

from dreamfusion.nerf import regularise
from dreamfusion.nerf.render import RaySamples, Render

pytestmark = pytest.mark.processor


def a_render(weights, t, normal=None, direction=None):
    """One pixel per ray; all samples are packed."""
    rays, samples = weights.shape
    opacity = weights.sum(-1)
    along = RaySamples(
        rays=rays,
        weights=weights,
        t=t,
        row=torch.arange(rays).repeat_interleave(samples),
        weight=weights.flatten(),
        direction=torch.zeros(rays * samples, 3) if direction is None else direction,
        normal=normal,
    )
    return Render(torch.zeros(rays, 1, 1, 3), opacity.view(-1, 1, 1), torch.zeros(rays, 1, 1), None, along)


def of_opacity(*values):
    weights = torch.tensor(values)[:, None].requires_grad_()
    return a_render(weights, torch.tensor([[0.0, 1.0]]).expand(len(values), 2)), weights


def test_opacity_is_the_papers_formula():
    picture, _ = of_opacity(0.0, 1.0)
    assert torch.allclose(regularise.opacity(picture), torch.tensor((0.1 + math.sqrt(1.01)) / 2))


def test_entropy_is_that_of_a_coin():
    for p in (0.5, 0.1):
        expected = -(p * math.log(p) + (1 - p) * math.log(1 - p))
        assert torch.allclose(regularise.entropy(of_opacity(p)[0]), torch.tensor(expected))
    sure, weights = of_opacity(0.0, 1.0, 1.0 + 1e-6)
    value = regularise.entropy(sure)
    value.backward()
    assert value < 1e-3
    assert weights.grad.isfinite().all()


def test_orientation_counts_what_faces_away_and_moves_only_normals():
    weights = torch.tensor([[0.5, 0.25], [0.1, 0.0]], requires_grad=True)
    away, towards, aslant = [0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.0, 0.8, 0.6]
    normal = torch.tensor([away, towards, aslant, away], requires_grad=True)
    direction = torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3)
    render = a_render(weights, torch.tensor([[0.0, 1.0, 2.0]]).expand(2, 3), normal, direction)
    value = regularise.orientation(render)
    assert torch.allclose(value, torch.tensor((0.5 + 0.1 * 0.6**2) / 2))
    value.backward()
    assert weights.grad is None
    assert normal.grad[1].abs().max() == 0
    assert normal.grad[0, 2] > 0


def test_orientation_without_normals_says_so():
    with pytest.raises(ValueError, match="normals"):
        regularise.orientation(of_opacity(0.5)[0])


def test_distortion_is_the_double_sum():
    generator = torch.Generator().manual_seed(0)
    w = torch.rand(3, 7, generator=generator, dtype=torch.float64) / 7
    t = torch.rand(3, 8, generator=generator, dtype=torch.float64).sort(-1).values + 3
    middle = (t[:, 1:] + t[:, :-1]) / 2
    pairs = (w[:, :, None] * w[:, None, :] * (middle[:, :, None] - middle[:, None, :]).abs()).sum((1, 2))
    expected = (pairs + (w**2 * (t[:, 1:] - t[:, :-1])).sum(-1) / 3).mean()
    assert torch.allclose(regularise.distortion(a_render(w, t)), expected)


def test_total_variation_of_a_ramp_and_its_invariance():
    ramp = torch.arange(5.0)[:, None, None].expand(5, 5, 5)[None]
    assert torch.allclose(regularise.total_variation(ramp * 0.5), torch.tensor(0.25))
    noise = torch.randn(2, 5, 5, 5, generator=torch.Generator().manual_seed(0))
    value = regularise.total_variation(noise)
    assert torch.allclose(value, regularise.total_variation(noise + 3.0), atol=1e-5)
    assert torch.allclose(value, regularise.total_variation(noise.transpose(1, 3)), atol=1e-5)
