"""The page of a run: whole in itself, faithful to the files, harmless with any prompt, and alive in a browser."""

import base64
import io
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamfusion.errors import UserError
from dreamfusion.mesh import Mesh, glb_bytes
from dreamfusion.runs import RunFolder
from dreamfusion.viewer import Page, render_page, write_page

NASTY = '</script><script>alert("$mesh")</script> & <b>tea</b>'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Elements(HTMLParser):
    """All tags with their attributes, and the text of every script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts[self._open] = self.texts.get(self._open, "") + data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def octahedron() -> Mesh:
    """Green below; above red where x > 0 and blue where x < 0."""
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float32)
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    middle = corners[faces].mean(1)
    red, green, blue = np.eye(3, dtype=np.float32)
    above = np.where(middle[:, :1] > 0, red, blue)
    colours = np.where(middle[:, 1:2] > 0, above, green)
    return Mesh(corners[faces].reshape(-1, 3), np.arange(24).reshape(-1, 3), np.repeat(colours, 3, axis=0))


def picture(name: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 20, 200)).save(file, format=name)
    return file.getvalue()


@pytest.fixture(scope="module")
def page() -> Page:
    facts = {"seed": 7, "prior <name>": "a&b"}
    return Page(NASTY, facts, glb_bytes(octahedron(), {}), picture("WEBP"), picture("PNG"))


@pytest.fixture(scope="module")
def elements(page: Page) -> Elements:
    return Elements(render_page(page))


def content_of(address: str | None, media_type: str) -> bytes:
    assert address is not None
    assert address.startswith(f"data:{media_type};base64,")
    return base64.b64decode(address.split(",")[1], validate=True)


def test_mesh_and_pictures_come_back_from_the_page(page: Page, elements: Elements) -> None:
    (viewer,) = elements.of("model-viewer")
    assert content_of(viewer["src"], "model/gltf-binary") == page.mesh
    turntable, sheet = elements.of("img")
    assert content_of(turntable["src"], "image/webp") == page.turntable
    assert content_of(sheet["src"], "image/png") == page.sheet


def test_nothing_is_loaded_from_elsewhere(page: Page, elements: Elements) -> None:
    loading = [
        value for _, attributes in elements.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(loading) == 3
    assert all(value is not None and value.startswith("data:") for value in loading)
    assert not elements.of("link")
    (policy,) = (each["content"] for each in elements.of("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "sourceMappingURL" not in render_page(page)
    style = elements.texts["style"]
    assert "url(" not in style
    assert "@import" not in style


def test_prompt_and_facts_are_shown_as_text_never_as_markup(page: Page, elements: Elements) -> None:
    assert elements.texts["h1"].strip() == NASTY
    assert elements.texts["title"].strip() == f"{NASTY} - dreamfusion"
    assert len(elements.of("script")) == 2
    assert not elements.of("b")
    rows = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", render_page(page))
    assert rows == [("seed", "7"), ("prior &lt;name&gt;", "a&amp;b")]


def test_missing_pictures_leave_no_empty_frames(page: Page) -> None:
    assert not Elements(render_page(Page("tea", {}, page.mesh))).of("img")


def test_write_page_takes_the_files_of_the_run(page: Page, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(UserError, match="dreamfusion mesh"):
        write_page(run, "tea", {})
    run.mesh.write_bytes(page.mesh)
    run.sheet.write_bytes(picture("PNG"))
    write_page(run, "tea", {"seed": 7})
    assert run.index.read_text(encoding="utf-8") == render_page(
        Page("tea", {"seed": 7}, page.mesh, None, picture("PNG"))
    )


def screenshot(page: str, folder: Path, *flags: str) -> np.ndarray:
    """Pixels of the page in a browser window of 900 x 700."""
    assert CHROMIUM is not None
    (folder / "index.html").write_text(page, encoding="utf-8")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=900,700"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-quic"]
    command += ["--virtual-time-budget=15000", f"--user-data-dir={folder / 'profile'}"]
    command += [*flags, f"--screenshot={folder / 'shot.png'}", (folder / "index.html").as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=os.environ | {"HOME": str(folder)})
    return np.asarray(Image.open(folder / "shot.png").convert("RGB")).astype(int)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_a_browser_shows_the_coloured_mesh_upright(page: Page, tmp_path: Path) -> None:
    still = render_page(replace(page, turntable=None, sheet=None)).replace(" auto-rotate ", " ")
    shot = screenshot(still, tmp_path, "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    rows, columns = np.indices(shot.shape[:2])
    pure = [shot[..., own] > np.delete(shot, own, axis=2).max(-1) + 80 for own in range(3)]
    assert min(mask.sum() for mask in pure) > 2000
    (red_x, green_x, blue_x), (red_y, green_y, blue_y) = ([axis[m].mean() for m in pure] for axis in (columns, rows))
    assert max(red_y, blue_y) + 50 < green_y
    assert blue_x + 50 < red_x
    assert blue_x < green_x < red_x
