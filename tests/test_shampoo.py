"""Shampoo against a dense reference, and its properties."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dreamfusion.config import presets
from dreamfusion.shampoo import Shampoo, as_matrix, inverse_root
from reference.dense_shampoo import DenseShampoo

pytestmark = pytest.mark.processor

PAPER = presets.PAPER.optimise


def changed(config=PAPER, **changes):
    """The configuration with other settings of Shampoo's own."""
    return replace(config, shampoo=replace(config.shampoo, **changes))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def quadratic(rows=6, columns=4):
    """A badly scaled quadratic in a matrix: its start, and its gradient."""
    generator = seeded(3)
    left = torch.diag(10.0 ** torch.linspace(-2, 2, rows, dtype=torch.float64))
    start = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return start, lambda w: left @ w


def descended(start, slope, options, steps, rate=1e-2):
    weights = nn.Parameter(start.clone())
    optimiser = Shampoo([{"params": [weights], "lr": rate}], options)
    for _ in range(steps):
        weights.grad = slope(weights.detach())
        optimiser.step()
    return weights.detach(), optimiser


VARIANTS = {
    "paper": PAPER,
    "averaged": changed(averaged=True),
    "plain momentum": changed(nesterov=False),
    "shampoo's own exponent": replace(changed(exponent=4.0), betas=(0.5, 0.99)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_it_is_the_dense_reference_on_a_quadratic(name):
    config, own = VARIANTS[name], VARIANTS[name].shampoo
    start, slope = quadratic()
    dense = DenseShampoo(config.betas, config.epsilon, own.exponent, own.averaged, own.nesterov)
    expected = start.numpy()
    for _ in range(12):
        expected = dense.step(expected, slope(torch.from_numpy(expected)).numpy(), 1e-2)
    found, _ = descended(start, slope, config, 12)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-9)


def test_it_goes_down_where_scales_differ_by_ten_thousand():
    start, slope = quadratic()
    found, _ = descended(start, slope, changed(exponent=4.0, averaged=True), 100, rate=2e-2)
    assert found.abs().mean() < 0.1 * start.abs().mean()


def test_blocks_are_preconditioned_each_by_itself():
    start, slope = quadratic(6, 4)
    options = replace(changed(block=3), betas=(0.0, 0.9))
    found, _ = descended(start, slope, options, 1)
    parts = [
        descended(block, lambda w, here=gradient: here, options, 1)[0] - block
        for rows, gradients in zip(start.split(3), slope(start).split(3), strict=True)
        for block, gradient in zip(rows.split(3, dim=1), gradients.split(3, dim=1), strict=True)
    ]
    # Alone, each block is grafted to its own size; together they share the graft of the whole.
    moved = [block for rows in (found - start).split(3) for block in rows.split(3, dim=1)]
    for ours, theirs in zip(moved, parts, strict=True):
        assert torch.allclose(ours / ours.norm(), theirs / theirs.norm())
    assert (found - start).norm() == pytest.approx(1e-2 * 24**0.5)


def test_the_step_has_the_length_of_the_graft_whatever_the_gradient():
    start, slope = quadratic()
    for scale in (1e-12, 1.0, 1e6):
        found, _ = descended(start, lambda w, scale=scale: scale * slope(w), replace(PAPER, betas=(0.0, 0.9)), 1)
        assert (found - start).norm() == pytest.approx(1e-2 * start.numel() ** 0.5)


def test_vectors_numbers_and_zero_gradients():
    for shape in ((5,), (), (2, 3, 4)):
        parameter = nn.Parameter(torch.randn(shape, generator=seeded()))
        before = parameter.detach().clone()
        optimiser = Shampoo([{"params": [parameter], "lr": 0.1}], PAPER)
        parameter.grad = torch.zeros(shape)
        optimiser.step()
        assert torch.equal(parameter, before)
        parameter.grad = torch.ones(shape)
        optimiser.step()
        assert (parameter < before).all()
    assert as_matrix(torch.zeros(2, 3, 4)).shape == (2, 12)


def test_roots_are_renewed_every_so_many_steps_only():
    start, slope = quadratic()
    _, optimiser = descended(start, slope, changed(every=3), 2)
    (state,) = optimiser.state.values()
    root = inverse_root(state["left.0"], PAPER.shampoo.exponent, PAPER.epsilon)
    assert not torch.allclose(state["left.0.root"], root)
    _, optimiser = descended(start, slope, changed(every=3), 4)
    (state,) = optimiser.state.values()
    assert torch.allclose(state["left.0.root"], inverse_root(state["left.0"], PAPER.shampoo.exponent, PAPER.epsilon))


def test_inverse_root_inverts():
    noise = torch.randn(5, 5, generator=seeded(), dtype=torch.float64)
    matrix = 1e-9 * noise @ noise.T
    root = inverse_root(matrix, 2.0, 1e-12)
    assert torch.allclose(root @ root @ matrix, torch.eye(5, dtype=torch.float64), atol=1e-6)
    assert torch.equal(inverse_root(torch.zeros(3, 3), 2.0, 1e-6), torch.zeros(3, 3))


def test_state_is_tensors_that_continue_exactly():
    start, slope = quadratic()
    whole, _ = descended(start, slope, PAPER, 6)
    half, optimiser = descended(start, slope, PAPER, 3)
    again = nn.Parameter(half.clone())
    second = Shampoo([{"params": [again], "lr": 1e-2}], PAPER)
    saved = optimiser.state_dict()
    assert all(isinstance(value, torch.Tensor) for state in saved["state"].values() for value in state.values())
    second.load_state_dict(saved)
    for _ in range(3):
        again.grad = slope(again.detach())
        second.step()
    assert torch.equal(again, whole)


def test_a_closure_is_refused():
    optimiser = Shampoo([{"params": [nn.Parameter(torch.zeros(2))], "lr": 0.1}], PAPER)
    with pytest.raises(ValueError, match="no loss"):
        optimiser.step(lambda: 0.0)
