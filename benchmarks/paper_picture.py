"""The picture of docs/paper.md: runs of the paper's preset from four sides; rows are colour, geometry and normals.

python benchmarks/paper_picture.py RUN [RUN ...] [--out docs/paper.png]
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from dreamfusion import generate
from dreamfusion.video import Shot, contact_sheet

SIDE = 144


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("docs/paper.png"))
    arguments = parser.parse_args()
    Image.fromarray(np.concatenate([_sheet(run) for run in arguments.runs], axis=1)).save(arguments.out, optimize=True)


def _sheet(path: Path) -> np.ndarray:
    """Front, left, back and right of a run."""
    generate.settle(1)
    _, run = generate.open_run(path, "auto")
    sheet = contact_sheet(run.scene, run.recipe.show, Shot(size=SIDE))
    return np.concatenate(np.split(sheet, 8, axis=1)[::2], axis=1)


if __name__ == "__main__":
    main()
