"""The picture of the README and docs/studio.md: the studio in a browser, with a job that is two thirds done.

Starts `dreamfusion studio` on an empty folder, makes a few objects for the gallery, then one more with two waiting, and
types a further prompt: what the page shows then. Needs chromium. Some minutes.

python benchmarks/studio_picture.py [--out docs/studio.jpg]
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from dreamfusion.config.presets import preset

MADE = ("a hamburger", "a blue chair", "a robot", "a cottage")
RUNNING, WAITING, TYPED = "a taxi", ("a green dragon", "an orange couch"), "a brown couch"
STEPS = preset("fast").steps
SHOWN = 2 * STEPS // 3
"""steps after which the picture is taken"""
PAGE, PICTURE = (1200, 1080), (980, 882)
"""width and height in pixels"""
PATIENCE = 1_200_000
"""milliseconds for a run, on a busy machine"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/studio.jpg"))
    parser.add_argument("--port", type=int, default=7877)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, sync_playwright() as play:
        command = ["studio", "--root", root, "--port", str(arguments.port), "--no-browser"]
        studio = subprocess.Popen([sys.executable, "-m", "dreamfusion", *command], stdout=subprocess.PIPE, text=True)
        assert studio.stdout is not None
        print(studio.stdout.readline(), end="")
        try:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=ViewportSize(width=PAGE[0], height=PAGE[1]), reduced_motion="reduce")
            page.set_default_timeout(PATIENCE)
            page.goto(f"http://127.0.0.1:{arguments.port}/")
            picture = _picture(page)
        finally:
            studio.terminate()
            studio.wait()
    shown = Image.open(io.BytesIO(picture)).convert("RGB")
    shown.resize(PICTURE, Image.Resampling.LANCZOS).save(arguments.out, quality=85, optimize=True)


def _picture(page: Page) -> bytes:
    """The page when the last job has done `SHOWN` steps."""
    for prompt in (*MADE, RUNNING, *WAITING):
        page.get_by_label("Prompt", exact=True).fill(prompt)
        page.get_by_role("button", name="Make it").click()
        page.get_by_text(f"In the queue: {prompt}").first.wait_for()
    page.locator(".live .prompt", has_text=RUNNING).wait_for()
    page.get_by_label("Prompt", exact=True).fill(TYPED)
    steps = page.locator(".live .told")
    while not (found := re.search(rf"(\d+) / {STEPS}", steps.inner_text())) or int(found[1]) < SHOWN:
        page.wait_for_timeout(500)
    return page.screenshot()


if __name__ == "__main__":
    main()
