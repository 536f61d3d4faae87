"""One picture of many prompts: each from 4 sides, in colour and without texture, first seed, none left out.

    python benchmarks/gallery.py [--prompts docs/gallery.txt] [--out docs/gallery.png] [--runs runs/gallery]

Every prompt is an ordinary run of the fast preset in a folder of its own under --runs; finished ones are not done again
and an interrupted one goes on, so the command can be stopped and repeated. Prints seconds per prompt as JSON.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from dreamfusion import generate
from dreamfusion.cameras import evaluation_ring
from dreamfusion.config import Config
from dreamfusion.lights import headlight
from dreamfusion.optimise import Run
from dreamfusion.presets import preset
from dreamfusion.render import render_views

SIZE, SIDES, LABEL, COLUMNS = 96, 4, 14, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, default=Path("docs/gallery.txt"))
    parser.add_argument("--out", type=Path, default=Path("docs/gallery.png"))
    parser.add_argument("--runs", type=Path, default=Path("runs/gallery"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    generate.settle(arguments.threads)
    prompts = arguments.prompts.read_text().split("\n")
    prompts = [prompt.strip() for prompt in prompts if prompt.strip()]
    tiles, seconds = [], {}
    for prompt in prompts:
        since = time.perf_counter()
        tiles.append(_tile(_finished(prompt, arguments.runs / prompt.replace(" ", "-"), arguments.threads), prompt))
        seconds[prompt] = round(time.perf_counter() - since, 1)
        print(json.dumps({"prompt": prompt, "seconds": seconds[prompt]}), flush=True)
        _page(tiles).save(arguments.out)


def _finished(prompt: str, folder: Path, threads: int) -> Run:
    job = generate.reopen(folder, "auto") if folder.exists() else generate.begin(_config(prompt, threads), folder)
    for _ in generate.work(job, lambda _: None):
        pass
    return job.run


def _config(prompt: str, threads: int) -> Config:
    return replace(preset("fast"), prompt=prompt, seed=0, threads=threads, preview_every=0.0)


def _tile(run: Run, prompt: str) -> Image.Image:
    camera = run.config.camera
    fov = float(np.deg2rad(sum(camera.fov_deg) / 2))
    cameras = evaluation_ring(SIDES, float(np.deg2rad(20)), sum(camera.distance) / 2, fov, SIZE).to(run.device)
    rows = []
    for white in (False, True):
        plain = torch.full((SIDES, 3), 0.94, device=run.device)
        picture = render_views(run.scene, cameras, headlight(cameras, white), run.recipe.look, plain)
        rows.append((picture.rgb.clamp(0, 1) * 255).round().byte().cpu().numpy())
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
