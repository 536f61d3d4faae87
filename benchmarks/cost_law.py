"""What a step should cost, as a formula, and how well measured times follow it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CostLaw:
    """milliseconds = a + b f(x)."""

    title: str
    unit: str
    """of x"""
    values: tuple[float, ...]
    """of x, or of what x is read from, where to measure"""
    work: str
    """f(x) in words"""
    f: Callable[[float], float]


LAWS = {
    "size": CostLaw(
        "picture size", "pixels per side", (32, 64, 96, 128, 192, 256), "(size / 64)²", lambda x: (x / 64) ** 2
    ),
    "samples": CostLaw("samples per ray", "samples", (16, 32, 64, 96, 128, 192, 256), "samples / 64", lambda x: x / 64),
    "views": CostLaw("views per step", "views", (1, 2, 4, 8), "views", lambda x: x),
    "occupied": CostLaw(
        "occupied space: solid balls", "share of the cube", (0.2, 0.35, 0.5, 0.65, 0.8, 0.95), "share", lambda x: x
    ),
    "threads": CostLaw("threads", "threads", (), "1 / threads", lambda x: 1 / x),
}
"""Linear in the rays, in the samples on each, and in the space that may hold matter, each beside what a step costs
anyway (merged grids, optimiser, overhead); and Amdahl's law. Values for "occupied" are radii of the balls, in the
scene's; for "threads" all numbers up to the machine's cores."""


@dataclass(frozen=True)
class Fit:
    """The law's two numbers in milliseconds, and the largest deviation, relative to the measured time.

    Two points always lie on the line: then there is no deviation to speak of.
    """

    a: float
    b: float
    deviation: float | None


def fitted(law: CostLaw, x: Sequence[float], milliseconds: Sequence[float]) -> Fit:
    """Least squares of the relative deviations, so that short times count as much as long ones."""
    y = np.asarray(milliseconds)
    rows = np.stack([np.ones_like(y), [law.f(value) for value in x]], axis=1)
    a, b = np.linalg.lstsq(rows / y[:, None], np.ones_like(y), rcond=None)[0]
    deviation = round(float(np.abs(rows @ [a, b] / y - 1).max()), 4) if len(y) > 2 else None
    return Fit(round(float(a), 3), round(float(b), 3), deviation)
