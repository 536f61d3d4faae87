"""The pictures of a report: one self-contained page with all of them, and a grid for documents."""

import html
import io
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from dreamfusion.evaluate.evaluation_views import BACKDROP, KINDS, SIZE, VIEWS, Views, read_views, sheet
from dreamfusion.evaluate.fidelity import Likeness, nothing_like
from dreamfusion.evaluate.making import pictures_of
from dreamfusion.evaluate.measure import Verdict
from dreamfusion.evaluate.truth import Truths
from dreamfusion.viewer import data_address

TILE, LABEL, COLUMNS = 64, 14, 5
"""of the grid: pixels of a picture, of a line of text; runs side by side"""


def as_page(
    facts: str, tables: Mapping[str, Sequence[Sequence[str]]], verdicts: Sequence[Verdict], truths: Truths | None
) -> str:
    """One file with every picture inside: what there is to tell, tables of figures under a note and a head, then the
    runs."""
    template = resources.files("dreamfusion.evaluate").joinpath("report.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        facts=html.escape(facts),
        figures="\n".join(_html_table(note, *table) for note, table in tables.items()),
        runs="\n".join(_card(v, truths) for v in verdicts),
    )


def _html_table(note: str, head: Sequence[str], *rows: Sequence[str]) -> str:
    lines = [_html_row("th", head), *(_html_row("td", row) for row in rows)]
    return "\n".join([f"<p>{html.escape(note)}</p>", "<table>", *lines, "</table>"])


def _html_row(cell: str, row: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{cell}>{html.escape(text)}</{cell}>' for text in row)}</tr>"


def _card(v: Verdict, truths: Truths | None) -> str:
    said = f"colour {percent(v.precision['shaded'])} %, geometry {percent(v.precision['textureless'])} %"
    said += "" if v.fronts is None else f", fronts from elsewhere {percent(v.fronts)} %"
    said += f", taken for {v.taken_for}" if v.taken_for not in ("", v.prompt) else ""
    said += f"; {v.problem}" if v.problem else ""
    said += f"; {_near(v.likeness)}" if v.likeness else ""
    rows, image = _rows(v, truths), ""
    if rows:
        page = io.BytesIO()
        sheet(torch.stack(rows)).save(page, "WEBP", quality=80)
        image = f'<img alt="{html.escape(v.prompt)}" src="{data_address("image/webp", page.getvalue())}">'
    verdict = "right" if v.precision["shaded"] > 0.5 else "wrong"
    heading = f"<h2>{html.escape(v.prompt)} <small>{html.escape(v.suite)}</small></h2>"
    return f'<section class="{verdict}">{heading}<p>{html.escape(said)}</p>{image}</section>'


def _near(near: Likeness) -> str:
    """The fidelity of a run in words, the perfect prior's in brackets."""
    own, best = near.own, near.perfect
    return (
        f"object PSNR {own.object_psnr_db:.1f} dB ({best.object_psnr_db:.1f}), silhouette IoU {own.silhouette_iou:.3f}"
        f" ({best.silhouette_iou:.3f}), normals off by {own.normal_error_deg:.1f} deg ({best.normal_error_deg:.1f})"
    )


def _own(v: Verdict) -> Views | None:
    path = pictures_of(Path(v.run))
    return read_views(path) if path.exists() else None


def _rows(v: Verdict, truths: Truths | None) -> list[Float[Tensor, "8 h w 3"]]:
    """All pictures of the run, and if it is known what its prompt means, of what the perfect prior made of it, and of
    the thing itself."""
    rows = [row for own in [_own(v)] if own for row in _with_normals(own)]
    return [*rows, *truths.made(v.prompt), *_with_normals(truths.true(v.prompt))] if truths and v.likeness else rows


def _with_normals(views: Views) -> list[Float[Tensor, "8 h w 3"]]:
    """The pictures, then the normals as colours."""
    grey = torch.tensor(BACKDROP)
    return [*views.pictures, torch.lerp(grey, views.normal / 2 + 0.5, views.opacity[..., None])]


def grid(verdicts: Sequence[Verdict], columns: int = COLUMNS, views: int = 4) -> Image.Image:
    """Every run from all four sides, or from the front and the back (2 `views`): colour above, geometry below.

    The order is that of the suites.
    """
    kinds = [KINDS.index(kind) for kind in ("shaded", "textureless")]

    def tile(v: Verdict) -> Image.Image:
        own = _own(v)
        rows = torch.ones(2, VIEWS, SIZE, SIZE, 3) if own is None else own.pictures[kinds]
        return _tile(f"{v.prompt}   {percent(v.precision['shaded'])} %", list(rows), views)

    return _arranged([tile(v) for v in verdicts], columns)


def beside(verdicts: Sequence[Verdict], truths: Truths) -> Image.Image:
    """The runs of which it is known what they should show, unlit from four sides: the run, what the perfect prior made
    of its prompt, the thing itself."""

    def tile(v: Verdict, near: Likeness) -> Image.Image:
        true = truths.true(v.prompt)
        pictures = (_own(v) or nothing_like(true)).pictures, truths.made(v.prompt), true.pictures
        rows = [each[KINDS.index("albedo")] for each in pictures]
        return _tile(f"{v.prompt}   {near.own.object_psnr_db:.1f} / {near.perfect.object_psnr_db:.1f} dB", rows, 4)

    return _arranged([tile(v, v.likeness) for v in verdicts if v.likeness], COLUMNS)


def _arranged(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    """Tiles of one size, row by row."""
    width, height = tiles[0].size
    page = Image.new("RGB", (columns * (width + 8) - 8, -(-len(tiles) // columns) * (height + 6) - 6), "white")
    for index, tile in enumerate(tiles):
        page.paste(tile, (index % columns * (width + 8), index // columns * (height + 6)))
    return page


def _tile(title: str, rows: Sequence[Float[Tensor, "8 h w 3"]], views: int) -> Image.Image:
    """Some of the views of each row, small, under a title."""
    page = sheet(torch.stack([row[:: VIEWS // views] for row in rows]))
    small = page.resize((views * TILE, len(rows) * TILE), Image.Resampling.BOX)
    tile = Image.new("RGB", (small.width, small.height + LABEL), "white")
    ImageDraw.Draw(tile).text((3, 1), title, fill="black")
    tile.paste(small, (0, LABEL))
    return tile


def titled(pages: Mapping[str, Image.Image]) -> Image.Image:
    """Pages one below the other, each under its name."""
    height = sum(page.height + 2 * LABEL for page in pages.values())
    whole, top = Image.new("RGB", (max(page.width for page in pages.values()), height), "white"), 0
    for name, page in pages.items():
        ImageDraw.Draw(whole).text((3, top + LABEL // 2), name.upper(), fill="black")
        whole.paste(page, (0, top + 2 * LABEL))
        top += page.height + 2 * LABEL
    return whole


def percent(value: float | None) -> str:
    """A share for people; a dash where nothing is known."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.0f}"
