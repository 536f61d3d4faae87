"""Judge a run's object against captions, and write its mesh. python examples/judge_and_export.py runs/a-red-chair-0"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import dreamfusion as df
from dreamfusion.evaluate.evaluation_views import KINDS, evaluation_views
from dreamfusion.evaluate.scorer import open_scorer

CAPTIONS = ("a red chair", "a blue chair", "a red car", "a frog")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--captions", nargs="+", default=CAPTIONS, help="against which its prompt has to win")
    parser.add_argument("--formats", nargs="+", default=["glb", "obj"])
    parser.add_argument("--resolution", type=int, default=112, help="density samples per side of the mesh's cube")
    options = parser.parse_args(arguments)

    folder, run = df.open_run(options.run, "auto")
    captions = list(dict.fromkeys([run.config.prompt, *options.captions]))
    judge = open_scorer("judge")  # or a CLIP of transformers: a folder, or owner/name
    for kind, views in zip(KINDS, evaluation_views(run.scene, run.recipe.eval_render).pictures, strict=True):
        found = judge.score(views, captions).argmax(dim=1)
        print(f"{kind}: {(found == 0).float().mean():.0%} of the views are taken for {captions[0]!r}")

    mesh, report = df.make_mesh(run.scene, run.recipe.eval_render, df.MeshOptions(options.resolution, run.config.size))
    print(report.record())
    for name in options.formats:
        print(*df.export(mesh, folder.path / f"judged.{name}", {"prompt": run.config.prompt}))


if __name__ == "__main__":
    main()
