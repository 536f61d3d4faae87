"""Types of options with the bounds that `check` holds them to. A predicate's docstring goes on after "must"."""

from itertools import pairwise
from typing import Annotated

from annotated_types import Ge, Interval, MultipleOf, Predicate


def ascending(span: tuple[float, float]) -> bool:
    """go from low to high"""
    return span[0] <= span[1]


def nested(cells: tuple[int, ...]) -> bool:
    """have at least one number, each a multiple of the one before"""
    return bool(cells) and not any(fine % coarse for coarse, fine in pairwise(cells))


def rising(places: tuple[float, ...]) -> bool:
    """grow from each to the next"""
    return all(low < high for low, high in pairwise(places))


RANGE = Predicate(ascending)

Amount = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Count = Annotated[int, Ge(1)]
Levels = Layers = Annotated[int, Interval(ge=1, le=64)]
Width = Annotated[int, Interval(ge=1, le=8192)]
Samples = Annotated[int, Interval(ge=2, le=4096)]
Threads = Annotated[int, Interval(ge=0, le=4096)]
Seed = Annotated[int, Interval(ge=0, le=2**63 - 1)]
FrameSize = Annotated[int, Interval(ge=16, le=4096), MultipleOf(2)]
"""pixels; encoders of videos take even ones"""
Cells = Annotated[tuple[Count, ...], Predicate(nested)]
Places = Annotated[tuple[Fraction, ...], Predicate(rising)]
"""fractions of the run"""
Colour = tuple[Fraction, Fraction, Fraction]
Span = Annotated[tuple[float, float], RANGE]
Distance = Annotated[tuple[Annotated[float, Interval(gt=0)], Annotated[float, Interval(gt=0)]], RANGE]
Angle = Annotated[float, Interval(gt=0, lt=180)]
Memory = Annotated[float, Interval(ge=0, lt=1)]
"""decay of a running mean"""
