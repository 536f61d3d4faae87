"""The pictures of a report: one self-contained page with all of them, and a grid for documents."""

import html
import io
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image, ImageDraw

from dreamfusion.evaluate.making import pictures_of
from dreamfusion.evaluate.measure import Verdict
from dreamfusion.evaluate.views import KINDS, SIZE
from dreamfusion.viewer import data_address

TILE, LABEL, COLUMNS = 64, 14, 5
"""of the grid: pixels of a picture, of a line of text; runs side by side"""


def as_page(told: tuple[str, str], table: Sequence[Sequence[str]], verdicts: Sequence[Verdict]) -> str:
    """One file with every picture inside: what there is to tell, the figures under their head, then the runs."""
    template = resources.files("dreamfusion.evaluate").joinpath("report.html").read_text(encoding="utf-8")
    head, *rows = table
    facts, note = map(html.escape, told)
    return Template(template).substitute(
        facts=facts,
        note=note,
        figures="\n".join([_html_row("th", head), *(_html_row("td", row) for row in rows)]),
        runs="\n".join(_card(v) for v in verdicts),
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
        image = f'<img alt="{html.escape(v.prompt)}" src="{data_address("image/webp", page.getvalue())}">'
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


def percent(value: float | None) -> str:
    """A share for people; a dash where nothing is known."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.0f}"
