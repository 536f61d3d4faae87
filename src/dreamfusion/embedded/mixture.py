"""The best estimate of a clean picture from a noisy one, where the clean one is about one of several guesses.

Each guess is a Gaussian about a picture, with a spread of its own in every pixel, and may hold amounts that nobody
knows and that enter linearly: the colour of the background, the parts of the light. Of a mixture of such Gaussians the
posterior mean is known in closed form: the guesses weighed by how likely the noisy picture is under each, the amounts
by least squares, the pixels as Wiener has it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Guesses:
    """k guesses of each of b pictures: x = mean + sum_j amount_j parts_j + spread noise, values in [-1, 1]."""

    mean: Float[Tensor, "b k c h w"]
    spread: Float[Tensor, "b k h w"]
    """standard deviation of each pixel, alike in its channels"""
    log_prior: Float[Tensor, "b k"]
    """up to a constant; -inf: not among the guesses"""
    parts: Float[Tensor, "b k q c h w"]
    """q = 0: everything is known"""
    width: Float[Tensor, " q"]
    """standard deviations of the amounts, whose means are 0"""


def posterior_mean(
    noisy: Float[Tensor, "b c h w"],
    alpha: Float[Tensor, " b"],
    sigma: Float[Tensor, " b"],
    guesses: Guesses,
    weights: Float[Tensor, "b k"],
) -> Float[Tensor, "b c h w"]:
    """E[x | alpha x + sigma noise = noisy], if the guesses are true with these probabilities.

    With those of `log_evidence` (its softmax) it is the best estimate.
    """
    _, variance, amount, _ = _fit(noisy, alpha, sigma, guesses)
    picture = guesses.mean + (amount[..., None, None, None] * guesses.parts).sum(2)
    missed = noisy[:, None] - alpha[:, None, None, None, None] * picture
    wiener = alpha[:, None, None, None, None] * guesses.spread.square()[:, :, None] / variance
    return (weights[..., None, None, None] * (picture + wiener * missed)).sum(1)


def log_evidence(
    noisy: Float[Tensor, "b c h w"], alpha: Float[Tensor, " b"], sigma: Float[Tensor, " b"], guesses: Guesses
) -> Float[Tensor, "b k"]:
    """How likely each guess is after the noisy picture was seen, up to a constant."""
    missed, variance, _, gain = _fit(noisy, alpha, sigma, guesses)
    unlike = (missed.square() / variance + variance.log()).sum((2, 3, 4))
    return guesses.log_prior - 0.5 * unlike + gain


def _fit(
    noisy: Float[Tensor, "b c h w"], alpha: Float[Tensor, " b"], sigma: Float[Tensor, " b"], guesses: Guesses
) -> tuple[Float[Tensor, "b k c h w"], Float[Tensor, "b k 1 h w"], Float[Tensor, "b k q"], Float[Tensor, "b k"]]:
    """What the guesses miss, its variance, the means of their amounts, and what these add to the log evidence."""
    alpha = alpha[:, None, None, None, None]
    variance = sigma[:, None, None, None, None].square() + (alpha * guesses.spread[:, :, None]).square()
    missed = noisy[:, None] - alpha * guesses.mean
    if not len(guesses.width):
        return missed, variance, missed.new_zeros(*guesses.log_prior.shape, 0), torch.zeros_like(guesses.log_prior)
    parts = alpha[..., 0] * guesses.parts.flatten(3)
    scaled = parts / variance.expand_as(missed).flatten(2)[:, :, None]
    precision = scaled @ parts.mT + torch.diag(guesses.width**-2)
    pull = (scaled @ missed.flatten(2)[..., None])[..., 0]
    root = torch.linalg.cholesky(precision)
    amount = torch.cholesky_solve(pull[..., None], root)[..., 0]
    volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + guesses.width.log().sum()
    return missed, variance, amount, 0.5 * (pull * amount).sum(-1) - volume
