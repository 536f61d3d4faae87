"""One picture of many prompts: each from 4 sides, in colour and without texture, first seed, none left out.

    python benchmarks/gallery.py [--prompts docs/gallery.txt] [--out docs/gallery.png] [--runs runs/gallery] [--jobs 2]

Every prompt is an ordinary run of the fast preset in a folder of its own under --runs; finished ones are not done again
and an interrupted one goes on, so the command can be stopped and repeated. Prints seconds per prompt as JSON.
Prompts run side by side, one thread each: two cores are used better so than by one run at a time.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dreamfusion import generate
from dreamfusion.config import Config
from dreamfusion.lights import headlight
from dreamfusion.optimise import Run
from dreamfusion.presets import preset
from dreamfusion.video import Shot, soft_light, to_bytes

SIZE, SIDES, LABEL, COLUMNS = 96, 4, 14, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, default=Path("docs/gallery.txt"))
    parser.add_argument("--out", type=Path, default=Path("docs/gallery.png"))
    parser.add_argument("--runs", type=Path, default=Path("runs/gallery"))
    parser.add_argument("--jobs", type=int, default=2, help="prompts at a time")
    arguments = parser.parse_args()
    prompts = [prompt for line in arguments.prompts.read_text().splitlines() if (prompt := line.strip())]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        tiles = list(pool.map(_done, prompts, [arguments.runs] * len(prompts)))
    _page(tiles).save(arguments.out, optimize=True)


def _done(prompt: str, runs: Path) -> Image.Image:
    """Make or finish the run of a prompt, and picture it."""
    generate.settle(1)
    since, folder = time.perf_counter(), runs / prompt.replace(" ", "-")
    job = generate.reopen(folder, "auto") if folder.exists() else generate.begin(_config(prompt), folder)
    for _ in generate.work(job, lambda _: None):
        pass
    print(json.dumps({"prompt": prompt, "seconds": round(time.perf_counter() - since, 1)}), flush=True)
    return _tile(job.run, prompt)


def _config(prompt: str) -> Config:
    return replace(preset("fast"), prompt=prompt, seed=0, threads=1, preview_every=0.0)


def _tile(run: Run, prompt: str) -> Image.Image:
    shot = Shot(size=SIZE)
    cameras = shot.cameras(run.scene, SIDES)
    lights = soft_light(cameras), headlight(cameras, white=True)
    rows = [to_bytes(shot.render(run.scene, cameras, light, run.recipe.show).rgb) for light in lights]
    page = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    tile = Image.new("RGB", (SIDES * SIZE, 2 * SIZE + LABEL), "white")
    tile.paste(Image.fromarray(page), (0, LABEL))
    ImageDraw.Draw(tile).text((3, 1), prompt, fill="black")
    return tile


def _page(tiles: list[Image.Image]) -> Image.Image:
    width, height = tiles[0].size
    rows = -(-len(tiles) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * (width + 8) - 8, rows * (height + 6) - 6), "white")
    for index, tile in enumerate(tiles):
        page.paste(tile, (index % COLUMNS * (width + 8), index // COLUMNS * (height + 6)))
    return page


if __name__ == "__main__":
    main()
