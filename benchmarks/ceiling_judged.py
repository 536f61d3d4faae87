"""What the judge makes of the perfect prior's objects, and of the things themselves: the most that it gives anything.

    PYTHONPATH=. python benchmarks/ceiling_judged.py [FOLDER] [--assets DIR]

`ceiling.py` wrote FOLDER; without, it is the one that comes with the package. `dreamfusion evaluate` says the same
beside its results; this is for whoever has another judge. R-Precision, Janus rate and colour words by suite, captions
competing as there, with the 80 of the suites; and how often its first answer among all its nouns is right. With
--assets also what true renderings get in place of the prior's samples.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmarks.oracle import Maps, meant
from dreamfusion.cameras import orbit
from dreamfusion.embedded.world import DISTANCE, FOV_DEG, SIZE
from dreamfusion.evaluate.captions import require_meaning
from dreamfusion.evaluate.evaluation_views import BACKDROP, KINDS, cameras, lights
from dreamfusion.evaluate.judge.judge import Judge, open_judge
from dreamfusion.evaluate.measure import Result, captions_of, verdicts
from dreamfusion.evaluate.report import Report, without_nan
from dreamfusion.evaluate.samples import BACKGROUND, SEED, VIEWS, Sampling
from dreamfusion.evaluate.samples import judged as judged_samples
from dreamfusion.evaluate.suites import SUITES, pool, suite
from dreamfusion.evaluate.truth import Truths, open_truths
from dreamfusion.files import write_json
from dreamfusion.lights import albedo_only


def main() -> None:
    """Judge, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ceiling_judged.json"))
    parser.add_argument("--assets", type=Path)
    arguments = parser.parse_args()
    judge, truths = open_judge(), open_truths(arguments.folder)
    perfect, things = judged(judge, truths, truths.made), judged(judge, truths, lambda prompt: itself(truths, prompt))
    found = {"judge": {"name": judge.name}, **perfect, "the things themselves": things}
    if arguments.assets:
        found["in place of samples"] = asdict(in_place_of_samples(judge, arguments.assets))
    write_json(arguments.out, found)
    for whose, one in (("perfect prior", perfect), ("things themselves", things)):
        print(whose, "noun", {kind: round(100 * share, 1) for kind, share in one["noun"].items()})
        for name, figures in one["figures"].items():
            print(" ", name, {kind: round(100 * share["value"], 1) for kind, share in figures["precision"].items()})


def judged(judge: Judge, truths: Truths, pictures: Callable[[str], Float[Tensor, "3 8 h w 3"]]) -> dict[str, Any]:
    """The figures of each suite, and of every prompt."""
    results = [
        Result(prompt, name, Path(prompt), pictures=pictures(prompt))
        for name in SUITES
        for prompt in suite(name)
        if prompt in truths.reached
    ]
    report = Report({}, verdicts(results, captions_of(pool(), bare=True), judge, judge))
    groups = {name: asdict(figures) for name, figures in report.groups.items()}
    prompts = {v.prompt: {**v.precision, "taken for": v.taken_for} for v in report.worst_first}
    return {"noun": named(judge, results), "figures": without_nan(groups), "prompts": prompts}


def named(judge: Judge, results: Sequence[Result]) -> dict[str, float]:
    """Share of views, by kind of picture, in which the judge's first answer among all its nouns is the prompt's."""
    right = torch.stack([_right(judge, result) for result in results], dim=1)
    return {kind: marks.float().mean().item() for kind, marks in zip(KINDS, right, strict=True)}


def _right(judge: Judge, result: Result) -> Bool[Tensor, "3 8"]:
    assert result.pictures is not None
    own = judge.nouns.index(require_meaning(result.prompt, judge.nouns).noun)
    return (judge.opinion(result.pictures.flatten(0, 1)).noun.argmax(1) == own).view(len(KINDS), -1)


def itself(truths: Truths, prompt: str) -> Float[Tensor, "3 8 h w 3"]:
    """The thing that a prompt means, in all kinds of light."""
    true, ring = truths.true(prompt), cameras(radius=1.0)
    alpha, behind = true.opacity[..., None], torch.full((len(ring), 3), BACKDROP)
    maps = Maps((true.pictures[0] - (1 - alpha) * BACKDROP).clamp(min=0), true.normal, alpha)
    light_of = lights(ring)
    return torch.stack([maps.shown(light_of[kind], behind) for kind in KINDS])


def in_place_of_samples(judge: Judge, assets: Path) -> Sampling:
    """What the judge sees in true renderings from the cameras of `dreamfusion evaluate --samples`."""
    captions, count = suite("samples"), len(VIEWS)
    azimuth, elevation = torch.tensor(list(VIEWS.values())).deg2rad().unbind(1)
    full = torch.ones(count)
    ring = orbit(azimuth, elevation, full * DISTANCE, full * math.radians(FOV_DEG), SIZE)
    behind, light = torch.full((count, 3), BACKGROUND), albedo_only(count)
    seen = [meant(caption, SEED, assets).maps(ring).shown(light, behind) for caption in captions]
    return judged_samples(judge, captions, torch.stack(seen))


if __name__ == "__main__":
    main()
