"""The report of an evaluation: `report.json`, `report.md`, one `report.html` with every picture, and `grid.jpg`.

Failures come first. Nothing is left out, nothing is chosen among seeds.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dreamfusion.evaluate.measure import Figures, Verdict, figures
from dreamfusion.evaluate.page import as_page, grid, percent
from dreamfusion.evaluate.r_precision import Share
from dreamfusion.files import replacing, write_json, write_text

NOTE = (
    "The paper reports 79.7 % (colour) and 58.5 % (geometry) for 153 captions of its own world, judged by CLIP L/14. "
    "These figures come from a smaller world and, unless another scorer is named, from the judge of this package: "
    "the two are not comparable."
)
UNITS = "R-Precision in %, 95 % intervals in brackets; Janus rate in %."


@dataclass(frozen=True)
class Report:
    """All that is reported."""

    facts: Mapping[str, object]
    """how it was made: scorer, prior, seed ..."""
    verdicts: Sequence[Verdict]

    @property
    def groups(self) -> dict[str, Figures]:
        """Figures of all runs, and of each suite if there are several."""
        suites = [name for name in dict.fromkeys(v.suite for v in self.verdicts) if name]
        several = {name: [v for v in self.verdicts if v.suite == name] for name in suites if len(suites) > 1}
        return {name: figures(group) for name, group in {"all": list(self.verdicts), **several}.items()}

    @property
    def worst_first(self) -> list[Verdict]:
        return sorted(self.verdicts, key=lambda v: (v.precision["shaded"], v.precision["textureless"]))


def write_report(report: Report, out: Path) -> list[Path]:
    """Write all four files into the folder `out`; returns them, the page last."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in ("report.json", "report.md", "grid.jpg", "report.html")]
    write_json(paths[0], as_json(report, out))
    write_text(paths[1], as_markdown(report))
    with replacing(paths[2]) as part:
        grid(report.verdicts).save(part, quality=85)
    told = "; ".join(f"{name}: {value}" for name, value in report.facts.items())
    write_text(paths[3], as_page((told, f"{UNITS} {NOTE}"), figure_rows(report), report.worst_first))
    return paths


def as_json(report: Report, out: Path) -> dict[str, object]:
    """Numbers only; what is not known is null. Runs are told as seen from the folder `out`."""
    groups = {name: asdict(found) for name, found in report.groups.items()}
    runs = [asdict(v) | {"run": os.path.relpath(v.run, out)} for v in report.worst_first]
    return {"facts": dict(report.facts), "note": NOTE, "figures": without_nan(groups), "runs": without_nan(runs)}


def as_markdown(report: Report) -> str:
    """The figures as a table, then every run."""
    runs = [
        ("prompt", "suite", "colour", "geometry", "fronts", "taken for", "problem"),
        *(_run_row(v) for v in report.worst_first),
    ]
    lines = ["# Evaluation", "", *listed_facts(report.facts), "", f"{UNITS} {NOTE}", "", *table(figure_rows(report))]
    return "\n".join([*lines, "", "Failures first; shares of eight views.", "", *table(runs), ""])


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
