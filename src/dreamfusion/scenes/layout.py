"""Where the things of a sentence stand: what lies on, in or under something goes with it, and such groups side by side.

Everything stands on the floor or is let down, from above, onto what carries it. Nothing is simulated: a thing keeps
upright, and is put where most of its base is held up.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from manifold3d import Manifold

from dreamfusion.errors import UserError
from dreamfusion.scenes.bodies import TOUCH, Drop, Placed, Unit, box_of, clearance, drop, moved, overlap, settled
from dreamfusion.scenes.grammar import Place, Relation, Sentence

WAYS: Mapping[Place, tuple[int, int]] = {"right": (1, 0), "left": (-1, 0), "front": (0, 1), "behind": (0, -1)}
"""Place words that mean a direction, in x and z"""
_TURNED: Mapping[Place, Place] = {"left": "right", "right": "left", "front": "behind", "behind": "front"}
_SMALLER = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3)  # sizes at which it is tried whether a thing fits in or under another
_GAP = 0.06  # between neighbours, in the longest side of the smaller one
_COVERED = 0.6  # of the outline of what is under something
_SUNK = 0.3  # so much of its height, or of the other's, is what lies in something below the rim at least
_CARRIES = 0.7  # of the carrier's sides what is beside something on it may have
_RING = 4  # of one thing that is around another
_TRIES = 12


def layout(sentence: Sentence, solids: Sequence[Manifold]) -> tuple[tuple[Placed, ...], tuple[str, ...]]:
    """All things of a sentence in their places, and what of it could not be done as said.

    `solids` are the things in metres, each standing on the floor over the origin, its front along +z. Raises UserError
    for a sentence in which things would have to carry each other.
    """
    work = _Layout(sentence, solids)
    return work.all_placed(), tuple(dict.fromkeys(work.notes))


class _Layout:
    def __init__(self, sentence: Sentence, solids: Sequence[Manifold]) -> None:
        self._things, self._relations, self._solids = sentence.things, sentence.relations, solids
        self._host = _hosts(sentence, solids)
        self.notes = list[str]()

    def all_placed(self) -> tuple[Placed, ...]:
        groups, left = dict[int, Unit](), [number for number in range(len(self._things)) if number not in self._host]
        while left:
            number = next((each for each in left if self._link(each, groups)), left[0])
            left.remove(number)
            groups[number] = self._joined(number, _row(self._units(number)), groups)
        return tuple(each for group in groups.values() for each in group)

    def _units(self, number: int) -> list[Unit]:
        """All of a thing, each with what it carries, standing on the floor over the origin."""
        ring = self._host.get(number, Relation("on", 0, 0)).place == "around" and self._things[number].count == 1
        if ring:
            self.notes.append(f"{self._name(number)} around something: {_RING} of it")
        units: list[Unit] = [(Placed(number, self._solids[number]),)] * (_RING if ring else self._things[number].count)
        for child in self._children(number):
            mine = self._units(child)
            for place in range(len(units)):
                units[place] = self._carrying(units[place], self._host[child], mine[place :: len(units)])
        return units

    def _children(self, number: int) -> list[int]:
        return [child for child, relation in self._host.items() if relation.other == number]

    def _carrying(self, unit: Unit, relation: Relation, children: list[Unit]) -> Unit:
        if not children:
            return unit
        match relation.place:
            case "around":
                return _ringed(unit, children)
            case "in":
                return self._fitted(unit, relation, children, self._one_in)
            case "under":
                return self._fitted(unit, relation, children, self._one_under)
            case _:
                for child in children:
                    unit = self._one_on(unit, relation, child)
                return unit

    def _fitted(
        self, unit: Unit, relation: Relation, children: list[Unit], put: Callable[[Unit, Unit], Unit | None]
    ) -> Unit:
        """The unit with all children, as large as they may be; on it, or beside it, where they do not fit at all."""
        for factor in _SMALLER:
            whole: Unit | None = unit
            for child in children:
                whole = whole and put(whole, tuple(each.scaled(factor) for each in child))
            if whole is not None:
                if factor < 1:
                    self.notes.append(
                        f"{self._name(relation.thing)}: {factor:g} times as large, to fit {self._told(relation)}"
                    )
                return whole
        self.notes.append(f"no room for {self._name(relation.thing)} {self._told(relation)}")
        for child in children:
            unit = self._one_on(unit, relation, child) if relation.place == "in" else _beside(unit, child)
        return unit

    def _one_on(self, unit: Unit, relation: Relation, child: Unit) -> Unit:
        found = drop(child, unit[:1])
        score = found.contact - 1.5 * found.aside - 0.3 * _from_middle(found, child, unit)
        held = (found.within > 0.3) & (found.rest > TOUCH * unit[0].size / 2)  # not on the floor beside it
        free = held & ~_meets(found, child, unit[1:])
        wanted = free & self._as_said(found, relation.thing, child, unit)
        if not wanted.any() and (relation.place == "on" or not free.any()):
            self.notes.append(f"no free place for all of {self._name(relation.thing)} {self._told(relation)}")
        if not free.any():  # on top of what is there already
            found = drop(child, unit)
            score = found.contact - 1.5 * found.aside
            free = (found.within > 0.3) & (found.rest > TOUCH * unit[0].size / 2)
        if not free.any():
            return _beside(unit, child)
        i, k = _best(score, wanted if wanted.any() else free)
        there = moved(child, found.x[i], found.rest[i, k], found.z[k])
        return unit + settled(there, unit, 0.05 * child[0].size)

    def _as_said(self, found: Drop, number: int, child: Unit, unit: Unit) -> Bool[np.ndarray, "i k"]:
        """Where it is as far as its place beside others on the same carrier goes."""
        low, high = box_of(child)
        fine = np.ones(found.rest.shape, bool)
        for relation in self._relations:
            if relation.place not in (*WAYS, "beside") or number not in (relation.thing, relation.other):
                continue
            mine = relation.thing == number
            there = [each for each in unit[1:] if each.thing == (relation.other if mine else relation.thing)]
            if there and relation.place != "beside":
                way = np.array(WAYS[relation.place]) * (1 if mine else -1)
                middle = (low + high) / 2
                from_x, from_z = (np.add(found.x, middle[0])[:, None], np.add(found.z, middle[2])[None])
                at = np.mean(box_of(there), axis=0)
                dx, dz = from_x - at[0], from_z - at[2]
                along, across = dx * way[0] + dz * way[1], np.abs(dx * way[1]) + np.abs(dz * way[0])
                fine &= (along > 0) & (across < along)
        return fine

    def _one_in(self, unit: Unit, child: Unit) -> Unit | None:
        found = drop(child, unit)
        (low, high), (base_low, base_high) = box_of(child), unit[0].box
        sunk = _SUNK * min(high[1] - low[1], base_high[1] - base_low[1])
        fits = (found.within > 0.95) & (found.rest <= base_high[1] - sunk)
        if not fits.any():
            return None
        i, k = _best(-found.rest / base_high[1] - 0.2 * _from_middle(found, child, unit), fits)
        there = moved(child, found.x[i], found.rest[i, k], found.z[k])
        return unit + settled(there, unit, 0.05 * child[0].size)

    def _one_under(self, unit: Unit, child: Unit) -> Unit | None:
        found = clearance(child, unit[:1])
        fits = (found.rest <= 0) & (found.within > _COVERED) & ~_meets(found, child, unit[1:])
        nearest = np.where(fits, _from_middle(found, child, unit), np.inf)
        for place in np.argsort(nearest, axis=None)[: min(_TRIES, int(fits.sum()))]:
            i, k = divmod(int(place), fits.shape[1])
            there = moved(child, found.x[i], 0.0, found.z[k])
            if not any(overlap(one.solid, other.solid) for one in there for other in unit):
                return unit + there
        return None

    def _link(self, number: int, groups: Mapping[int, Unit]) -> Relation | None:
        """The first relation between a group and those that are placed, seen from the group."""
        for relation in self._relations:
            mine, other = self._root(relation.thing), self._root(relation.other)
            if mine == number != other and other in groups:
                return relation
            if other == number != mine and mine in groups:
                return Relation(_TURNED.get(relation.place, "beside"), relation.other, relation.thing)
        return None

    def _joined(self, number: int, group: Unit, groups: Mapping[int, Unit]) -> Unit:
        """A group beside those that are there."""
        if not groups:
            return group
        link = self._link(number, groups)
        beside = [each for unit in groups.values() for each in unit if link is None or each.thing == link.other]
        way = WAYS.get(link.place) if link else WAYS["right"]
        placed = list(groups.values())
        tried = [_pushed(group, beside, placed, each) for each in ([way] if way else [(1, 0), (-1, 0)])]
        return min(tried, key=lambda each: float(np.abs(_middle(each) - _middle(beside)).sum()))

    def _root(self, number: int) -> int:
        while number in self._host:
            number = self._host[number].other
        return number

    def _name(self, number: int) -> str:
        return self._things[number].caption

    def _told(self, relation: Relation) -> str:
        return f"{relation.place} {self._name(relation.other)}"


def _hosts(sentence: Sentence, solids: Sequence[Manifold]) -> dict[int, Relation]:
    """By its number, where each thing is that goes with another one. Raises UserError for things in a circle."""
    host = dict[int, Relation]()
    for relation in sentence.relations:
        if relation.place in ("on", "in", "under", "around"):
            host.setdefault(relation.thing, relation)
    for relation in sentence.relations:  # what is beside something on a carrier is on it too, if it may be
        for mine, other in ((relation.thing, relation.other), (relation.other, relation.thing)):
            carrier = host.get(other)
            carries = mine not in host and relation.place in (*WAYS, "beside") and carrier and carrier.place == "on"
            if not carries or carrier is None or _leads_to(host, carrier.other, mine):
                continue
            if _carried(solids[mine], solids[carrier.other]):
                host[mine] = Relation("on", mine, carrier.other)
    for number in host:
        if _leads_to(host, host[number].other, number):
            raise UserError(
                f"{sentence.text!r} has {sentence.things[number].caption} on or in itself: say it otherwise"
            )
    return host


def _leads_to(host: dict[int, Relation], start: int, number: int) -> bool:
    seen = set[int]()
    while start != number and start in host and start not in seen:
        seen.add(start)
        start = host[start].other
    return start == number


def _carried(small: Manifold, large: Manifold) -> bool:
    """Whether there may be room for another thing on one that carries something."""
    one, other = (np.sort(np.ptp(np.reshape(each.bounding_box(), (2, 3)), axis=0)[[0, 2]]) for each in (small, large))
    return bool((one <= _CARRIES * other).all())


def _row(units: list[Unit]) -> Unit:
    """Units side by side, centred."""
    row = units[0]
    for unit in units[1:]:
        row = row + _pushed(unit, row, [row], (1, 0))
    low, high = box_of(row)
    return moved(row, -(low[0] + high[0]) / 2, 0.0, 0.0)


def _pushed(unit: Unit, beside: Sequence[Placed], placed: Sequence[Unit], way: tuple[int, int]) -> Unit:
    """A unit moved from beside something into a direction until it is free of all that is placed."""
    direction = np.array([way[0], 0.0, way[1]])
    unit = moved(unit, *((_middle(beside) - _middle(unit)) * (1, 0, 1)))
    while True:
        gaps = [_GAP * min(unit[0].size, each[0].size) for each in placed]
        steps = [_step(box_of(unit), box_of(each), direction, gap) for each, gap in zip(placed, gaps, strict=True)]
        if not any(steps):
            return unit
        unit = moved(unit, *(max(steps) * direction))


Box = tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]


def _step(one: Box, other: Box, direction: Float[np.ndarray, " 3"], gap: float) -> float:
    """How far one box must go to be clear of another; 0 if it is."""
    (low, high), (there_low, there_high) = one, other
    apart = np.maximum(low - there_high, there_low - high)[[0, 2]]
    if (apart >= gap - 1e-9).any():
        return 0.0
    ahead = there_high - low if direction.sum() > 0 else high - there_low
    return float((ahead * np.abs(direction)).sum()) + gap


def _beside(unit: Unit, child: Unit) -> Unit:
    return unit + _pushed(child, unit[:1], [unit], (1, 0))


def _ringed(unit: Unit, children: list[Unit]) -> Unit:
    """The unit with others in a circle about it that look at it."""
    (low, high), sides = box_of(unit), [np.ptp(box_of(child), axis=0) for child in children]
    depth, width = max(side[2] for side in sides), max(side[0] for side in sides)
    middle, half = (low + high) / 2, (high - low) / 2
    gap = _GAP * min(children[0][0].size, unit[0].size)
    spread = (width + gap) / (2 * np.tan(np.pi / max(3, len(children))))  # so that neighbours do not meet
    whole = unit
    for number, child in enumerate(children):
        angle = 2 * np.pi * number / len(children)
        way = np.array([np.sin(angle), 0.0, np.cos(angle)])
        turned = tuple(each.turned(float(np.degrees(angle)) + 180) for each in child)
        near = 1 / max(abs(way[0]) / (half[0] + depth / 2 + gap), abs(way[2]) / (half[2] + depth / 2 + gap))
        distance = max(near, spread + depth / 2)
        while True:
            there = moved(turned, *(middle * (1, 0, 1) + way * distance))
            if not any(_step(box_of(there), box_of([each]), way, 0.0) for each in unit) or distance > 9 * near:
                break
            distance *= 1.05
        whole = whole + there
    return whole


def _meets(found: Drop, child: Unit, others: Sequence[Placed]) -> Bool[np.ndarray, "i k"]:
    """Where the box of a unit, moved to the places of a drop, would meet the boxes of others as seen from above."""
    low, high = box_of(child)
    meets = np.zeros(found.rest.shape, bool)
    for other in others:
        there_low, there_high = other.box
        across_x = (found.x + low[0] < there_high[0]) & (found.x + high[0] > there_low[0])
        across_z = (found.z + low[2] < there_high[2]) & (found.z + high[2] > there_low[2])
        meets |= across_x[:, None] & across_z[None]
    return meets


def _from_middle(found: Drop, child: Unit, unit: Unit) -> Float[np.ndarray, "i k"]:
    """How far from the middle of the carrier a unit would be, in half its larger side."""
    low, high = unit[0].box
    aim = (low + high) / 2 - _middle(child)
    return np.hypot(found.x[:, None] - aim[0], found.z[None] - aim[2]) / ((high - low)[[0, 2]].max() / 2)


def _middle(placed: Sequence[Placed]) -> Float[np.ndarray, " 3"]:
    return np.mean(box_of(placed), axis=0)


def _best(score: Float[np.ndarray, "i k"], among: Bool[np.ndarray, "i k"]) -> tuple[int, int]:
    i, k = np.unravel_index(np.where(among, score, -np.inf).argmax(), score.shape)
    return int(i), int(k)
