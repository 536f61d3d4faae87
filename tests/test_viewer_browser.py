"""The page alive: a real browser, real clicks, and the pixels that they leave.

What is drawn is compared with the project's own formulas (`shading.lambert`, the lights of `video` and `lights`, closed
forms of a ball) over the whole picture.
"""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from jaxtyping import Bool, Float
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, sync_playwright
from playwright.sync_api import Page as Tab
from trimesh.exchange.gltf import export_glb
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from dreamfusion import compose
from dreamfusion.cameras import orbit
from dreamfusion.lights import Light, albedo_only, key_light
from dreamfusion.mesh import Mesh, glb_bytes
from dreamfusion.nerf.fields import FieldOutput
from dreamfusion.nerf.shading import lambert
from dreamfusion.video import soft_light
from dreamfusion.viewer import Page, render_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox", "--disable-quic"]
FLAGS += ["--disable-background-networking", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"]
COLOUR = np.array([0.8, 0.45, 0.2], np.float32)
MODES = ("lit", "albedo", "textureless", "normals", "wireframe")
RADIUS, DISTANCE = 0.5, 1.05 * 0.5 / np.sin(np.radians(20))
"""of the ball in the page (its longest side is 1), and of the camera from its middle"""
AZIMUTH, ELEVATION = 25.0, 20.0
"""where the camera is at first, degrees"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@dataclass(frozen=True)
class Visit:
    """A page in a tab, and all that it asked for or complained about."""

    tab: Tab
    requests: list[str]
    troubles: list[str]

    @property
    def canvas(self) -> Locator:
        return self.tab.locator("#canvas")

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Of the canvas: left, top, width, height in pixels."""
        box = self.canvas.bounding_box()
        assert box is not None
        return box["x"], box["y"], box["width"], box["height"]

    def show(self, mode: str) -> Float[np.ndarray, "h w 3"]:
        """The picture after a click on the name of a mode."""
        self.tab.get_by_text(mode, exact=True).click()
        return self.picture()

    def picture(self) -> Float[np.ndarray, "h w 3"]:
        """Display values of the whole pixels on the stage, drawn anew, without the handle of the light."""
        self.tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shot = Image.open(io.BytesIO(self.tab.screenshot(style="#sun { visibility: hidden }"))).convert("RGB")
        left, top, width, height = self.box
        return np.asarray(shot)[int(top) : int(top + height), int(left) : int(left + width)] / 255

    def ball(self) -> tuple[Float[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
        """Where every pixel of `picture` meets the ball, in radii and the camera's axes, and where it surely does.

        Where it does not, the point next to the ball. The picture's shorter side is seen under 40 degrees.
        """
        left, top, width, height = self.box
        across = np.arange(int(left), int(left + width)) + 0.5 - left - width / 2
        up = top + height / 2 - np.arange(int(top), int(top + height)) - 0.5
        x, y = np.array(np.meshgrid(across, up)) * np.tan(np.radians(20)) / (min(width, height) / 2)
        way = np.stack([x, y, -np.ones_like(x)], -1) / np.sqrt(x**2 + y**2 + 1)[..., None]
        ahead = -DISTANCE * way[..., 2]
        short = RADIUS**2 - DISTANCE**2 + ahead**2
        hit = way * (ahead - np.sqrt(np.maximum(short, 0)))[..., None] + [0, 0, DISTANCE]
        return hit / RADIUS, short > 0.05 * RADIUS**2

    def reset(self) -> None:
        self.tab.get_by_text("Lit", exact=True).click()
        self.tab.get_by_text("Reset", exact=True).click()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, page: Page, folder: Path, script: str = "", **options: Any) -> Iterator[Visit]:
    """The page in a tab of its own; unless told otherwise it does not move by itself."""
    path = folder / "index.html"
    path.write_text(render_page(page), encoding="utf-8")
    given = {"viewport": {"width": 800, "height": 600}, "reduced_motion": "reduce", **options}
    context: BrowserContext = browser.new_context(**given)
    context.add_init_script(script)
    tab = context.new_page()
    seen = Visit(tab, [], [])
    tab.on("request", lambda request: seen.requests.append(request.url))
    tab.on("pageerror", lambda error: seen.troubles.append(str(error)))
    tab.on("console", lambda line: seen.troubles.append(line.text) if line.type in ("error", "warning") else None)
    tab.goto(path.as_uri())
    tab.locator("#stage:is([aria-busy=false], .blind)").wait_for()
    yield seen
    context.close()


MOVING = {"kind": "spin", "period_s": 0.5}


def moving(folder: Path) -> bytes:
    """A ball that stands a metre off the axis about which it turns."""
    (folder / "ball.glb").write_bytes(ball())
    content = {"assets": [{"file": "ball.glb", "position": [1.0, 0.0, 0.0]}], "motion": MOVING}
    return compose.glb_content(compose.compose(compose.parse(content, folder / "scene.json")))


def ball_at(picture: Float[np.ndarray, "h w 3"]) -> float:
    """Where across the stage the ball is, 0 to 1."""
    _, columns = np.nonzero(picture[..., 0] > picture[..., 2] + 0.15)
    return float(columns.mean() / picture.shape[1])


def test_motion_is_played_and_stopped(browser, tmp_path):
    """It begins by itself, but not where the system asks for less motion, and the ball stays within the stage."""
    page = page_of(moving(tmp_path))
    with visit(browser, page, tmp_path) as seen:
        play = seen.tab.get_by_role("button", name="Move", exact=True)
        still = ball_at(seen.picture())
        assert play.get_attribute("aria-pressed") == "false"
        assert ball_at(seen.picture()) == still
        play.click()
        places = [ball_at(seen.picture()) for _ in range(12)]
        assert max(places) - min(places) > 0.1
        assert 0.1 < min(places) <= max(places) < 0.9
        play.click()
        assert ball_at(seen.picture()) == ball_at(seen.picture())
        assert seen.troubles == []
    with visit(browser, page, tmp_path, reduced_motion="no-preference") as seen:
        assert seen.tab.get_by_role("button", name="Move", exact=True).get_attribute("aria-pressed") == "true"
        assert seen.tab.get_by_role("button", name="Rotate").get_attribute("aria-pressed") == "false"
    with visit(browser, page_of(ball()), tmp_path) as seen:
        assert seen.tab.get_by_role("button", name="Move", exact=True).count() == 0


def page_of(mesh: bytes, **more: Any) -> Page:
    return Page("a thing", {"seed": 0}, mesh, **more)


def ball() -> bytes:
    """One colour all over, its middle at height 0.5."""
    form = trimesh.creation.icosphere(subdivisions=4)
    return glb_bytes(Mesh(form.vertices.astype(np.float32), form.faces, np.tile(COLOUR, (len(form.vertices), 1))), {})


def octahedron() -> bytes:
    """Green below; above red where x > 0 and blue where x < 0. Flat faces."""
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float32)
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    middle = corners[faces].mean(1)
    red, green, blue = np.eye(3, dtype=np.float32)
    above = np.where(middle[:, :1] > 0, red, blue)
    colours = np.where(middle[:, 1:2] > 0, above, green)
    return glb_bytes(
        Mesh(corners[faces].reshape(-1, 3), np.arange(24).reshape(-1, 3), np.repeat(colours, 3, axis=0)), {}
    )


QUARTERS = np.array([[[255, 0, 0], [0, 200, 0]], [[0, 0, 255], [200, 180, 40]]], np.uint8)
"""Rows from the top as seen from the front"""
BEND = np.array([0.36, 0.48, 0.8])
"""The normal everywhere in the map: to the right and upwards"""


def textured(unlit: bool = False) -> bytes:
    """A square that faces +z with a picture of four colours and a map of slanting normals."""
    corners = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0.5, 1, 0], [-0.5, 1, 0]])
    picture = Image.fromarray(np.repeat(np.repeat(QUARTERS, 32, 0), 32, 1))
    relief = Image.new("RGB", (8, 8), tuple(np.round((BEND + 1) * 127.5).astype(int)))
    material = PBRMaterial(baseColorTexture=picture, normalTexture=None if unlit else relief, metallicFactor=0.0)
    visual = TextureVisuals(uv=corners[:, :2] + [0.5, 0], material=material)
    form = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)

    def finish(tree: dict) -> None:
        if unlit:
            tree["extensionsUsed"] = ["KHR_materials_unlit"]
            tree["materials"][0]["extensions"] = {"KHR_materials_unlit": {}}

    return export_glb(form, include_normals=True, tree_postprocessor=finish)


@pytest.fixture(scope="module")
def still(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """The ball, with files to download. All that it asked for and complained about is judged at the end."""
    picture = Image.new("RGB", (8, 8), (10, 20, 200))
    folder = tmp_path_factory.mktemp("ball")
    picture.save(folder / "t.webp")
    picture.save(folder / "s.png")
    extras = {"turntable": (folder / "t.webp").read_bytes(), "sheet": (folder / "s.png").read_bytes()}
    page = page_of(ball(), **extras, files={"mesh.obj": b"v 0 0 0\n", "bytes.bin": bytes(range(256)) * 300})
    with visit(browser, page, folder) as seen:
        yield seen
        assert seen.troubles == []
        assert [address for address in seen.requests if not address.startswith(("file:", "data:", "blob:"))] == []
        assert [address for address in seen.requests if address.startswith("file:")] == [seen.tab.url]


@pytest.fixture
def quiet(still: Visit) -> Visit:
    """The ball as the page opens it."""
    still.reset()
    return still


# What the ways of showing show


def test_albedo_is_the_colour_of_the_mesh(quiet: Visit) -> None:
    _, inside = quiet.ball()
    assert np.abs(quiet.show("Albedo")[inside] - COLOUR).max() < 2 / 255


def expected_shade(hit: Float[np.ndarray, "m 3"], light: Light) -> Float[np.ndarray, "m 3"]:
    normal = torch.from_numpy(hit).float()
    matter = FieldOutput(torch.ones(len(hit)), torch.from_numpy(COLOUR).expand(len(hit), 3), normal)
    return lambert(matter, RADIUS * normal, light, torch.zeros(len(hit), dtype=torch.long)).clamp(max=1).numpy()


@pytest.mark.parametrize("mode", ["Lit", "Albedo", "Textureless"])
def test_page_and_renderer_agree_on_light(quiet: Visit, mode: str) -> None:
    """The camera is on +z here, so that its axes are the world's; a ball looks the same from everywhere."""
    view = torch.zeros(1), torch.zeros(1), torch.tensor([DISTANCE]).float(), torch.tensor([0.7])
    cameras = orbit(*view, size=8)
    light = {"Lit": soft_light(cameras), "Albedo": albedo_only(1), "Textureless": key_light(cameras, textureless=True)}[
        mode
    ]
    hit, inside = quiet.ball()
    shown = quiet.show(mode)[inside]
    assert np.abs(shown - expected_shade(hit[inside], light)).max() < 3 / 255
    if mode != "Albedo":
        assert np.ptp(shown) > 0.2


def test_normals_are_coloured_in_the_axes_of_the_camera(quiet: Visit) -> None:
    hit, inside = quiet.ball()
    assert np.abs(quiet.show("Normals")[inside] - (0.5 + 0.5 * hit[inside])).max() < 3 / 255
    quiet.canvas.press("ArrowUp")
    assert np.abs(quiet.picture()[inside] - (0.5 + 0.5 * hit[inside])).max() < 3 / 255


def test_it_stands_on_its_shadow(quiet: Visit) -> None:
    def shadow() -> Float[np.ndarray, "h w"]:
        """How much darker the stage is in light than where no light matters, beside the ball."""
        nearest, _ = quiet.ball()
        beside = np.linalg.norm(nearest, axis=-1) > 1.02
        return np.where(beside, (quiet.show("Albedo") - quiet.show("Lit")).mean(-1), 0.0)

    seen = shadow()
    rows, _ = np.nonzero(seen > 0.03)
    assert len(rows) > 1000
    assert rows.min() > 0.6 * len(seen)
    for _ in range(8):
        quiet.canvas.press("ArrowDown")
    assert np.abs(shadow()).max() < 0.01  # nothing is in the way of who looks from below


@pytest.fixture(scope="module")
def flat(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    with visit(browser, page_of(textured()), tmp_path_factory.mktemp("flat")) as seen:
        yield seen
        assert seen.troubles == []


def test_a_texture_is_shown_upright_in_its_own_colours(flat: Visit) -> None:
    shown = flat.show("Albedo")
    rows, columns = np.indices(shown.shape[:2])
    places = {}
    for place, colour in zip(((0, 0), (0, 1), (1, 0), (1, 1)), QUARTERS.reshape(4, 3) / 255, strict=True):
        near = np.abs(shown - colour).max(-1) < 2 / 255
        assert near.sum() > 5000
        places[place] = rows[near].mean(), columns[near].mean()
    assert all(places[0, side][0] + 50 < places[1, side][0] for side in (0, 1))
    assert all(places[row, 0][1] + 50 < places[row, 1][1] for row in (0, 1))


def test_a_map_of_normals_bends_them(flat: Visit) -> None:
    degrees = torch.tensor([[AZIMUTH], [ELEVATION]]).deg2rad()
    pose = orbit(degrees[0], degrees[1], torch.ones(1), torch.ones(1), size=8).pose[0, :3, :3].numpy()
    shown = flat.show("Normals")
    middle = shown[shown.shape[0] // 2, shown.shape[1] // 2]
    assert np.abs(middle - (0.5 + 0.5 * BEND @ pose)).max() < 4 / 255


def test_colours_that_hold_their_light_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    with visit(browser, page_of(textured(unlit=True)), tmp_path) as seen:
        assert seen.tab.locator("input:checked").get_attribute("value") == "albedo"
        assert seen.troubles == []


# The octahedron: what lies where


@pytest.fixture(scope="module")
def gem(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    with visit(browser, page_of(octahedron()), tmp_path_factory.mktemp("gem")) as seen:
        yield seen
        assert seen.troubles == []


def pure(shown: Float[np.ndarray, "h w 3"]) -> list[Bool[np.ndarray, "h w"]]:
    """Where it is clearly red, green and blue."""
    return [shown[..., own] > np.delete(shown, own, axis=2).max(-1) + 0.3 for own in range(3)]


def test_the_object_stands_upright_and_is_no_mirror_image(gem: Visit) -> None:
    masks = pure(gem.show("Albedo"))
    rows, columns = np.indices(masks[0].shape)
    assert min(mask.sum() for mask in masks) > 5000
    (red_x, _, blue_x), (red_y, green_y, blue_y) = ([axis[m].mean() for m in masks] for axis in (columns, rows))
    assert max(red_y, blue_y) + 50 < green_y
    assert blue_x + 50 < red_x


def test_the_wireframe_shows_the_background_between_lines(gem: Visit) -> None:
    solid = np.any(pure(gem.show("Albedo")), axis=0)
    shown = gem.show("Wireframe")
    corner = shown[5, 5]
    lines = np.abs(shown - corner).max(-1) > 0.3
    assert 0.005 < lines[solid].mean() < 0.05
    between = np.abs(shown[solid & ~lines] - corner).max(-1)
    assert np.median(between) < 0.1
    gem.tab.emulate_media(color_scheme="dark")
    dark = gem.picture()
    assert dark[solid & lines].mean() > shown[solid & lines].mean() + 0.3
    assert dark[5, 5].mean() < 0.4
    gem.tab.emulate_media(color_scheme="light")


# Light, view, movement


def brighter_side(shown: Float[np.ndarray, "h w 3"], seen: Visit) -> float:
    """How much brighter the ball's right half is than its left one."""
    hit, inside = seen.ball()
    bright = shown.mean(-1)
    return bright[inside & (hit[..., 0] > 0)].mean() - bright[inside & (hit[..., 0] < 0)].mean()


def drag(seen: Visit, start: tuple[float, float], end: tuple[float, float]) -> None:
    mouse = seen.tab.mouse
    mouse.move(*start)
    mouse.down()
    mouse.move(*((a + b) / 2 for a, b in zip(start, end, strict=True)))
    mouse.move(*end)
    mouse.up()


def middle_of(thing: Locator) -> tuple[float, float]:
    box = thing.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.parametrize("mode", ["Lit", "Textureless"])
def test_dragging_the_light_moves_the_bright_side(quiet: Visit, mode: str) -> None:
    quiet.show(mode)
    sun, (x, y) = quiet.tab.locator("#sun"), middle_of(quiet.canvas)
    drag(quiet, middle_of(sun), (x - 150, y))
    assert middle_of(sun) == pytest.approx((x - 150, y), abs=1.5)
    assert brighter_side(quiet.picture(), quiet) < -0.05
    drag(quiet, middle_of(sun), (x + 60, y))
    assert brighter_side(quiet.picture(), quiet) > 0.02
    sides = []
    for _ in range(3):
        sun.press("ArrowLeft")
        sides.append(brighter_side(quiet.picture(), quiet))
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] < sides[0] - 0.03


def test_the_light_cannot_be_lost(quiet: Visit) -> None:
    sun, (x, y) = quiet.tab.locator("#sun"), middle_of(quiet.canvas)
    for turn in range(50):  # a busy machine draws later, and the sun may move away before it is grasped
        if middle_of(sun)[0] < x - 50:
            break
        if turn % 10 == 0:
            drag(quiet, middle_of(sun), (2, y))
        quiet.tab.wait_for_timeout(100)
    assert x - quiet.box[2] / 2 < middle_of(sun)[0] < x - 50
    assert sun.is_visible()
    quiet.show("Albedo")
    assert not sun.is_visible()


def test_dragging_turns_the_object_and_reset_restores_it(gem: Visit) -> None:
    before = gem.show("Albedo")
    x, y = middle_of(gem.canvas)
    drag(gem, (x, y), (x + 100, y))
    turned = gem.picture()
    assert np.abs(turned - before).max(-1).mean() > 0.02
    assert pure(turned)[2].sum() > 1.5 * pure(before)[2].sum()  # what was on the left has come to the front
    gem.tab.mouse.move(x, y)
    gem.tab.mouse.wheel(0, 300)
    assert np.any(pure(gem.picture()), axis=0).sum() < 0.95 * np.any(pure(turned), axis=0).sum()
    gem.tab.get_by_text("Reset", exact=True).click()
    np.testing.assert_array_equal(gem.picture(), before)


def test_everything_can_be_done_from_the_keyboard(gem: Visit) -> None:
    gem.reset()
    gem.show("Albedo")
    gem.canvas.press("Home")
    before = gem.picture()
    gem.canvas.press("ArrowLeft")  # the camera goes to the left: more of the blue
    assert pure(gem.picture())[2].sum() > 1.02 * pure(before)[2].sum()
    gem.canvas.press("+")
    assert np.any(pure(gem.picture()), axis=0).sum() > 1.05 * np.any(pure(before), axis=0).sum()
    gem.canvas.press("Home")
    np.testing.assert_array_equal(gem.picture(), before)
    for key, mode in zip("12345", MODES, strict=True):
        gem.canvas.press(key)
        assert gem.tab.locator("input:checked").get_attribute("value") == mode
    gem.tab.locator("input:checked").press("ArrowLeft")
    assert gem.tab.locator("input:checked").get_attribute("value") == "normals"
    gem.canvas.press("Home")
    before = gem.picture()
    for key in ("ArrowLeft", "+", "2"):  # with these, the keys are the browser's
        for held in ("ctrlKey", "altKey", "metaKey"):
            gem.canvas.dispatch_event("keydown", {"key": key, held: True})
    assert np.array_equal(gem.picture(), before)
    gem.canvas.press("Space")
    assert gem.tab.get_by_text("Rotate").get_attribute("aria-pressed") == "true"
    gem.canvas.press("Space")
    assert gem.tab.get_by_text("Rotate").get_attribute("aria-pressed") == "false"


def test_it_turns_by_itself_until_somebody_takes_it(browser: Browser, tmp_path: Path) -> None:
    with visit(browser, page_of(octahedron()), tmp_path, reduced_motion="no-preference") as seen:
        button = seen.tab.get_by_text("Rotate")
        assert button.get_attribute("aria-pressed") == "true"
        button.click()
        assert button.get_attribute("aria-pressed") == "false"
        seen.tab.get_by_text("Reset", exact=True).click()
        before = now = pure(seen.show("Albedo"))[0].sum()
        button.click()
        while abs(now / before - 1) < 0.02:  # the time limit of the test is that of the loop
            now = pure(seen.picture())[0].sum()
        assert now > before  # on to the object's left side, the red one
        x, y = middle_of(seen.canvas)
        seen.tab.mouse.click(x, y)
        assert button.get_attribute("aria-pressed") == "false"
        np.testing.assert_array_equal(seen.picture(), seen.picture())
        assert seen.troubles == []


def test_a_finger_turns_it_on_a_small_screen(browser: Browser, tmp_path: Path) -> None:
    phone = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    with visit(browser, page_of(octahedron()), tmp_path, **phone) as seen:
        assert seen.tab.evaluate("document.documentElement.scrollWidth") == 360
        before = seen.show("Albedo")
        x, y = middle_of(seen.canvas)
        finger = seen.tab.context.new_cdp_session(seen.tab)
        for kind, place in (("touchStart", x), ("touchMove", x + 30), ("touchMove", x + 60), ("touchEnd", None)):
            points = [] if place is None else [{"x": place, "y": y}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        assert pure(seen.picture())[2].sum() > 1.2 * pure(before)[2].sum()
        assert seen.troubles == []


# Files, and what is not there


def test_downloads_give_the_very_bytes(quiet: Visit) -> None:
    names = quiet.tab.locator("a[download]").all_inner_texts()
    page = {"mesh.glb": ball(), "mesh.obj": b"v 0 0 0\n", "bytes.bin": bytes(range(256)) * 300}
    assert names == ["mesh.glb", "turntable.webp", "sheet.png", "mesh.obj", "bytes.bin"]
    for name in names:
        with quiet.tab.expect_download() as waiting:
            quiet.tab.get_by_role("link", name=name, exact=True).click()
        assert waiting.value.suggested_filename == name
        content = Path(waiting.value.path()).read_bytes()
        if name in page:
            assert content == page[name]
        else:
            assert Image.open(io.BytesIO(content)).size == (8, 8)


def test_without_webgl_the_pictures_and_the_files_remain(browser: Browser, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "s.png")
    page = page_of(ball(), sheet=(tmp_path / "s.png").read_bytes())
    with visit(browser, page, tmp_path, "HTMLCanvasElement.prototype.getContext = () => null") as seen:
        assert seen.tab.get_by_text("This browser cannot show the mesh").is_visible()
        assert seen.tab.locator("img").is_visible()
        assert not seen.canvas.is_visible()
        assert seen.tab.locator("#stage").get_attribute("aria-busy") == "false"
        assert not seen.tab.get_by_text("Reset", exact=True).is_visible()
        with seen.tab.expect_download() as waiting:
            seen.tab.get_by_role("link", name="mesh.glb", exact=True).click()
        assert Path(waiting.value.path()).read_bytes() == page.mesh


def test_the_policy_of_the_page_forbids_requests(browser: Browser, tmp_path: Path) -> None:
    ask = """(run) => new Promise((done) => {
        document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
        run === "fetch" ? fetch("https://example.com").catch(() => {}) : (new Image().src = "https://example.com/a.png");
    })"""
    # The event is the browser's word that it asked nobody; the address appears in the log of requests all the same.
    with visit(browser, page_of(octahedron()), tmp_path) as seen:
        assert seen.tab.evaluate(ask, "fetch") == "connect-src"
        assert seen.tab.evaluate(ask, "image") == "img-src"
