"""The page of a run as text: whole in itself, faithful to the files, harmless with any prompt."""

import base64
import io
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamfusion.errors import UserError
from dreamfusion.mesh import Mesh, glb_bytes
from dreamfusion.runs import RunFolder
from dreamfusion.viewer import Page, render_page, write_page

NASTY = '</script><script>alert("$mesh")</script> & <b>tea</b>'


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


def triangle() -> Mesh:
    return Mesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]]), np.eye(3, dtype=np.float32))


def picture(name: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 20, 200)).save(file, format=name)
    return file.getvalue()


@pytest.fixture(scope="module")
def page() -> Page:
    facts = {"seed": 7, "negative": "", "prior <name>": "a&b"}
    files = {"config.json": b"{}", NASTY: bytes(range(256))}
    return Page(NASTY, facts, glb_bytes(triangle(), {}), picture("WEBP"), picture("PNG"), files)


@pytest.fixture(scope="module")
def elements(page: Page) -> Elements:
    return Elements(render_page(page))


def content_of(address: str | None, media_type: str) -> bytes:
    assert address is not None
    assert address.startswith(f"data:{media_type};base64,")
    return base64.b64decode(address.split(",")[1], validate=True)


def test_mesh_pictures_and_files_come_back_from_the_page(page: Page, elements: Elements) -> None:
    turntable, sheet = elements.of("img")
    assert content_of(turntable["src"], "image/webp") == page.turntable
    assert content_of(sheet["src"], "image/png") == page.sheet
    mesh, *pictures, config, other = elements.of("a")
    assert mesh["download"] == "mesh.glb"
    assert content_of(mesh["href"], "model/gltf-binary") == page.mesh
    for each in (config, other):
        assert content_of(each["href"], "application/octet-stream") == page.files[str(each["download"])]
    assert [each["download"] for each in pictures] == [turntable["id"], sheet["id"]] == ["turntable.webp", "sheet.png"]
    assert [each["data-of"] for each in pictures] == [turntable["id"], sheet["id"]]


def test_every_file_is_in_the_page_once(page: Page) -> None:
    text = render_page(page)
    assert page.turntable is not None
    assert page.sheet is not None
    for content in (page.mesh, page.turntable, page.sheet, *page.files.values()):
        assert text.count(f';base64,{base64.b64encode(content).decode()}"') == 1


def test_nothing_is_loaded_from_elsewhere(page: Page, elements: Elements) -> None:
    loading = [
        value for _, attributes in elements.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(loading) == 5
    assert all(value is not None and value.startswith("data:") for value in loading)
    assert not elements.of("link")
    (policy,) = (each["content"] for each in elements.of("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert {source for rule in rules.values() for source in rule.split()} == {
        "'none'",
        "'unsafe-inline'",
        "data:",
        "blob:",
    }
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


def test_the_library_s_licence_comes_with_the_page(elements: Elements) -> None:
    licence = (resources.files("dreamfusion.viewer") / "vendor/three.LICENSE.txt").read_text(encoding="utf-8")
    assert "Permission is hereby granted" in licence
    assert licence in elements.texts["script"]


def test_missing_pictures_leave_neither_frames_nor_links(page: Page) -> None:
    bare = Elements(render_page(Page("tea", {}, page.mesh)))
    assert not bare.of("img")
    assert [link["download"] for link in bare.of("a")] == ["mesh.glb"]


def test_write_page_takes_the_files_of_the_run(page: Page, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(UserError, match="dreamfusion mesh"):
        write_page(run, "tea", {})
    run.mesh.write_bytes(page.mesh)
    run.sheet.write_bytes(picture("PNG"))
    run.turntable_mp4.write_bytes(b"mp4")
    (run.path / "mesh.obj").write_bytes(b"obj")
    (run.path / "notes.txt").write_bytes(b"private")
    write_page(run, "tea", {"seed": 7})
    files = {"mesh.obj": b"obj", "turntable.mp4": b"mp4", "config.json": run.config.read_bytes()}
    expected = Page("tea", {"seed": 7}, page.mesh, None, picture("PNG"), files)
    assert run.index.read_text(encoding="utf-8") == render_page(expected)
