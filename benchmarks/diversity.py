"""Seeds of one noun: how unlike are the results, beside real meshes of the noun (docs/research.md)?

    PYTHONPATH=. python benchmarks/diversity.py --assets DIR --work DIR [--nouns dog robot] [--seeds 4] [--ways ...]
        [--steps 120] [--picture FILE]

Every way is made with every noun and seed, the fast preset in so many steps. The embedded prior is told which of the
things that a noun means is wanted, by the seed, or (ways "untold", `--conditions no-variety`) is not. A result is right
if the judge names its noun first, among all its nouns, in at least half of the eight views. Distances of two results,
means over the unlit evaluation views, and then over all pairs of right ones:

    colours     root mean square difference in [0, 1] over the pixels of the two silhouettes
    outline     1 - intersection over union of the silhouettes
    features    1 - cosine of what the judge's last hidden layer sees: the same network that says which are right

"distance of all" is the same over all results, right or not; "real" is that of the meshes that the first seeds mean.
Runs whose pictures are in the work folder are not made again; writes benchmarks/results/diversity.json after each.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dreamfusion.cli.arguments import read_generate
from dreamfusion.diffusion.priors import Prior, PriorOptions, open_prior
from dreamfusion.evaluate import evaluation_views as views
from dreamfusion.evaluate.evaluation_views import BACKDROP, Views, evaluation_views, read_views, save_views
from dreamfusion.evaluate.fidelity import compared
from dreamfusion.evaluate.judge.judge import Judge, open_judge
from dreamfusion.evaluate.judge.network import SIZE, cut_out
from dreamfusion.files import read_json, write_text
from dreamfusion.loop import optimise, prompt_table, start
from dreamfusion.runs import folder_name
from dreamfusion.runtime import configure_torch
from dreamfusion.video import to_bytes, write_png
from machine import as_json, machine
from oracle import meant

RESULT = Path(__file__).parent / "results" / "diversity.json"
CPU = torch.device("cpu")
UNTOLD = "--conditions no-variety"
WAYS = {
    "sds": "",
    "sds untold": UNTOLD,
    "dsd": "--distill dsd",
    "dsd untold": f"--distill dsd {UNTOLD}",
    "esd": "--distill esd",
    "esd untold": f"--distill esd {UNTOLD}",
}


def made(noun: str, seed: int, options: str, steps: int, prior: Prior) -> tuple[Views, float]:
    """A result's views, and the processor time of its steps in seconds."""
    config = read_generate(["a", noun, *f"--seed {seed} --steps {steps} --threads 1 {options}".split()]).settings
    run, prompts, began = start(config, CPU), prompt_table(config, prior), time.process_time()
    for _ in optimise(run, prior, prompts, steps):
        pass
    return evaluation_views(run.scene, run.recipe.eval_render), time.process_time() - began


@torch.no_grad()
def features(judge: Judge, seen: Views) -> Float[Tensor, "8 d"]:
    """What the judge's last hidden layer sees in the unlit views, of length one."""
    sized = F.interpolate(seen.pictures[0].permute(0, 3, 1, 2), (SIZE, SIZE), mode="bilinear", antialias=True)
    return F.normalize(judge.network.see(cut_out(sized)), dim=1)


def right(judge: Judge, seen: Views, noun: str) -> bool:
    """Whether it is what was asked for."""
    named = judge.opinion(seen.pictures[0]).noun.argmax(1) == judge.nouns.index(noun)
    return named.float().mean().item() >= 0.5


def distances(judge: Judge, several: Sequence[Views]) -> dict[str, float] | None:
    """Means over all pairs; None where there is no pair."""
    pairs = list(combinations(range(len(several)), 2))
    if not pairs:
        return None
    seen, near = [features(judge, one) for one in several], [compared(several[a], several[b]) for a, b in pairs]
    found = {
        "colours": [10 ** (-one.object_psnr_db / 20) for one in near],
        "outline": [1 - one.silhouette_iou for one in near],
        "features": [1 - (seen[a] * seen[b]).sum(1).mean().item() for a, b in pairs],
    }
    return {name: round(sum(values) / len(values), 3) for name, values in found.items()}


def summary(judge: Judge, known: dict[str, Any], work: Path, assets: Path, seeds: int) -> list[dict[str, Any]]:
    """A row for each noun and way, and one for the real meshes."""
    rows = []
    for noun in dict.fromkeys(run["noun"] for run in known["runs"]):
        real = [meant(f"a {noun}", seed, assets).views(views.cameras(1.0)) for seed in range(seeds)]
        rows.append({"noun": noun, "way": "real", "right": seeds, "distance": distances(judge, real)})
        for way in WAYS:
            runs = [run for run in known["runs"] if (run["noun"], run["way"]) == (noun, way)]
            seen = [read_views(pictures_of(work, noun, run["seed"], way)) for run in runs]
            good = [views for views, run in zip(seen, runs, strict=True) if run["right"]]
            if runs:
                seconds = round(sum(run["seconds"] for run in runs) / len(runs), 1)
                told = {"made": len(runs), "right": len(good), "distance": distances(judge, good), "seconds": seconds}
                rows.append({"noun": noun, "way": way, **told, "distance of all": distances(judge, seen)})
    return rows


def pictures_of(work: Path, noun: str, seed: int, way: str) -> Path:
    return work / f"{folder_name(f'{noun} {way}', seed)}.png"


def main() -> None:
    """Make what is missing, and write all results after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--nouns", nargs="*", default=["dog", "robot"])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--minutes", type=float, default=14.0, help="after which no further run is begun")
    parser.add_argument(
        "--picture", type=Path, help="a row for each noun and way: every seed from the front and behind"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    configure_torch(1, repeatable=True)
    prior, judge, end = open_prior("embedded", PriorOptions(device=CPU)), open_judge(), time.monotonic()
    end += 60 * arguments.minutes
    known: dict[str, Any] = read_json(arguments.out) if arguments.out.exists() else {"runs": []}
    there = {(run["noun"], run["way"], run["seed"]) for run in known["runs"]}
    for noun, way, seed in [
        (noun, way, seed) for noun in arguments.nouns for seed in range(arguments.seeds) for way in arguments.ways
    ]:
        if (noun, way, seed) in there or time.monotonic() > end:
            continue
        seen, seconds = made(noun, seed, WAYS[way], arguments.steps, prior)
        save_views(seen, pictures_of(arguments.work, noun, seed, way))
        good = right(judge, seen, noun)
        known["runs"].append({"noun": noun, "way": way, "seed": seed, "right": good, "seconds": round(seconds, 1)})
        print(known["runs"][-1], file=sys.stderr, flush=True)
        _write(known, arguments)
    known["summary"] = summary(judge, known, arguments.work, arguments.assets, arguments.seeds)
    _write(known, arguments)
    if arguments.picture:
        _draw(known, arguments)


def _write(known: dict[str, Any], arguments: argparse.Namespace) -> None:
    write_text(arguments.out, as_json({**known, "machine": machine(CPU), "steps": arguments.steps}) + "\n")


def _draw(known: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Every second pixel of the view from azimuth 45 degrees, a column for each seed."""
    lines = []
    for row in known["summary"]:
        several = [
            meant(f"a {row['noun']}", seed, arguments.assets).views(views.cameras(1.0))
            if row["way"] == "real"
            else read_views(pictures_of(arguments.work, row["noun"], seed, row["way"]))
            for seed in range(row.get("made", arguments.seeds))
        ]
        line = torch.cat([one.pictures[0, view] for one in several for view in (1, 4)], dim=1)
        missing = 2 * (arguments.seeds - len(several)) * line.shape[0]
        lines.append(F.pad(line, (0, 0, 0, missing), value=BACKDROP))
    write_png(to_bytes(torch.cat(lines)), arguments.picture)


if __name__ == "__main__":
    main()
