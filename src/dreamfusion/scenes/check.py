"""Whether a scene is as its sentence says, from its geometry alone, however it was laid out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dreamfusion.scenes.bodies import TOUCH, Placed, box_of, clearance, overlap
from dreamfusion.scenes.grammar import Relation, Sentence
from dreamfusion.scenes.layout import WAYS

COMMON = 0.02
"""share of the smaller volume above which two things are said to intersect"""
_SUNK = 0.25  # of the lower one's height, what is in something is below its rim
_OVER = 0.5  # of the outline, what is under something is covered
_NEAR = 1.5  # in the longer of the longest sides, farther apart is not beside
_OPEN_DEG = 180.0  # what is around something leaves no larger angle open


@dataclass(frozen=True)
class Verdict:
    """What is so and what is not."""

    right: tuple[bool, ...]
    """of the relations of the sentence, in their order"""
    floating: tuple[int, ...]
    """things, by their place in the scene, that nothing holds up"""
    intersecting: tuple[tuple[int, int], ...]
    """pairs that have more than `COMMON` in common"""
    deepest: float
    """the largest share of a volume that is in another thing"""


def check(sentence: Sentence, placed: Sequence[Placed]) -> Verdict:
    """Measure a scene."""
    common = {pair: _common(placed[pair[0]], placed[pair[1]]) for pair in combinations(range(len(placed)), 2)}
    return Verdict(
        tuple(holds(relation, placed) for relation in sentence.relations),
        tuple(number for number, each in enumerate(placed) if not _held_up(each, placed)),
        tuple(pair for pair, share in common.items() if share > COMMON),
        max(common.values(), default=0.0),
    )


def holds(relation: Relation, placed: Sequence[Placed]) -> bool:
    """Whether all of a thing are in their place beside some of the other."""
    mine = [each for each in placed if each.thing == relation.thing]
    others = [each for each in placed if each.thing == relation.other]
    if not mine or not others:
        return False
    match relation.place:
        case "around":
            return all(_surround(mine[n :: len(others)], other) for n, other in enumerate(others))
        case "on":
            return all(any(_on(each, other, placed) for other in others) for each in mine)
        case "in":
            return all(any(_in(each, other) for other in others) for each in mine)
        case "under":
            return all(any(_under(each, other) for other in others) for each in mine)
        case "beside":
            return all(any(_beside(each, other) for other in others) for each in mine)
        case _:
            return _ahead(mine, others, WAYS[relation.place])


def _common(one: Placed, other: Placed) -> float:
    return overlap(one.solid, other.solid) / min(one.solid.volume(), other.solid.volume())


def _touch(one: Placed, other: Placed) -> bool:
    reach = TOUCH * min(one.size, other.size)
    return one.solid.min_gap(other.solid, 2 * reach) <= reach


def _held_up(each: Placed, placed: Sequence[Placed]) -> bool:
    """It is on the floor, or touches something whose middle or lowest point is lower."""
    low = each.box[0][1]
    if low <= TOUCH * each.size:
        return True
    return any(_touch(each, other) and other.box[0][1] < low for other in placed if other is not each)


def _on(each: Placed, other: Placed, placed: Sequence[Placed]) -> bool:
    """It touches the other, or what is on it, from above: its middle is over the other's outline and box."""
    (low, high), (there_low, there_high) = each.box, other.box
    middle = (low + high) / 2
    over = (middle > there_low)[[0, 2]].all() and (middle < there_high)[[0, 2]].all()
    between = [one for one in placed if one is not each and one.thing == each.thing and _touch(each, one)]
    touches = _touch(each, other) or any(_touch(one, other) for one in between)
    return bool(over and touches and low[1] > there_low[1] + TOUCH * other.size / 2)


def _in(each: Placed, other: Placed) -> bool:
    """Its middle is within the other's box as seen from above, and enough of it below the rim."""
    (low, high), (there_low, there_high) = each.box, other.box
    middle = (low + high) / 2
    within = (middle > there_low)[[0, 2]].all() and (middle < there_high)[[0, 2]].all()
    return bool(within and low[1] < there_high[1] - _SUNK * min(high[1] - low[1], there_high[1] - there_low[1]))


def _under(each: Placed, other: Placed) -> bool:
    """Most of its outline has the other above it: where it stands, or anywhere nearer than a tenth of its size."""
    found = clearance((each,), [other])
    if not found.rest.size:
        return False
    here = np.hypot(found.x[:, None], found.z[None]) < 0.1 * each.size
    return bool((here & (found.within >= _OVER) & (found.rest <= TOUCH * each.size)).any())


def _apart(one: Placed, other: Placed) -> float:
    """Between two boxes as seen from above; below 0 where they meet."""
    (low, high), (there_low, there_high) = one.box, other.box
    return float(np.maximum(low - there_high, there_low - high)[[0, 2]].max())


def _beside(one: Placed, other: Placed) -> bool:
    return 0 <= _apart(one, other) <= _NEAR * max(one.size, other.size)


def _ahead(mine: Sequence[Placed], others: Sequence[Placed], way: tuple[int, int]) -> bool:
    """Their middles differ in that direction more than across it, and their boxes do not meet in it."""
    one, other = np.array(box_of(mine)), np.array(box_of(others))
    step = (one.mean(0) - other.mean(0))[[0, 2]] @ np.array([way, (way[1], way[0])]).T
    gap = (one[0] - other[1] if sum(way) > 0 else other[0] - one[1])[[0, 2]] @ np.abs(way)
    near = TOUCH * max(float(np.ptp(one, axis=0).max()), float(np.ptp(other, axis=0).max()))
    return bool(step[0] > abs(step[1]) and gap >= -near)


def _surround(mine: Sequence[Placed], other: Placed) -> bool:
    """Seen from the other's middle no two neighbours among them leave a half circle open, and none is in it or far."""
    ways = np.array([(np.mean(each.box, axis=0) - np.mean(other.box, axis=0))[[0, 2]] for each in mine])
    angles = np.sort(np.degrees(np.arctan2(ways[:, 0], ways[:, 1])))
    open_deg = np.diff(np.append(angles, angles[0] + 360)).max()
    limit = _OPEN_DEG if len(mine) > 2 else 190.0
    return bool(open_deg <= limit) and all(
        -TOUCH * each.size <= _apart(each, other) <= 2 * max(each.size, other.size) for each in mine
    )
