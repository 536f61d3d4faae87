"""The report of an evaluation: `report.json`, `report.md`, one `report.html` with every picture, and `grid.jpg`.

Failures come first. Nothing is left out, nothing is chosen among seeds.
"""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image, ImageDraw

from dreamfusion.evaluate.making import pictures_of
from dreamfusion.evaluate.measure import Figures, Verdict, figures
from dreamfusion.evaluate.r_precision import Share
from dreamfusion.evaluate.views import KINDS, SIZE
from dreamfusion.runs import replacing, write_json, write_text

NOTE = (
    "The paper reports 79.7 % (colour) and 58.5 % (geometry) for 153 captions of its own world, judged by CLIP L/14. "
    "These figures come from a smaller world and, unless another scorer is named, from the judge of this package: "
    "the two are not comparable."
)
UNITS = "R-Precision in %, 95 % intervals in brackets; Janus rate in %."
TILE, LABEL, COLUMNS = 64, 14, 5


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
    write_json(paths[0], as_json(report))
    write_text(paths[1], as_markdown(report))
    with replacing(paths[2]) as part:
        grid(report.verdicts).save(part, quality=85)
    write_text(paths[3], as_page(report))
    return paths


def as_json(report: Report) -> dict[str, object]:
    """Numbers only; what is not known is null."""
    groups = {name: asdict(found) for name, found in report.groups.items()}
    runs = [asdict(v) for v in report.worst_first]
    return {"facts": dict(report.facts), "note": NOTE, "figures": without_nan(groups), "runs": without_nan(runs)}


def as_markdown(report: Report) -> str:
    """The figures as a table, then every run."""
    facts = [f"- {name}: {value}" for name, value in report.facts.items()]
    runs = [
        ("prompt", "suite", "colour", "geometry", "fronts", "taken for", "problem"),
        *(_run_row(v) for v in report.worst_first),
    ]
    lines = ["# Evaluation", "", *facts, "", f"{UNITS} {NOTE}", "", *table(figure_rows(report))]
    return "\n".join([*lines, "", "Failures first; shares of eight views.", "", *table(runs), ""])


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


def percent(value: float | None) -> str:
    """A share for people; a dash where nothing is known."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.0f}"


def share_text(share: Share) -> str:
    """A share and its interval."""
    return "-" if share.count == 0 else f"{100 * share.value:.1f} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def as_page(report: Report) -> str:
    """One file with every picture inside, the failures first."""
    template = resources.files("dreamfusion.evaluate").joinpath("report.html").read_text(encoding="utf-8")
    head, *rows = figure_rows(report)
    return Template(template).substitute(
        facts=html.escape("; ".join(f"{name}: {value}" for name, value in report.facts.items())),
        note=html.escape(NOTE),
        units=html.escape(UNITS),
        figures="\n".join([_html_row("th", head), *(_html_row("td", row) for row in rows)]),
        runs="\n".join(_card(v) for v in report.worst_first),
    )


def _html_row(cell: str, row: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{cell}>{html.escape(text)}</{cell}>' for text in row)}</tr>"


def _card(v: Verdict) -> str:
    said = f"colour {percent(v.precision['shaded'])} %, geometry {percent(v.precision['textureless'])} %"
    said += "" if v.fronts is None else f", fronts from elsewhere {percent(v.fronts)} %"
    said += f", taken for {v.taken_for}" if v.taken_for not in ("", v.prompt) else ""
    said += f"; {v.problem}" if v.problem else ""
    path, image = pictures_of(Path(v.run)), ""
    if path.exists():
        page = io.BytesIO()
        with Image.open(path) as file:
            file.convert("RGB").save(page, "WEBP", quality=80)
        address = f"data:image/webp;base64,{base64.b64encode(page.getvalue()).decode('ascii')}"
        image = f'<img alt="{html.escape(v.prompt)}" src="{address}">'
    verdict = "right" if v.precision["shaded"] > 0.5 else "wrong"
    heading = f"<h2>{html.escape(v.prompt)} <small>{html.escape(v.suite)}</small></h2>"
    return f'<section class="{verdict}">{heading}<p>{html.escape(said)}</p>{image}</section>'


def grid(verdicts: Sequence[Verdict]) -> Image.Image:
    """Every run from the front, left, back and right: colour above, geometry below. The order is that of the suites."""
    tiles = [_tile(v) for v in verdicts]
    width, height = 4 * TILE, 2 * TILE + LABEL
    page = Image.new("RGB", (COLUMNS * (width + 8) - 8, -(-len(tiles) // COLUMNS) * (height + 6) - 6), "white")
    for index, tile in enumerate(tiles):
        page.paste(tile, (index % COLUMNS * (width + 8), index // COLUMNS * (height + 6)))
    return page


def _tile(v: Verdict) -> Image.Image:
    tile = Image.new("RGB", (4 * TILE, 2 * TILE + LABEL), "white")
    ImageDraw.Draw(tile).text((3, 1), f"{v.prompt}   {percent(v.precision['shaded'])} %", fill="black")
    if pictures_of(Path(v.run)).exists():
        with Image.open(pictures_of(Path(v.run))) as file:
            rows = np.asarray(file.convert("RGB")).reshape(len(KINDS), SIZE, -1, SIZE, 3)
        shown = np.concatenate([rows[KINDS.index(kind)][:, ::2] for kind in ("shaded", "textureless")], axis=0)
        sheet = Image.fromarray(shown.reshape(2 * SIZE, 4 * SIZE, 3))
        tile.paste(sheet.resize((4 * TILE, 2 * TILE), Image.Resampling.BOX), (0, LABEL))
    return tile


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
