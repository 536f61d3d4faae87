"""The pictures of a report: one self-contained page with all of them, and a grid for documents."""

import html
import io
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image, ImageDraw

from dreamfusion.evaluate.evaluation_views import KINDS, SIZE, VIEWS
from dreamfusion.evaluate.making import pictures_of
from dreamfusion.evaluate.measure import Verdict
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


def grid(verdicts: Sequence[Verdict], columns: int = COLUMNS, views: int = 4) -> Image.Image:
    """Every run from all four sides, or from the front and the back (2 `views`): colour above, geometry below.

    The order is that of the suites.
    """
    tiles = [_tile(v, views) for v in verdicts]
    width, height = views * TILE, 2 * TILE + LABEL
    page = Image.new("RGB", (columns * (width + 8) - 8, -(-len(tiles) // columns) * (height + 6) - 6), "white")
    for index, tile in enumerate(tiles):
        page.paste(tile, (index % columns * (width + 8), index // columns * (height + 6)))
    return page


def titled(pages: Mapping[str, Image.Image]) -> Image.Image:
    """Pages one below the other, each under its name."""
    height = sum(page.height + 2 * LABEL for page in pages.values())
    whole, top = Image.new("RGB", (max(page.width for page in pages.values()), height), "white"), 0
    for name, page in pages.items():
        ImageDraw.Draw(whole).text((3, top + LABEL // 2), name.upper(), fill="black")
        whole.paste(page, (0, top + 2 * LABEL))
        top += page.height + 2 * LABEL
    return whole


def _tile(v: Verdict, views: int) -> Image.Image:
    tile = Image.new("RGB", (views * TILE, 2 * TILE + LABEL), "white")
    ImageDraw.Draw(tile).text((3, 1), f"{v.prompt}   {percent(v.precision['shaded'])} %", fill="black")
    if pictures_of(Path(v.run)).exists():
        with Image.open(pictures_of(Path(v.run))) as file:
            rows = np.asarray(file.convert("RGB")).reshape(len(KINDS), SIZE, -1, SIZE, 3)
        every = VIEWS // views
        shown = np.concatenate([rows[KINDS.index(kind)][:, ::every] for kind in ("shaded", "textureless")], axis=0)
        sheet = Image.fromarray(shown.reshape(2 * SIZE, views * SIZE, 3))
        tile.paste(sheet.resize((views * TILE, 2 * TILE), Image.Resampling.BOX), (0, LABEL))
    return tile


def percent(value: float | None) -> str:
    """A share for people; a dash where nothing is known."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.0f}"
