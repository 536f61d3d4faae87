"""One self-contained page that shows a finished run: the orbitable mesh, the turntable, the contact sheet, the numbers.

The page loads nothing: mesh and pictures are `data:` addresses, the viewer library (model-viewer, Apache 2.0 licence,
in `vendor/`) stands inside, and the page's own security policy forbids every request.
"""

import base64
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from string import Template

from dreamfusion.errors import UserError
from dreamfusion.runs import RunFolder, write_text


@dataclass(frozen=True)
class Page:
    """What the page shows; pictures may be missing."""

    prompt: str
    facts: Mapping[str, object]
    """lines of the table, such as {"seed": 0, "steps": 1000}"""
    mesh: bytes
    """GLB"""
    turntable: bytes | None = None
    """animated WebP"""
    sheet: bytes | None = None
    """PNG"""


def write_page(run: RunFolder, prompt: str, facts: Mapping[str, object]) -> None:
    """Write the run's `index.html` from its `mesh.glb` and, where they are, its turntable and contact sheet.

    Raises UserError if the mesh is missing.
    """
    if not run.mesh.is_file():
        raise UserError(f"{run.mesh} is missing: make it with `dreamfusion mesh {run.path}`")
    pictures = (path.read_bytes() if path.is_file() else None for path in (run.turntable_webp, run.sheet))
    write_text(run.index, render_page(Page(prompt, facts, run.mesh.read_bytes(), *pictures)))


def render_page(page: Page) -> str:
    """The page as HTML."""
    home = resources.files("dreamfusion.viewer")
    template = Template(home.joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(f"{page.prompt} - dreamfusion"),
        prompt=html.escape(page.prompt),
        facts="\n".join(_fact(name, value) for name, value in page.facts.items()),
        mesh=data_address("model/gltf-binary", page.mesh),
        turntable=_card("Turntable", "image/webp", page.turntable, "card"),
        sheet=_card("From eight sides: colour, geometry, normals", "image/png", page.sheet, "card wide"),
        library=_embeddable(home.joinpath("vendor/model-viewer.min.js").read_text(encoding="utf-8")),
    )


def data_address(media_type: str, content: bytes) -> str:
    """`content` as a `data:` address (RFC 2397)."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _fact(name: str, value: object) -> str:
    return f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>"


def _card(title: str, media_type: str, picture: bytes | None, style: str) -> str:
    if picture is None:
        return ""
    image = f'<img alt="{html.escape(title)}" src="{data_address(media_type, picture)}">'
    return f'<section class="{style}"><h2>{html.escape(title)}</h2>{image}</section>'


def _embeddable(script: str) -> str:
    """A script that can stand inside a page: it must not end the element early, nor ask for its source map."""
    without_map = re.sub(r"(?m)^//# sourceMappingURL=.*$", "", script)
    return re.sub(r"(?i)</(?=script)", r"<\\/", without_map)
