"""The density at which the surface of a scene is: where the mesh agrees best with the volume rendering."""

import math
from dataclasses import dataclass

from dreamfusion.errors import NoSurface
from dreamfusion.mesh.agreement import Shape, Views, shape_agreement
from dreamfusion.mesh.extract import surface
from dreamfusion.mesh.sample import DensityGrid

COARSE = 72
"""points per side of the lattice on which levels are compared"""
_FIRST, _HALVINGS = 8, 3  # levels tried in equal ratios; how often the ratio about the best one is halved
_DEPTH_COUNTS = 0.5  # so much does a depth error of one radius count, beside a silhouette that is missed altogether
_FOG = 0.5  # a surface that agrees less than this is none


@dataclass(frozen=True)
class LevelCandidate(Shape):
    """A level and how its surface agrees."""

    level: float

    @property
    def score(self) -> float:
        """The more, the better; at most 1."""
        return self.silhouette_iou - _DEPTH_COUNTS * self.depth_error


def best_level(curve: tuple[LevelCandidate, ...]) -> float:
    """The level of the best agreement; the lowest of several."""
    return max(curve, key=lambda tried: tried.score).level


def level_curve(grid: DensityGrid, views: Views, radius: float) -> tuple[LevelCandidate, ...]:
    """Levels, ascending, with the agreement of their surfaces in a (coarse) lattice; denser about the best.

    A constant density needs ln 2 / (2 radius) to be opaque along a whole diameter: no lower level can be the surface.
    Raises NoSurface for scenes without a surface: empty ones, and fog.
    """
    least, most = math.log(2) / (2 * radius), float(grid.density.max())
    _require_matter(views, most > least)
    ratio = (most / least) ** (1 / _FIRST)

    def tried(place: float) -> LevelCandidate:
        level = least * ratio**place
        shape = shape_agreement(surface(grid, level), views, radius)
        return LevelCandidate(shape.silhouette_iou, shape.depth_error, level)

    known = {place: tried(place) for place in map(float, range(_FIRST))}
    for halving in range(1, _HALVINGS + 1):
        best = max(known, key=lambda place: known[place].score)
        near = (best - 0.5**halving, best + 0.5**halving)
        known |= {place: tried(place) for place in near if 0 <= place < _FIRST and place not in known}
    curve = tuple(known[place] for place in sorted(known))
    if max(entry.silhouette_iou for entry in curve) < _FOG:
        raise NoSurface(_fog(views))
    return curve


def _require_matter(views: Views, dense: bool) -> None:
    opacity = float(views.picture.opacity.max())
    if opacity < 0.05:
        raise NoSurface(
            "empty scene: nothing in it can be seen: train longer, with another --seed or --prompt, or with a lower "
            "--regularise.opacity"
        )
    if not dense or not bool(views.opaque.any()):
        raise NoSurface(_fog(views))


def _fog(views: Views) -> str:
    return (
        f"fog: no surface looks like this scene, whose densest pixel has an opacity of "
        f"{float(views.picture.opacity.max()):.2f}: train longer (--steps), or with a higher --regularise.entropy"
    )
