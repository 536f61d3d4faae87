"""The page of a batch in a real browser: failures first, pictures, search; and nothing of a prompt is ever code."""

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from dreamfusion.batch.report import _card

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


def written(out: Path, count: int) -> Path:
    """The page of a batch of made runs, the last one of which failed; the first one has a picture."""
    items = [
        {"id": f"{number:04x}", "prompt": f"a frog n{number}n", "seed": 0, "status": "done", "error": "", "line": 1}
        for number in range(count)
    ]
    evil = "</script><img src=x onerror=document.title=1>"
    items[-1] |= {"prompt": evil, "status": "failed", "error": evil}
    picture = out / "runs" / "00" / "0000" / "media" / "preview.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (30, 10)).save(picture)
    frame = resources.files("dreamfusion.batch").joinpath("page.html").read_text()
    cards = ",\n".join(_card({**item, "seconds": 60.0}) for item in items)
    (out / "index.html").write_text(frame.replace("ROWS", cards))
    return out / "index.html"


def test_the_page_shows_failures_first_and_finds_words(tmp_path):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        tab: Page = browser.new_page()
        troubles: list[str] = []
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.goto(written(tmp_path, 500).as_uri())
        cards = tab.locator("article")
        expect(cards.first).to_contain_text("</script><img")
        expect(tab.locator("#count")).to_have_text("500 of 500")
        assert 0 < cards.count() < 500  # more come when the page is scrolled
        expect(tab.locator("article img").first).to_have_js_property("naturalWidth", 30)
        tab.locator("#words").fill("frog n7n nothing")
        expect(tab.locator("#count")).to_have_text("0 of 500")
        tab.locator("#words").fill("FROG N49N")
        expect(tab.locator("#count")).to_have_text("1 of 500")
        expect(cards.first.locator("a")).to_have_attribute("href", "runs/00/0031/index.html")
        tab.locator("#words").fill("")
        tab.locator("#status").select_option("failed")
        expect(tab.locator("#count")).to_have_text("1 of 500")
        assert tab.title() == "Batch"
        assert troubles == []
        browser.close()
    assert json.loads(_card({"id": "", "prompt": "<", "seed": 0, "status": "", "error": "", "line": 1, "seconds": 0}))
