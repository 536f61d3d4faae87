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

    def __init__(self, records: Iterable[Record] = ()) -> None:
        """`records` of the run's steps so far; those of other versions are passed over."""
        self._first, self._last = list[Record](), deque[Record](maxlen=WINDOW)
        for record in records:
            self._add(record)

    def judged(self, record: Record, progress: float) -> tuple[Finding, ...]:
        """Findings after one more step, at this share of the run."""
        self._add(record)
        return findings(self._first, list(self._last), progress)

    def _add(self, record: Record) -> None:
        if _sound(record):
            self._last.append(record)
            if len(self._first) < WINDOW:
                self._first.append(record)


def findings(first: Sequence[Record], last: Sequence[Record], progress: float) -> tuple[Finding, ...]:
    """What is wrong with a run, in the order of `RULES`; nothing before a window is full."""
    if len(last) < WINDOW:
        return ()
    figures = {name: rule.figure(first, last) for name, rule in RULES.items() if progress >= rule.since}
    return tuple(Finding(name, figure) for name, figure in figures.items() if _broken(RULES[name], figure))


def _broken(rule: Rule, figure: float | None) -> bool:
    return figure is not None and (figure > rule.threshold if rule.above else figure < rule.threshold)


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
    return isinstance(record.get("opacity"), float) and isinstance(vitals, Mapping) and all(isinstance(vitals.get(name), float) for name in _NEEDED)


def _mean(records: Sequence[Record], name: str) -> float:
    return fmean(record["vitals"][name] for record in records)


def _opacity(first: Sequence[Record], last: Sequence[Record]) -> float:
    return fmean(record["opacity"] for record in last)


def _softness(first: Sequence[Record], last: Sequence[Record]) -> float | None:
    opacity = _opacity(first, last)
    return _mean(last, "soft") / opacity if opacity > 0 else None


def _border(first: Sequence[Record], last: Sequence[Record]) -> float:
    return _mean(last, "border")


def _chroma(first: Sequence[Record], last: Sequence[Record]) -> float | None:
    coloured = _mean(last, "coloured")
    return _mean(last, "chroma") / coloured if coloured > 0 else None


def _thickness(first: Sequence[Record], last: Sequence[Record]) -> float | None:
    known = [record["vitals"]["thickness"] for record in last if "thickness" in record["vitals"]]
    return known[-1] if known else None


_NEEDED = ("soft", "border", "coloured", "chroma", "pull")
RULES: dict[str, Rule] = {
    "not finite": Rule(
        "a loss or a gradient is no finite number", lambda first, last: None, 0.0, True, 0.0,
        "lower --guidance-scale and --optimise.grid", (RATES, NOISE, WEIGHTS, SCENE, VIEWS),
    ),
    "empty": Rule(
        "next to nothing is seen", _opacity, 0.012, False, 0.1,
        "lower --regularise.opacity, raise --scene.blob.height", (WEIGHTS, SCENE, RATES, VIEWS, NOISE),
    ),
}
"""By name, the gravest first"""
NOT_FINITE = Finding("not finite", 1.0)
