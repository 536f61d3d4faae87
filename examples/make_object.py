"""Make an object from Python: python examples/make_object.py "a red chair" chair.glb"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import dreamfusion as df


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="a red chair")
    parser.add_argument("out", nargs="?", type=Path, default=Path("object.glb"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--resolution", type=int, default=112, help="density samples per side of the mesh's cube")
    options = parser.parse_args(arguments)

    config = replace(df.preset("fast"), prompt=options.prompt, steps=options.steps)
    run, prior = df.start(config, torch.device("cpu")), df.open_prior(config.prior)
    for metrics in df.optimise(run, prior, df.prompt_table(config, prior), config.steps):
        if metrics.step % 50 == 0 or metrics.step == config.steps:
            print(f"step {metrics.step}: opacity {metrics.opacity:.3f}, losses {metrics.losses}")

    mesh, report = df.make_mesh(run.scene, run.recipe.eval_render, df.MeshOptions(options.resolution, config.size))
    df.export(mesh, options.out, {"prompt": config.prompt})
    print(f"{options.out}: {len(mesh.faces)} triangles; {report.record()}")


if __name__ == "__main__":
    main()
