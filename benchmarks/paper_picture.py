"""The picture of docs/reference/paper.md: runs of the paper's preset from four sides.

Rows are colour, geometry and normals.

python benchmarks/paper_picture.py RUN [RUN ...] [--out docs/paper.png]
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from dreamfusion import generate
from dreamfusion.video import PreviewCamera, contact_sheet

SIZE, SIDES = 112, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("docs/paper.png"))
    arguments = parser.parse_args()
    generate.prepare_process(generate.config_of(arguments.runs[0]))
    Image.fromarray(np.concatenate([_sheet(run) for run in arguments.runs], axis=1)).save(arguments.out, optimize=True)


def _sheet(path: Path) -> np.ndarray:
    """Front, left, back and right of a run."""
    _, run = generate.open_run(path, "auto")
    return contact_sheet(run.scene, run.recipe.eval_render, PreviewCamera(size=SIZE), SIDES)


if __name__ == "__main__":
    main()
