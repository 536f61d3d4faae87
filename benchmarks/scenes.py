"""Are scenes as their sentences say? The thirty sentences of the tests, laid out with real meshes in the place of runs.

    python benchmarks/scenes.py ASSETS [--out benchmarks/results/scenes.json]

ASSETS is a folder with the files that `training/nouns.csv` names; of each noun the first file whose surface is closed
is taken, or else the first. Writes JSON: relations that hold, things that float, pairs with more than 2 % in common.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from manifold3d import Manifold

from dreamfusion.diffusion.priors import PriorOptions, open_prompt_encoder
from dreamfusion.diffusion.priors.protocol import WordListedEncoder
from dreamfusion.diffusion.priors.vocabulary import understood
from dreamfusion.scenes.bodies import closed_solid_of, solid_of
from dreamfusion.scenes.check import check
from dreamfusion.scenes.grammar import parse
from dreamfusion.scenes.layout import layout
from dreamfusion.scenes.sizes import UNKNOWN, size_of
from machine import as_json, machine

HOME = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scenes.json"))
    arguments = parser.parse_args()
    prior = open_prompt_encoder("embedded", PriorOptions(device=torch.device("cpu")))
    assert isinstance(prior, WordListedEncoder)
    with (HOME / "training" / "nouns.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = json.loads((HOME / "tests" / "scene_sentences.json").read_text(encoding="utf-8"))
    solids, found = dict[str, Manifold](), dict[str, dict[str, Any]]()
    for text in (each["text"] for each in texts):
        sentence = parse(text, lambda prompt: understood(prior, prompt), prior.words)
        sized = []
        for thing in sentence.things:
            noun = max((row["noun"] for row in rows if thing.caption.endswith(f" {row['noun']}")), key=len)
            if noun not in solids:
                solids[noun] = _solid(path for path in _files(rows, noun, arguments.assets))
            size = (size_of(thing.caption, {}) or UNKNOWN) * thing.scale
            sized.append(solids[noun].scale((size, size, size)))
        placed, notes = layout(sentence, sized)
        verdict = check(sentence, placed)
        found[text] = {
            "right": list(verdict.right),
            "floating": len(verdict.floating),
            "intersecting": len(verdict.intersecting),
            "deepest": round(verdict.deepest, 4),
            "notes": list(notes),
        }
        print(text, found[text], flush=True)
    every = [so for row in found.values() for so in row["right"]]
    result = {
        "relations": len(every),
        "right": sum(every),
        "scenes": len(found),
        "scenes all right": sum(all(row["right"]) for row in found.values()),
        "things that float": sum(row["floating"] for row in found.values()),
        "pairs that intersect": sum(row["intersecting"] for row in found.values()),
        "each": found,
        "machine": machine(torch.device("cpu")),
    }
    arguments.out.write_text(as_json(result) + "\n", encoding="utf-8")


def _files(rows: list[dict[str, str]], noun: str, assets: Path) -> list[Path]:
    return [path for row in rows if row["noun"] == noun and (path := assets / row["file"]).is_file()]


def _solid(paths: Iterator[Path]) -> Manifold:
    given = list(paths)
    closed = (solid for path in given if (solid := closed_solid_of(path)) is not None)
    return next(closed, None) or solid_of(given[0])


if __name__ == "__main__":
    main()
