"""Second faces where the prior knows the view by words alone: how often, and what helps (docs/health.md)?

    PYTHONPATH=. python benchmarks/faces.py --work DIR [--ways "view words" "perp-neg" ...] [--prompts "a pirate" ...]
        [--steps 100] [--picture FILE]

Every way is made with every prompt, the fast preset without the camera as an input of the prior, first seed. The
prompts: of the six nouns with the highest Janus rate in docs/results/no-camera.md the first one each, in that table's
order where rates are equal; and the first six other nouns with a front of the suite "plain".

"fronts": share of the views from azimuth 90 to 270 degrees in which the judge sees a front. "faces": what the scorer of
the health check says (`dreamfusion.faces`) of those views half-way and at the end. "named": share of the shaded
views whose own caption the judge prefers to those of all 80 prompts. "seconds" is processor time of the steps without
the checks, "check" that of one check. Runs that are in the result are not made again; pictures of all are kept in DIR.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion import faces, generate, stepping
from dreamfusion.cli.arguments import read_generate
from dreamfusion.diffusion.priors import Prior, PriorOptions, open_prior
from dreamfusion.diffusion.prompts import PromptTable
from dreamfusion.evaluate.evaluation_views import KINDS, Views, evaluation_views, read_views, save_views
from dreamfusion.evaluate.fidelity import compared
from dreamfusion.evaluate.janus import fronts
from dreamfusion.evaluate.judge.judge import Judge, open_judge
from dreamfusion.evaluate.r_precision import retrieved
from dreamfusion.evaluate.suites import pool
from dreamfusion.evaluate.truth import open_truths
from dreamfusion.files import read_json, write_text
from dreamfusion.loop import Metrics
from dreamfusion.runs import folder_name
from dreamfusion.runtime import configure_torch
from dreamfusion.video import to_bytes, write_png
from machine import as_json, machine

RESULT = Path(__file__).parent / "results" / "faces.json"
CPU = torch.device("cpu")
WORST = ("a brown bunk bed", "a pirate", "a speaker", "a green shark", "a green solar panel", "a gray crab")
OTHERS = ("a monkey", "an igloo", "a bus", "a shield", "a penguin", "a refrigerator")
WAYS = {
    "view words": "",
    "perp-neg": "--perp-neg 1",
    "blended": "--blend-views",
    "perp-neg, blended": "--perp-neg 1 --blend-views",
    "perp-neg 3": "--perp-neg 3",
    "clipped": "--distill.grad-clip 3",
}
LOOKED_AT = (0.5, 1.0)
"""shares of the steps"""


def made(prompt: str, options: str, steps: int, prior: Prior, judge: Judge, work: Path) -> dict[str, Any]:
    """Make a run and measure it; its views are left in the folder `work`."""
    told = f"--steps {steps} --checkpoint-steps {steps // 5} --preview-seconds 0 --device cpu --threads 1"
    words = [*prompt.split(), *told.split(), "--conditions", "no-camera", *options.split()]
    folder = work / "runs" / folder_name(f"{prompt} {options}", 0)
    shutil.rmtree(folder, ignore_errors=True)
    job = generate.create_run(read_generate(words).settings, folder, prior=prior)
    assert isinstance(job.prompts, PromptTable)
    looks, seconds, pulls, check = list[list[float]](), list[float](), list[float](), 0.0
    with closing(stepping.train(job, lambda doing: None)) as stream:
        for metrics in _timed(stream, seconds):
            pulls.append(metrics.losses["distillation"])
            if metrics.step in [round(share * steps) for share in LOOKED_AT]:
                began = time.process_time()
                looks.append(faces.seen(job.run, prior, job.prompts).tolist())
                check = time.process_time() - began
    views = evaluation_views(job.run.scene, job.run.recipe.eval_render)
    save_views(views, pictures_of(work, prompt, options))
    cost = {"seconds": round(sum(seconds), 1), "check": round(check, 2), "pull": round(sum(pulls[-50:]) / 50, 2)}
    found = {"faces": [[round(face, 2) for face in look] for look in looks]}
    return judged(views, prompt, judge) | found | cost


def _timed(stream: Iterator[Metrics], seconds: list[float]) -> Iterator[Metrics]:
    began = time.process_time()
    for metrics in stream:
        seconds.append(time.process_time() - began)
        yield metrics
        began = time.process_time()


def judged(views: Views, prompt: str, judge: Judge) -> dict[str, Any]:
    """What the judge and the truth say of a result."""
    shaded = views.pictures[KINDS.index("shaded")]
    named = retrieved(judge.score(shaded, pool())[None], torch.tensor([pool().index(prompt)]))
    near = {name: round(value, 3) for name, value in asdict(compared(views, open_truths().true(prompt))).items()}
    return {
        "fronts": round(fronts(judge, shaded[None]).float().mean().item(), 2),
        "named": round(named.float().mean().item(), 3),
        **near,
    }


def pictures_of(work: Path, prompt: str, options: str) -> Path:
    return work / f"{folder_name(f'{prompt} {options}', 0)}.png"


def row(views: Views) -> Float[Tensor, "h w 3"]:
    """Front, left, back and right in the plain colours, beside each other at half size."""
    return torch.cat(list(views.pictures[0, ::2, ::2, ::2]), dim=1)


def main() -> None:
    """Make what is missing, and write all results after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--prompts", nargs="*", default=[*WORST, *OTHERS])
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--picture", type=Path, help="of the prompts, a row each: a group of four views for each way")
    parser.add_argument("--minutes", type=float, default=14.0, help="after which no further run is begun")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    configure_torch(1, repeatable=True)
    if arguments.picture:
        lines = [
            torch.cat([row(read_views(pictures_of(arguments.work, prompt, WAYS[way]))) for way in arguments.ways], 1)
            for prompt in arguments.prompts
        ]
        write_png(to_bytes(torch.cat(lines)), arguments.picture)
        return
    prior, judge, end = open_prior("embedded", PriorOptions(device=CPU)), open_judge(), time.monotonic()
    end += 60 * arguments.minutes
    rows = read_json(arguments.out)["runs"] if arguments.out.exists() else []
    there = {(one["way"], one["prompt"]) for one in rows}
    for prompt in arguments.prompts:
        for way in arguments.ways:
            if (way, prompt) in there or time.monotonic() > end:
                continue
            result = made(prompt, WAYS[way], arguments.steps, prior, judge, arguments.work)
            rows.append({"way": way, "prompt": prompt, **result})
            print(rows[-1], file=sys.stderr, flush=True)
            said = {"machine": machine(CPU), "steps": arguments.steps, "runs": rows}
            write_text(arguments.out, as_json(said) + "\n")


if __name__ == "__main__":
    main()
