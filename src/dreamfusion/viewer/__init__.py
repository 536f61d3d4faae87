"""One self-contained page that shows a finished run: the mesh on a stage, turntable, contact sheet, numbers.

The page loads nothing: mesh, pictures and the other files that it offers are `data:` addresses, the library (three.js,
MIT licence, in `vendor/`) stands inside, and the page's own security policy forbids every request. `stage.js` is the
stage, `surface.js` the colours on it, `shadow.js` the ground below, `page.js` what only this page does.
"""

import base64
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from string import Template

from dreamfusion.errors import UserError
from dreamfusion.files import write_text
from dreamfusion.runs import RunFolder

SCRIPTS = ("surface.js", "shadow.js", "stage.js")
"""Of the stage, to be joined in this order; they name the elements of `page.html`"""
_PARTS = ("vendor/three.LICENSE.txt", "vendor/three.min.js", "page.html", *SCRIPTS, "page.js")
_TURNTABLE, _SHEET = "turntable.webp", "sheet.png"


@dataclass(frozen=True)
class Page:
    """What the page shows and offers; pictures may be missing."""

    title: str
    facts: Mapping[str, object]
    """lines of the table, such as {"seed": 0, "steps": 1000}; empty ones are left out"""
    mesh: bytes
    """GLB"""
    turntable: bytes | None = None
    """animated WebP"""
    sheet: bytes | None = None
    """PNG"""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """what else can be downloaded, by file name"""
    heading: str = "Run"
    """above the facts"""
    mesh_name: str = "mesh.glb"


def write_page(run: RunFolder, prompt: str, facts: Mapping[str, object]) -> None:
    """Write the run's `index.html` from its `mesh.glb` and what else lies in the folder for people.

    Raises UserError if the mesh is missing.
    """
    if not run.mesh.is_file():
        raise UserError(f"{run.mesh} is missing: make it with `dreamfusion mesh {run.path}`")
    turntable, sheet = (path.read_bytes() if path.is_file() else None for path in (run.turntable_webp, run.sheet))
    beside = [*sorted(run.path.glob("mesh*")), run.turntable_mp4, run.config]
    files = {path.name: path.read_bytes() for path in beside if path.is_file() and path != run.mesh}
    write_text(run.index, render_page(Page(prompt, facts, run.mesh.read_bytes(), turntable, sheet, files)))


def render_page(page: Page) -> str:
    """The page as HTML."""
    home = resources.files("dreamfusion.viewer")
    licence, library, template, *scripts = (home.joinpath(name).read_text(encoding="utf-8") for name in _PARTS)
    return Template(template).substitute(
        title=html.escape(page.title),
        heading=html.escape(page.heading),
        facts="\n".join(_fact(name, value) for name, value in page.facts.items() if value != ""),
        mesh_name=html.escape(page.mesh_name),
        downloads="\n".join(_downloads(page)),
        turntable=_card("Turntable", _TURNTABLE, page.turntable, "card"),
        sheet=_card("From eight sides: colour, geometry, normals", _SHEET, page.sheet, "card wide"),
        library=_embeddable(f"/*\n{licence}*/\n{library}"),
        stage=_embeddable("\n".join(scripts)),
    )


def data_address(media_type: str, content: bytes) -> str:
    """`content` as a `data:` address (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _fact(name: str, value: object) -> str:
    return f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>"


def _downloads(page: Page) -> list[str]:
    """A link for every file. Those of the pictures name the element that holds them, for page.js to complete."""
    links = [_link(page.mesh_name, f'id="mesh" href="{data_address("model/gltf-binary", page.mesh)}"')]
    for name, picture in ((_TURNTABLE, page.turntable), (_SHEET, page.sheet)):
        if picture is not None:
            links.append(_link(name, f'data-of="{name}" hidden'))
    for name, content in page.files.items():
        links.append(_link(name, f'href="{data_address("application/octet-stream", content)}"'))
    return links


def _link(name: str, attributes: str) -> str:
    return f'<a download="{html.escape(name)}" {attributes}>{html.escape(name)}</a>'


def _card(title: str, name: str, picture: bytes | None, style: str) -> str:
    if picture is None:
        return ""
    address = data_address(f"image/{name.split('.')[1]}", picture)
    image = f'<img id="{name}" alt="{html.escape(title)}" src="{address}">'
    return f'<section class="{style}"><h2>{html.escape(title)}</h2>{image}</section>'


def _embeddable(script: str) -> str:
    """A script that can stand inside a page: nothing in it ends the element early."""
    return re.sub(r"(?i)</(?=script)", r"<\\/", script)
