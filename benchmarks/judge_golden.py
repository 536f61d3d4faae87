"""The golden pictures of tests/test_evaluate_judge.py: real meshes, lit and seen as evaluations see their results.

    python benchmarks/judge_golden.py --assets DIR

The first twelve nouns in the order of their SHA-256, the last mesh of each; one shaded evaluation view, the azimuth
growing by 45 degrees from one to the next. They were not chosen by what the judge says of them.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from PIL import Image

from dreamfusion.evaluate.evaluation_views import KINDS
from dreamfusion.video import to_bytes
from training.judge.real import real_views
from training.nouns import nouns

COUNT = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("tests/golden"))
    arguments = parser.parse_args()
    last = {row.noun: row for row in nouns()}
    chosen = sorted(last, key=lambda noun: hashlib.sha256(noun.encode()).hexdigest())[:COUNT]
    rows = [last[noun] for noun in chosen]
    shaded = KINDS.index("shaded")
    views = [
        real_views(arguments.assets / "meshes" / row.file, row.yaw_deg)[shaded, i % 8] for i, row in enumerate(rows)
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_bytes(torch.cat(views, dim=1))).save(arguments.out / "judge.png", optimize=True)
    (arguments.out / "judge.json").write_text(json.dumps(chosen) + "\n")


if __name__ == "__main__":
    main()
