"""Findings: what goes wrong with a run, judged by what its last steps logged. Pure, and without torch.

docs/health.md says how the thresholds were measured, and how often they are wrong.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

Record = Mapping[str, Any]
"""A line of `metrics.jsonl`"""
Figure = Callable[[Sequence[Record], Sequence[Record]], float | None]
"""Of the last records and of the first ones; None where they say nothing"""

WINDOW = 25
"""steps whose records are looked at together"""
MEASURED = "fast"
"""the preset of the runs that the thresholds were measured with"""
RATES, NOISE, WEIGHTS, SCENE, VIEWS = ("optimise",), ("distill",), ("regularise",), ("scene",), ("camera", "light")
"""Groups of fields of `Config` that a remedy changes together"""


@dataclass(frozen=True)
class Rule:
    """One way to go wrong."""

    says: str
    figure: Figure
    threshold: float
    above: bool
    """whether more than the threshold is bad, or less"""
    since: float
    """share of the run before which it is too early to say"""
    helps: str
    """for people"""
    suspects: tuple[tuple[str, ...], ...]
    """groups of settings, most suspect first"""
    remedy: tuple[tuple[str, Any], ...] = ()
    """fields of `Config` that help against it, with their values, before any suspect"""
    anywhere: bool = False
    """whether it says something of runs that are not the fast preset's, with which the thresholds were measured"""

    def broken(self, figure: float) -> bool:
        """Whether a figure is bad."""
        return figure > self.threshold if self.above else figure < self.threshold


@dataclass(frozen=True)
class Finding:
    """Something that is wrong."""

    name: str
    figure: float

    @property
    def rule(self) -> Rule:
        return RULES[self.name]

    @property
    def advice(self) -> str:
        """The finding and what would help, for people."""
        return f"{self}: {self.rule.helps}"

    def __str__(self) -> str:
        side = "above" if self.rule.above else "below"
        return f"{self.name}: {self.rule.says} ({self.figure:.2g}, {side} {self.rule.threshold:g})"


class Memory:
    """What findings are judged by: the first records of a run, and the last ones."""

    def __init__(self, preset: str, records: Iterable[Record] = ()) -> None:
        """`records` of the run's steps so far; those of other versions are passed over."""
        self._rules = {name: rule for name, rule in RULES.items() if rule.anywhere or preset == MEASURED}
        self._first, self._last = list[Record](), deque[Record](maxlen=WINDOW)
        for record in records:
            self._add(record)

    def asks(self, name: str) -> bool:
        """Whether a finding of this name counts for this run."""
        return name in self._rules

    def judged(self, record: Record, progress: float) -> tuple[Finding, ...]:
        """Findings after one more step, at this share of the run."""
        self._add(record)
        return findings(self._rules, self._first, list(self._last), progress)

    def _add(self, record: Record) -> None:
        if _sound(record):
            if self._last and self._last[-1].get("healed") != record.get("healed"):
                self._last.clear()  # what was before a healing says nothing of what is after it
            self._last.append(record)
            if len(self._first) < WINDOW:
                self._first.append(record)


def findings(
    rules: Mapping[str, Rule], first: Sequence[Record], last: Sequence[Record], progress: float
) -> tuple[Finding, ...]:
    """What is wrong with a run, in the order of the rules; nothing before a window is full."""
    if len(last) < WINDOW:
        return ()
    figures = {name: rule.figure(first, last) for name, rule in rules.items() if progress >= rule.since}
    return tuple(
        Finding(name, figure) for name, figure in figures.items() if figure is not None and rules[name].broken(figure)
    )


def found_in(record: Record) -> tuple[Finding, ...]:
    """The findings of a line of `metrics.jsonl`; none in what is damaged."""
    found = record.get("findings")
    pairs = found.items() if isinstance(found, Mapping) else ()
    return tuple(Finding(name, figure) for name, figure in pairs if name in RULES and isinstance(figure, float))


def in_words(found: Iterable[Finding]) -> str:
    """All of them, with what would help."""
    return "; ".join(finding.advice for finding in found)


def _sound(record: Record) -> bool:
    """Whether a line has what figures are made of."""
    vitals = record.get("vitals")
    if not isinstance(vitals, Mapping):
        return False
    known = (vitals.get(name, 0.0) for name in ("thickness", "front"))
    numbers = record.get("opacity"), *known, *map(vitals.get, _NEEDED)
    return all(isinstance(number, float) and abs(number) < _MOST for number in numbers)


def _mean(records: Sequence[Record], name: str) -> float:
    return fmean(record["vitals"][name] for record in records)


def _never(first: Sequence[Record], last: Sequence[Record]) -> None:
    """Of what is found otherwise."""


def _opacity(first: Sequence[Record], last: Sequence[Record]) -> float:
    return fmean(record["opacity"] for record in last)


def _softness(first: Sequence[Record], last: Sequence[Record]) -> float | None:
    opacity = _opacity(first, last)
    return _mean(last, "soft") / opacity if opacity > 0 else None


def _border(first: Sequence[Record], last: Sequence[Record]) -> float:
    return _mean(last, "border")


def _brightness(first: Sequence[Record], last: Sequence[Record]) -> float | None:
    return _of_coloured(last, "light")


def _neon(first: Sequence[Record], last: Sequence[Record]) -> float | None:
    return _of_coloured(last, "neon")


def _greyness(first: Sequence[Record], last: Sequence[Record]) -> float | None:
    """The chroma of what does not please the prior: many things are grey, and then it is content."""
    unrest = _unrest(first, last)
    return _of_coloured(last, "chroma") if unrest is not None and unrest > UNREST else None


def _thickness(first: Sequence[Record], last: Sequence[Record]) -> float | None:
    known = [record["vitals"]["thickness"] for record in last if "thickness" in record["vitals"]]
    return known[-1] if known else None


def _front(first: Sequence[Record], last: Sequence[Record]) -> float | None:
    known = [record["vitals"]["front"] for record in last if "front" in record["vitals"]]
    return known[-1] if known else None


def _pull(first: Sequence[Record], last: Sequence[Record]) -> float:
    return _mean(last, "pull")


def _unrest(first: Sequence[Record], last: Sequence[Record]) -> float | None:
    """How much the prior wants to change, beside how much it wanted at first; of steps that are not the same."""
    before = _mean(first, "pull") if first[-1]["step"] < last[0]["step"] else 0.0
    return _mean(last, "pull") / before if before > 0 else None


def _of_coloured(records: Sequence[Record], name: str) -> float | None:
    """A mean over the pixels that show the object's colours."""
    coloured = _mean(records, "coloured")
    return _mean(records, name) / coloured if coloured > 0 else None


UNREST = 1.15
SECOND_FRONT = "second front"
_MOST = 1e100  # larger numbers are damage, and their sums would be none
_NEEDED = ("soft", "border", "coloured", "light", "chroma", "neon", "pull")
RULES = {
    "not finite": Rule(
        says="a loss or a gradient is no finite number",
        figure=_never,
        threshold=0.0,
        above=True,
        since=0.0,
        helps="lower --optimise.grid and --guidance-scale",
        suspects=(RATES, NOISE, WEIGHTS, SCENE, VIEWS),
        anywhere=True,
    ),
    "empty": Rule(
        says="hardly anything is seen; mean opacity",
        figure=_opacity,
        threshold=0.012,
        above=False,
        since=0.2,
        helps="lower --regularise.opacity, raise --scene.blob.height, or widen --distill.t-min and --distill.t-max",
        suspects=(WEIGHTS, SCENE, NOISE, RATES, VIEWS),
        anywhere=True,
    ),
    "too near": Rule(
        says="matter reaches the edge of the pictures; mean opacity there",
        figure=_border,
        threshold=0.02,
        above=True,
        since=0.05,
        helps="raise --camera.distance, or lower --scene.radius",
        suspects=(VIEWS, SCENE, WEIGHTS, NOISE, RATES),
    ),
    "solid": Rule(
        says="the scene is one solid ball; mean opacity",
        figure=_opacity,
        threshold=0.62,
        above=True,
        since=0.2,
        helps="lower --scene.density-bias, or raise --regularise.opacity",
        suspects=(SCENE, WEIGHTS, VIEWS, RATES, NOISE),
    ),
    "fog": Rule(
        says="what is seen is half transparent; mean of o (1 - o) over that of o",
        figure=_softness,
        threshold=0.5,
        above=True,
        since=0.6,
        helps="raise --regularise.entropy, lower --regularise.opacity, or try another --seed",
        suspects=(WEIGHTS, SCENE, NOISE, RATES, VIEWS),
    ),
    "dark": Rule(
        says="the object is black in all light; mean of its largest channel",
        figure=_brightness,
        threshold=0.02,
        above=False,
        since=0.05,
        helps="raise --light.ambient or --light.diffuse",
        suspects=(VIEWS, NOISE, RATES, WEIGHTS, SCENE),
        anywhere=True,
    ),
    "saturated": Rule(
        says="colours are at their limits; share of the object",
        figure=_neon,
        threshold=0.1,
        above=True,
        since=0.15,
        helps="lower --guidance-scale, or raise --distill.guidance-rescale",
        suspects=(NOISE, RATES, WEIGHTS, SCENE, VIEWS),
        anywhere=True,
    ),
    "grey": Rule(
        says="the object stays grey, which the prior does not want; chroma",
        figure=_greyness,
        threshold=0.06,
        above=False,
        since=0.4,
        helps="raise --guidance-scale or --optimise.network, or widen --distill.t-min and --distill.t-max",
        suspects=(NOISE, RATES, VIEWS, WEIGHTS, SCENE),
    ),
    "flat": Rule(
        says="the object is a flat card; its least spread over the middle one",
        figure=_thickness,
        threshold=0.12,
        above=False,
        since=0.3,
        helps="widen --camera.azimuth-deg, and let the prior know the camera (--conditions all, --view-words)",
        suspects=(VIEWS, NOISE, WEIGHTS, SCENE, RATES),
        anywhere=True,
    ),
    "no answer": Rule(
        says="the prior's answers are as far from the noise as none would be; size per number",
        figure=_pull,
        threshold=0.5,
        above=True,
        since=0.0,
        helps="check the prior: draw from it with `dreamfusion prior sample`",
        suspects=(NOISE, RATES, WEIGHTS, SCENE, VIEWS),
    ),
    "no progress": Rule(
        says="the prior wants to change more than it did at first; ratio",
        figure=_unrest,
        threshold=1.3,
        above=True,
        since=0.3,
        helps="put --optimise, --distill, --camera and --scene back to the preset's, or try another --seed",
        suspects=(RATES, NOISE, VIEWS, SCENE, WEIGHTS),
    ),
    SECOND_FRONT: Rule(
        says="the prior takes a view from the sides or from behind for the front; log of the ratio of errors",
        figure=_front,
        threshold=0.4,
        above=True,
        since=0.0,
        helps="give --perp-neg 1, or let the prior know the camera (--conditions all)",
        suspects=(),
        remedy=(("perp_neg", 1.0),),
    ),
}
"""By name; where several are broken, a remedy is for the first"""
NOT_FINITE = Finding("not finite", 1.0)
