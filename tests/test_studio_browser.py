"""The studio's page in a real browser, by clicks, keys and typing alone, with a worker that makes nothing."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dreamfusion.batch.state import State as Standing
from dreamfusion.batch.state import States
from dreamfusion.mesh import Mesh, glb_bytes
from studio_parts import Client, batch_folder, fake_worker, run_folder, studio_at

__all__ = ["fake_worker"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox", "--disable-quic"]
FLAGS += [
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
PATIENCE = 60_000  # milliseconds, for a busy machine

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"), pytest.mark.timeout(300)]
expect.set_options(timeout=PATIENCE)
ENDLESS = 100_000
"""steps of a task that ends when it is canceled"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def products(fake_worker: Path) -> None:
    """What a run leaves: a ball, its pictures."""
    form = trimesh.creation.icosphere(subdivisions=2)
    colours = np.tile(np.array([0.8, 0.45, 0.2], np.float32), (len(form.vertices), 1))
    (fake_worker / "mesh.glb").write_bytes(glb_bytes(Mesh(form.vertices.astype(np.float32), form.faces, colours), {}))
    strip = Image.new("RGB", (48, 16), (200, 110, 50))
    strip.save(fake_worker / "media" / "preview.png")
    frames = [Image.new("RGB", (16, 16), (50 * n, 110, 50)) for n in range(4)]
    frames[0].save(fake_worker / "media" / "turntable.webp", save_all=True, append_images=frames[1:], duration=100)
    strip.save(fake_worker / "media" / "sheet.png")


@contextmanager
def visit(browser: Browser, client: Client, path: str = "", **options: Any) -> Iterator[Page]:
    """The page in a tab of its own. All that it asks for stays on this machine, and it complains about nothing."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, "reduced_motion": "reduce", **options})
    context.set_default_timeout(PATIENCE)
    page, asked, troubles = context.new_page(), list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "console",
        lambda line: troubles.append(f"{line.text} {line.location}") if line.type in ("error", "warning") else None,
    )
    page.goto(f"http://{client.host}/{path}")
    page.locator("body[data-ready]").wait_for(state="attached")
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((f"http://{client.host}/", "blob:", "data:"))] == []
    assert [text for text in troubles if "GPU stall" not in text] == []


def make(page: Page, prompt: str, steps: int = 5) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Steps", exact=True).fill(str(steps))
    page.get_by_role("button", name="Make it").click()


def test_from_the_first_visit_to_the_finished_object(browser, tmp_path):
    with studio_at(tmp_path) as client, visit(browser, client) as page:
        expect(page.get_by_text("Nothing here yet.")).to_be_visible()
        page.get_by_label("Prompt", exact=True).press_sequentially("a red chiar")
        expect(page.get_by_text("does not know “chiar”")).to_be_visible()
        page.get_by_role("button", name="chair", exact=True).click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red chair")
        expect(page.get_by_text("understands")).to_be_visible()
        make(page, "a red chair")
        page.get_by_role("link", name=re.compile("a red chair, seed 0, finished")).click()
        expect(page.get_by_role("heading", name="a red chair")).to_be_focused()
        page.locator("#stage[aria-busy=false]:not(.blind)").wait_for()
        canvas = page.locator("#canvas").screenshot()
        middle = np.asarray(Image.open(io.BytesIO(canvas)).convert("RGB")).astype(float)
        height, width, _ = middle.shape
        assert middle[height // 2, width // 2, 0] > middle[height // 2, width // 2, 2] + 40  # the ball is orange
        with page.expect_download() as saved:
            page.get_by_role("link", name="GLB").click()
        assert saved.value.suggested_filename == "a-red-chair-0-mesh.glb"
        assert Path(saved.value.path()).read_bytes()[:4] == b"glTF"
        with page.expect_download() as saved:
            page.get_by_role("button", name="STL").click()
        assert Path(saved.value.path()).read_text() == "solid"
        page.get_by_role("button", name="Again with another seed").click()
        told = page.locator(".toast", has_text=re.compile("In the queue: a red chair, seed [1-9]"))
        told.get_by_role("link", name="See it").click()
        expect(page.get_by_text("finished", exact=True)).to_be_visible()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("button", name="Keep it").click()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.locator(".tile")).to_have_count(1)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [".studio", "a-red-chair-0"]


def test_a_reload_and_a_second_tab_show_what_runs(browser, tmp_path):
    with studio_at(tmp_path) as client, visit(browser, client) as page:
        make(page, "a snake", steps=ENDLESS)
        expect(page.locator(".live .prompt")).to_have_text("a snake")
        page.reload()
        expect(page.locator(".live .prompt")).to_have_text("a snake")
        with visit(browser, client) as other:
            expect(other.locator(".live .prompt")).to_have_text("a snake")
            expect(other.locator(".live svg polyline").first).to_be_attached()
            other.get_by_role("button", name="Cancel", exact=True).click()
            expect(other.locator(".live")).to_have_count(0)
        expect(page.locator(".live")).to_have_count(0)
        page.get_by_role("link", name=re.compile("a snake, seed 0, stopped")).click()
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#result-state")).to_have_text("running")
        page.locator("#result-actions").get_by_role("button", name="Cancel").click()
        expect(page.locator("#result-state")).to_have_text("stopped")


def test_canceling_a_waiting_task_leaves_the_running_one(browser, tmp_path):
    with studio_at(tmp_path) as client, visit(browser, client) as page:
        make(page, "a snake", steps=ENDLESS)
        make(page, "a fox")
        make(page, "a cat")
        expect(page.locator(".queue li")).to_have_count(2)
        page.get_by_role("button", name="Cancel a fox").click()
        expect(page.locator(".queue li")).to_have_count(1)
        expect(page.locator(".live .prompt")).to_have_text("a snake")
        page.get_by_role("link", name=re.compile("a fox, seed .*, stopped")).wait_for()
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("link", name=re.compile("a cat, seed .*, finished")).wait_for()


def test_keys_alone_will_do(browser, tmp_path, fake_worker):
    for n in range(3):
        shutil.copy(fake_worker / "mesh.glb", run_folder(tmp_path / f"a-fox-{n}", seed=n))
    with studio_at(tmp_path) as client, visit(browser, client) as page:
        page.locator("#cards .look").first.focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("[...document.querySelectorAll('.look')].indexOf(document.activeElement)") == 1
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="a fox")).to_be_focused()
        page.keyboard.press("Escape")
        page.keyboard.press("n")
        page.keyboard.type("a blue cat")
        page.keyboard.press("Enter")
        page.get_by_role("link", name=re.compile("a blue cat, seed 0, finished")).wait_for()
        page.locator("#cards .look").first.focus()
        page.keyboard.press("/")
        page.keyboard.type("seed:2")
        expect(page.locator(".tile")).to_have_count(1)
        page.locator(".brand").focus()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()


NAMELESS = """() => [...document.querySelectorAll("button, a, input, select, textarea, canvas, img")]
  .filter((each) => each.checkVisibility() && each.getAttribute("alt") !== "" && !each.closest("[aria-hidden=true]"))
  .filter((each) => !(each.ariaLabel || each.labels?.length || each.alt || each.textContent.trim() || each.title))
  .map((each) => each.outerHTML)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_everything_has_a_name_and_fits(browser, tmp_path, width, scheme, fake_worker):
    run_folder(tmp_path / "long", prompt="a " + "very-long-word-without-an-end-" * 8)
    shutil.copy(fake_worker / "mesh.glb", tmp_path / "long")
    batch_folder(tmp_path / ("batch-without-end-" * 6), {"a " + "very-endless-word-" * 8: FAILED})
    options = {"viewport": {"width": width, "height": 740}, "color_scheme": scheme}
    with studio_at(tmp_path) as client, visit(browser, client, **options) as page:
        task = client.make("a fox")
        client.until(task["id"], "SUCCEEDED")
        [long] = client.get("/api/tasks?query=very-long").json["tasks"]
        page.get_by_text("All settings").click()
        [batch] = client.get("/api/tasks?query=without-end").json["tasks"]
        for path in ("#/", f"#/task/{task['id']}", f"#/task/{long['id']}", f"#/batch/{batch['id']}", "#/compose"):
            page.goto(f"http://{client.host}/{path}")
            page.wait_for_function("() => document.querySelector('main > div:not([hidden])')")
            assert page.evaluate(NAMELESS) == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
        assert (brightness < 80) == (scheme == "dark")
        page.get_by_role("button", name="Dark or light").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper


def test_what_others_wrote_is_text(browser, tmp_path):
    """Stored cross-site scripting through a prompt, a folder's name or an error."""
    script = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>'
    path = run_folder(tmp_path / "a<b>c", prompt=script, preset=script, done=1)
    note = {"state": "FAILED", "error": script, "owner": script}
    (path / ".task.json").write_text(json.dumps(note))
    with studio_at(tmp_path) as client, visit(browser, client) as page:
        page.locator(".tile .look").click()
        expect(page.locator("#result-title")).to_have_text(script)
        expect(page.locator(".problem").filter(has_text="onerror")).to_be_visible()
        assert page.evaluate("window.hacked") is None
        with browser.new_context() as context:  # where complaints are expected
            tab = context.new_page()
            tab.goto(f"http://{client.host}/")
            markup = "() => { try { document.body.innerHTML = '<b>x</b>' } catch { return 'refused' } }"
            assert tab.evaluate(markup) == "refused"


def test_a_scene_is_composed_by_dragging_and_by_numbers(browser, tmp_path):
    with studio_at(tmp_path) as client, visit(browser, client) as page:
        for prompt in ("a fox", "a cat"):
            client.until(client.make(prompt)["id"], "SUCCEEDED")
        for name in ("Choose a fox for a scene", "Choose a cat for a scene"):
            page.get_by_role("button", name=name).click()
        page.get_by_role("link", name="Compose", exact=True).click()
        expect(page.locator(".object")).to_have_count(2)
        right, front = page.get_by_label("Right of a fox"), page.get_by_label("Front of a fox")
        assert (right.input_value(), front.input_value()) == ("0", "0")
        page.wait_for_timeout(300)
        box = page.locator("#ground").bounding_box()
        assert box is not None
        before = float(page.get_by_label("Right of a cat").input_value())
        place = page.evaluate("() => window.innerWidth") and box
        found = False
        for share in np.linspace(0.15, 0.85, 15):  # until something lies under the pointer
            page.mouse.move(place["x"] + place["width"] * share, place["y"] + place["height"] * 0.55)
            page.mouse.down()
            page.mouse.move(place["x"] + place["width"] * share, place["y"] + place["height"] * 0.75, steps=3)
            page.mouse.up()
            if float(front.input_value()) > 0.05:
                found = True
                break
        assert found
        assert float(page.get_by_label("Right of a cat").input_value()) == before
        page.get_by_role("button", name="a cat", exact=True).click()
        page.keyboard.press("ArrowRight")
        assert float(page.get_by_label("Right of a cat").input_value()) == pytest.approx(before + 0.05)
        page.get_by_label("Turned of a cat").fill("90")
        page.get_by_label("Title").fill("two friends")
        page.get_by_role("button", name="Make the scene").click()
        expect(page.get_by_role("heading", name="two friends")).to_be_visible()
        page.locator("#stage[aria-busy=false]:not(.blind)").wait_for()
    scene = json.loads((tmp_path / "two-friends" / "scene.json").read_text())
    assert scene["assets"][1]["rotation"] == [0, 90, 0]
    assert scene["assets"][0]["position"][2] > 0.05


FAILED = Standing("failed", attempt=3, failures=3, error="<b>it</b> diverged")


def test_a_batch_is_a_collection_of_its_own(browser, tmp_path, fake_worker):
    """Failures first, with what is wrong; pages, search and filters; a run and back; going on from here."""
    runs = {
        f"a {'tall' if number < 11 else 'small'} fox {number}": Standing("done", 1, step=5, seconds=9.0)
        for number in range(30)
    }
    folder = batch_folder(tmp_path / "animals", {**runs, "a refused owl": FAILED, "a late cat": Standing()})
    for run in folder.path.glob("runs/*/*"):
        shutil.copytree(fake_worker, run, dirs_exist_ok=True)
    with studio_at(tmp_path) as client, visit(browser, client) as page:
        page.get_by_role("link", name="animals, 32 runs, 1 failed, stopped").click()
        expect(page.get_by_role("heading", name="animals")).to_be_focused()
        tiles = page.locator("#batch-runs .tile")
        expect(tiles).to_have_count(24)
        expect(tiles.first).to_contain_text("a refused owl")
        expect(tiles.first).to_contain_text("<b>it</b> diverged")
        expect(page.locator("#batch-where")).to_have_text("1 of 2")
        page.get_by_role("button", name="Next").click()
        expect(tiles.last).to_contain_text("a late cat")
        page.get_by_label("Search the prompts").fill("fox tall")
        expect(tiles).to_have_count(11)
        page.get_by_role("link", name="a tall fox 7, seed 8, done").click()
        expect(page.get_by_role("heading", name="a tall fox 7")).to_be_focused()
        expect(page.get_by_role("button", name="Delete")).to_have_count(0)
        page.get_by_role("link", name="Batch").click()
        expect(tiles).to_have_count(11)  # as it was left
        page.get_by_label("Search the prompts").fill("")
        page.get_by_role("button", name="waiting 1").click()
        expect(tiles).to_have_count(1)
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("button", name="done 31")).to_be_visible()  # told by the stream of events
        expect(page.locator("#batch-state")).to_have_text("failed")
        assert States(folder).read(f"{30:032x}").failures == 3  # set aside still
        page.get_by_role("button", name="Try the 1 set aside again").click()
        page.get_by_role("button", name="set aside 1").click()
        expect(tiles.first).to_contain_text("failed 4 times")
        expect(page.locator("#batch-command")).to_have_text("dreamfusion batch animals")


def help_of(*command: str) -> str:
    """What the command line says of its options, on one line."""
    environment = {**os.environ, "COLUMNS": "1000"}
    words = [sys.executable, "-m", "dreamfusion", *command, "--help"]
    told = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│]", "", told).split())


def test_a_refinement_asks_for_standing_in_the_words_of_the_command(browser, tmp_path):
    with studio_at(tmp_path) as client, visit(browser, client) as page:
        task = client.until(client.make("a fox")["id"], "SUCCEEDED")
        page.goto(f"http://{client.host}/#/task/{task['id']}")
        weight = page.get_by_role("textbox", name="Stability", exact=True)
        described = page.locator(f"#{weight.get_attribute('aria-describedby')}").inner_text()
        words, _, advice = described.partition(". ")
        assert words.lower() in help_of("refine", "RUN").lower()
        assert "1e6" in advice
        weight.fill("1e6")
        with page.expect_response("**/refine"):
            weight.press("Enter")
        while client.get(f"/api/tasks/{task['id']}").json["refining"]:
            time.sleep(0.05)
        expect(page.locator("#result-state")).to_have_text("finished")
        expect(weight).to_have_attribute("placeholder", "0")
    assert (tmp_path / "a-fox-0" / "mesh.glb").read_bytes().endswith(b', refined{"stability": 1000000.0}')


def test_a_joint_stage_is_asked_for_where_the_prior_reads_sentences(browser, tmp_path):
    with studio_at(tmp_path, priors=("somebody/reads-anything",)) as client, visit(browser, client) as page:
        steps = page.get_by_label("Joint stage of a scene")
        page.get_by_label("Prompt", exact=True).fill("a fox")
        expect(steps).to_be_hidden()
        page.get_by_label("Prompt", exact=True).fill("a fox on a chair")
        expect(steps).to_be_disabled()
        expect(page.get_by_text("knows single things, no sentences")).to_be_visible()
        page.locator("#prior").select_option("somebody/reads-anything")
        expect(steps).to_be_enabled()
        words = page.locator("#joint-help").inner_text().removesuffix(" 0: none.").removesuffix(".")
        assert words.lower() in help_of("scene").lower()
        steps.fill("500")
        page.get_by_role("button", name="Make a scene of it").click()
        card = page.locator(".live")
        expect(card.get_by_text("/ 500")).to_be_visible()
        expect(card.get_by_alt_text("Colour now")).to_be_visible()
        card.get_by_role("button", name="Cancel").click()
        page.get_by_role("link", name="a fox on a chair, scene, stopped").click()
        expect(page.get_by_text(re.compile("[0-9]+ of 500 steps"))).to_be_visible()
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#result-live .live")).to_be_visible()
        expect(page.locator("#result-state")).to_have_text("finished")
        expect(page.locator("#facts").get_by_text("500 steps", exact=True)).to_be_visible()
        expect(page.locator("#curve polyline").first).to_be_attached()
        page.locator("#stage[aria-busy=false]:not(.blind)").wait_for()


def test_the_link_tells_when_the_studio_is_away(browser, tmp_path):
    with studio_at(tmp_path) as client:
        tab = browser.new_context().new_page()
        tab.goto(f"http://{client.host}/")
        expect(tab.locator("#link")).to_have_text("connected", timeout=PATIENCE)
    expect(tab.locator("#link")).to_have_text("no answer, trying again", timeout=PATIENCE)
    tab.get_by_label("Prompt", exact=True).fill("a fox")
    tab.get_by_role("button", name="Make it").click()
    expect(tab.get_by_role("alert")).to_contain_text("does not answer")
    tab.context.close()
