"""The algebra of histograms along one ray, one bin at a time, on lists of numbers."""

from itertools import pairwise


def inverse_cdf(t, mass, share):
    """Where a share of the mass lies before."""
    left = share * sum(mass)
    for low, high, here in zip(t, t[1:], mass, strict=False):
        if left < here:
            return low + (high - low) * left / here
        left -= here
    return t[-1]


def resampled(t, mass, bins, offset):
    centres = [inverse_cdf(t, mass, (i + offset) / bins) for i in range(bins)]
    inner = [(a + b) / 2 for a, b in pairwise(centres)]
    first, last = 2 * centres[0] - inner[0], 2 * centres[-1] - inner[-1]
    return [max(first, t[0]), *inner, min(last, t[-1])]


def density(t, weights, place):
    """Weight per length of the bin that holds the place; 0 outside."""
    for low, high, weight in zip(t, t[1:], weights, strict=False):
        if low <= place < high:
            return weight / (high - low)
    return 0.0


def greatest_nearby(t, weights, place, by, steps=400):
    """The greatest density up to `by` away, by looking at many places."""
    return max(density(t, weights, place + by * (2 * k / steps - 1)) for k in range(steps + 1))


def outer(t, other, weights):
    """Per bin of t, the weights of all bins of the other histogram that share some length with it."""
    return [
        sum(w for a, b, w in zip(other, other[1:], weights, strict=False) if a < high and b > low)
        for low, high in pairwise(t)
    ]


def interlevel(t, weights, proposals):
    """The paper's equation 13 for one ray; `proposals` are pairs of edges and weights."""
    total = 0.0
    for other, theirs in proposals:
        for weight, bound in zip(weights, outer(t, other, theirs), strict=True):
            total += max(0.0, weight - bound) ** 2 / (weight + 1.2e-7)
    return total
