"""The report of an evaluation: `report.json`, `report.md`, one `report.html` with every picture, and `grid.jpg`.

Where it is known what prompts mean, `beside.jpg` shows results, what the perfect prior made, and the things themselves.

Failures come first. Nothing is left out, nothing is chosen among seeds.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dreamfusion.evaluate.fidelity import Fidelity, Likeness, mean_likeness
from dreamfusion.evaluate.measure import Figures, Verdict, figures
from dreamfusion.evaluate.page import as_page, beside, grid, percent
from dreamfusion.evaluate.r_precision import Share
from dreamfusion.evaluate.truth import Truths
from dreamfusion.files import replacing, write_json, write_text

NOTE = (
    "The paper reports 79.7 % (colour) and 58.5 % (geometry) for 153 captions of its own world, judged by CLIP L/14. "
    "These figures come from a smaller world and, unless another scorer is named, from the judge of this package: "
    "the two are not comparable."
)
UNITS = "R-Precision in %, 95 % intervals in brackets; Janus rate in %."
FIDELITY = (
    "Each result / what the perfect prior makes of the same prompts. Fidelity is measured against the thing that is "
    "meant; its shares are those of the way from the bare backdrop to the perfect prior."
)
LIKENESS = ("difference, dB", "object PSNR, dB", "silhouette IoU", "normals off by, deg")


@dataclass(frozen=True)
class Beside:
    """The figures of runs whose prompts' meaning is known, beside those of the perfect prior on the same prompts."""

    count: int
    own: Figures
    perfect: Figures
    likeness: Likeness
    """means"""


@dataclass(frozen=True)
class Report:
    """All that is reported."""

    facts: Mapping[str, object]
    """how it was made: scorer, prior, seed ..."""
    verdicts: Sequence[Verdict]
    perfect: Sequence[Verdict] = ()
    """of what the perfect prior made, for each of these runs of which it is known what they should show"""
    truths: Truths | None = None
    """where its pictures are, if there are any"""

    @property
    def groups(self) -> dict[str, Figures]:
        """Figures of all runs, and of each suite if there are several."""
        return {name: figures(group) for name, group in self._grouped(self.verdicts).items()}

    @property
    def beside(self) -> dict[str, Beside]:
        """The same of the runs whose prompts' meaning is known, and of the perfect prior."""
        own = self._grouped([v for v in self.verdicts if v.likeness])
        perfect = self._grouped(self.perfect)
        return {name: _beside(group, perfect[name]) for name, group in own.items() if group}

    def _grouped(self, verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
        suites = [name for name in dict.fromkeys(v.suite for v in self.verdicts) if name]
        several = {name: [v for v in verdicts if v.suite == name] for name in suites if len(suites) > 1}
        return {"all": list(verdicts), **several}

    @property
    def worst_first(self) -> list[Verdict]:
        return sorted(self.verdicts, key=lambda v: (v.precision["shaded"], v.precision["textureless"]))


def _beside(own: Sequence[Verdict], perfect: Sequence[Verdict]) -> Beside:
    near = mean_likeness([v.likeness for v in own if v.likeness])
    return Beside(len(own), figures(own), figures(perfect), near)


def write_report(report: Report, out: Path) -> list[Path]:
    """Write all files into the folder `out`; returns them, the page last."""
    out.mkdir(parents=True, exist_ok=True)
    grids = {"grid.jpg": grid(report.verdicts)}
    if report.truths and report.perfect:
        grids["beside.jpg"] = beside(report.verdicts, report.truths)
    paths = [out / name for name in ("report.json", "report.md", *grids, "report.html")]
    write_json(paths[0], as_json(report, out))
    write_text(paths[1], as_markdown(report))
    for name, picture in grids.items():
        with replacing(out / name) as part:
            picture.save(part, quality=85)
    told = "; ".join(f"{name}: {value}" for name, value in report.facts.items())
    tables = {f"{UNITS} {NOTE}": figure_rows(report)} | ({FIDELITY: beside_rows(report)} if report.perfect else {})
    write_text(paths[-1], as_page(told, tables, report.worst_first, report.truths))
    return paths


def as_json(report: Report, out: Path) -> dict[str, object]:
    """Numbers only; what is not known is null. Runs are told as seen from the folder `out`."""
    groups = {name: asdict(found) for name, found in report.groups.items()}
    perfect = {v.run: v.precision for v in report.perfect}
    runs = [
        asdict(v) | {"run": os.path.relpath(v.run, out), "perfect_precision": perfect.get(v.run)}
        for v in report.worst_first
    ]
    known = {name: asdict(found) | {"share": found.likeness.share} for name, found in report.beside.items()}
    figures_of = {"figures": without_nan(groups)} | ({"beside the perfect prior": without_nan(known)} if known else {})
    return {"facts": dict(report.facts), "note": NOTE, **figures_of, "runs": without_nan(runs)}


def as_markdown(report: Report) -> str:
    """The figures as a table, then every run."""
    runs = [
        ("prompt", "suite", "colour", "geometry", "fronts", "taken for", "problem"),
        *(_run_row(v) for v in report.worst_first),
    ]
    lines = ["# Evaluation", "", *listed_facts(report.facts), "", f"{UNITS} {NOTE}", "", *table(figure_rows(report))]
    lines += ["", FIDELITY, "", *table(beside_rows(report)), ""] if report.perfect else [""]
    lines += ["Failures first; shares of eight views.", "", *table(runs), ""]
    lines += [*table(likeness_rows(report)), ""] if report.perfect else []
    return "\n".join(lines)


def listed_facts(facts: Mapping[str, object]) -> list[str]:
    """Lines of a Markdown list; where runs differ, all their values."""
    values = {name: value if isinstance(value, list) else [value] for name, value in facts.items()}
    return [f"- {name}: {', '.join(map(str, several))}" for name, several in values.items()]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the first row is its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def figure_rows(report: Report) -> list[tuple[str, ...]]:
    """The figures of all groups as text, under a head."""
    rows: list[tuple[str, ...]] = [("prompts", "colour", "geometry", "albedo", "Janus", "real meshes", "colour word")]
    for name, found in report.groups.items():
        shares = [share_text(found.precision[kind]) for kind in ("shaded", "textureless", "albedo")]
        beside = share_text(found.janus), percent(found.janus_real), share_text(found.colour_word)
        rows.append((f"{name} ({found.precision['shaded'].count})", *shares, *beside))
    return rows


def beside_rows(report: Report) -> list[tuple[str, ...]]:
    """The figures of all groups beside the perfect prior's as text, under a head."""
    rows: list[tuple[str, ...]] = [("prompts", *LIKENESS, "colour, %", "geometry, %")]
    for name, found in report.beside.items():
        share = found.likeness.share.values()
        near = (f"{cell}; {percent(part)} %" for cell, part in zip(_cells(found.likeness), share, strict=True))
        precision = (_of_perfect(found, kind) for kind in ("shaded", "textureless"))
        rows.append((f"{name} ({found.count})", f"{_behind(found.likeness):+.1f}", *near, *precision))
    return rows


def _of_perfect(found: Beside, kind: str) -> str:
    own, perfect = (figures.precision[kind].value for figures in (found.own, found.perfect))
    share = percent(own / perfect) if perfect else "-"
    return f"{100 * own:.1f} / {100 * perfect:.1f}; {share} %"


def likeness_rows(report: Report) -> list[tuple[str, ...]]:
    """Every run beside the perfect prior's as text, under a head; first what is furthest from it in colours."""
    known = sorted((_behind(v.likeness), v.prompt, _cells(v.likeness)) for v in report.verdicts if v.likeness)
    return [("prompt", *LIKENESS), *((prompt, f"{behind:+.1f}", *cells) for behind, prompt, cells in known)]


def _behind(near: Likeness) -> float:
    return near.own.object_psnr_db - near.perfect.object_psnr_db


def _cells(near: Likeness) -> list[str]:
    """Result / perfect prior, by measure."""
    return [" / ".join(pair) for pair in zip(_texts(near.own), _texts(near.perfect), strict=True)]


def _texts(found: Fidelity) -> tuple[str, str, str]:
    return f"{found.object_psnr_db:.1f}", f"{found.silhouette_iou:.3f}", f"{found.normal_error_deg:.1f}"


def _run_row(v: Verdict) -> tuple[str, ...]:
    numbers = percent(v.precision["shaded"]), percent(v.precision["textureless"]), percent(v.fronts)
    return (v.prompt, v.suite, *numbers, "" if v.taken_for == v.prompt else v.taken_for, v.problem)


def share_text(share: Share) -> str:
    """A share and its interval."""
    return "-" if share.count == 0 else f"{100 * share.value:.1f} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def without_nan(value: object) -> object:
    """A tree of records and lists with null where a number is not known, as JSON has no NaN."""
    match value:
        case float() if math.isnan(value):
            return None
        case dict():
            return {key: without_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [without_nan(item) for item in value]
        case _:
            return value
