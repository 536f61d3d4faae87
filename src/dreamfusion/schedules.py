"""Numbers that change during a run: pure functions of its progress, which goes from 0 (first step) to 1 (end)."""

import math
from bisect import bisect_right
from dataclasses import dataclass

from dreamfusion.errors import UserError


@dataclass(frozen=True)
class Constant:
    """The same value all along."""

    value: float

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Ramp:
    """`start` up to progress `begin`, `end` from `until` on, a straight line between; a jump if begin == until."""

    start: float
    end: float
    begin: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.begin <= self.until <= 1.0:
            raise UserError(
                f"a ramp needs 0 <= begin <= until <= 1 (fractions of the run), not {self.begin} and {self.until}"
            )

    def __call__(self, progress: float) -> float:
        if progress >= self.until:
            return self.end
        if progress <= self.begin:
            return self.start
        share = (progress - self.begin) / (self.until - self.begin)
        return (1.0 - share) * self.start + share * self.end


@dataclass(frozen=True)
class Geometric:
    """As `Ramp`, with equal factors in equal times: `start ** (1 - share) * end ** share`. Both are positive."""

    start: float
    end: float
    begin: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        if not (self.start > 0 and self.end > 0):
            raise UserError(f"a geometric schedule needs positive values, not {self.start} and {self.end}")
        Ramp(self.start, self.end, self.begin, self.until)

    def __call__(self, progress: float) -> float:
        share = Ramp(0.0, 1.0, self.begin, self.until)(progress)
        return self.start ** (1.0 - share) * self.end**share


@dataclass(frozen=True)
class Steps:
    """`values[i]` from progress `boundaries[i - 1]` (included) to `boundaries[i]` (excluded).

    The first value starts at 0, the last goes on to the end.
    """

    values: tuple[float, ...]
    boundaries: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1:
            raise UserError(
                f"steps need one value more than boundaries, not {len(self.values)} and {len(self.boundaries)}"
            )
        if list(self.boundaries) != sorted(self.boundaries):
            raise UserError(f"the boundaries of steps must grow, not {self.boundaries}")

    def __call__(self, progress: float) -> float:
        return self.values[bisect_right(self.boundaries, progress)]


@dataclass(frozen=True)
class WarmupCosine:
    """A straight line from `start` to `peak` until progress `until`, then half a cosine wave down to `end` at 1."""

    start: float
    peak: float
    end: float
    until: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.until < 1.0:
            raise UserError(f"a warm-up ends before the run does, at a fraction from 0 to below 1, not at {self.until}")

    def __call__(self, progress: float) -> float:
        if progress < self.until:
            return self.start + (self.peak - self.start) * progress / self.until
        share = (progress - self.until) / (1.0 - self.until)
        return self.end + 0.5 * (self.peak - self.end) * (1.0 + math.cos(math.pi * share))


Schedule = Constant | Ramp | Geometric | Steps | WarmupCosine
