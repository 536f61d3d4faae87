"""Runs broken on purpose: is it found, and is the run saved (docs/health.md)?

    PYTHONPATH=. python benchmarks/health.py --work DIR [--prompts "a penguin" "a tank"] [--ways "rates x30" ...]
        [--healthy "a taco" ...] [--heal 3] [--draws 4]

Every way is made with every prompt, as `dreamfusion generate --heal` makes it, the fast preset in 200 steps, in a
folder below DIR; runs that are there are not made again. A run is good if its unlit evaluation views are near those of
the healthy run of its prompt: object PSNR no more than 2 dB and silhouette IoU no more than 0.1 below. It is saved if
it is good and no finding is left at its end. With --heal 0 findings are only told.

--healthy names prompts of runs that nothing is done to, for false alarms. With --draws so many draws of each are made
and scored after a fifth of the steps, to see whether what `--candidates` chooses is nearer to the truth than the first.
Writes benchmarks/results/health.json after each run.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamfusion import candidates, generate, stepping
from dreamfusion.cli.arguments import read_generate
from dreamfusion.config import Config
from dreamfusion.diffusion.priors import Prior, PriorOptions, ViewCondition, open_prior
from dreamfusion.errors import UserError
from dreamfusion.evaluate.evaluation_views import evaluation_views
from dreamfusion.evaluate.fidelity import compared
from dreamfusion.evaluate.truth import open_truths
from dreamfusion.files import read_json, write_text
from dreamfusion.loop import Run, optimise, prompt_table, start
from dreamfusion.runs import folder_name
from dreamfusion.runtime import configure_torch
from machine import as_json, machine

RESULT = Path(__file__).parent / "results" / "health.json"
STEPS, EVERY = 200, 40
"""of a run, and between its checkpoints"""
NEAR_DB, NEAR_IOU = 2.0, 0.1
CPU = torch.device("cpu")


def grey(prior: Prior, noisy: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
    """The noise, if the picture were grey."""
    return noisy / prior.schedule.sigma(t).to(noisy)[:, None, None, None]


@dataclass(frozen=True)
class Way:
    """One way to break a run."""

    options: str = ""
    """of `dreamfusion generate`"""
    answer: Callable[[Prior, Tensor, Tensor, Tensor], Tensor] | None = None
    """the prior's, of a noisy picture, its timestep and the true answer"""
    tamper: Callable[[Run], None] | None = None
    """with the run, once, after three fifths of the steps"""


def wipe(run: Run) -> None:
    """All matter goes."""
    with torch.no_grad():
        for level in run.scene.field.logits:  # type: ignore[attr-defined]  # a grid field
            level.zero_()


def flatten(run: Run) -> None:
    """Only a slab stays, as wide as it was."""
    with torch.no_grad():
        finest = run.scene.field.logits[-1][0]  # type: ignore[attr-defined]
        away = torch.linspace(-1, 1, len(finest)).abs() > 0.05
        finest[away] -= 100.0


def poison(run: Run) -> None:
    """A colour becomes no number."""
    with torch.no_grad():
        run.scene.field.features[0].view(-1)[:9999] = torch.nan  # type: ignore[attr-defined]


WAYS = {
    "healthy": Way(),
    "rates x30": Way("--optimise.grid 1.8 --optimise.network 0.15"),
    "rates / 100": Way("--optimise.grid 0.0006 --optimise.network 0.00005"),
    "no blob": Way("--scene.blob.height 0 --scene.density-bias -12"),
    "dense space": Way("--scene.density-bias 4 --scene.blob.height 0"),
    "ball too small": Way("--scene.radius 0.3"),
    "opacity x1000": Way("--regularise.opacity 20000"),
    "entropy x200": Way("--regularise.entropy 200000"),
    "noise low": Way("--distill.t-min 0.005 --distill.t-max 0.02"),
    "noise high": Way("--distill.t-min 0.985 --distill.t-max 0.999"),
    "guidance 0": Way("--guidance-scale 0"),
    "guidance 200": Way("--guidance-scale 200 --distill.guidance-rescale 0"),
    "camera inside": Way("--camera.distance 0.3 0.3"),
    "camera far": Way("--camera.distance 9 9"),
    "one view": Way("--camera.azimuth-deg -5 5 --camera.elevation-deg 0 5"),
    "light off": Way("--light.ambient 0 --light.diffuse 0 --light.shaded 1 --light.albedo-until 0"),
    "background learns": Way("--background learned --optimise.background 0.5 --regularise.opacity 5000"),
    "matter wiped": Way(tamper=wipe),
    "cut to a card": Way(tamper=flatten),
    "not a number": Way(tamper=poison),
    "prior says zero": Way(answer=lambda prior, noisy, t, estimate: torch.zeros_like(estimate)),
    "prior sees grey": Way(answer=grey),
    "prior negated": Way(answer=lambda prior, noisy, t, estimate: -estimate),
}


class Broken:
    """A prior with another answer."""

    def __init__(self, prior: Prior, answer: Callable[[Prior, Tensor, Tensor, Tensor], Tensor]) -> None:
        self._prior, self._answer = prior, answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, known: ViewCondition) -> Tensor:
        """See `Prior`."""
        return self._answer(self._prior, noisy, t, self._prior.predict_noise(noisy, t, text, known))


def config_of(prompt: str, way: Way, heal: int) -> Config:
    """What such a run is told."""
    options = f"--steps {STEPS} --checkpoint-steps {EVERY} --preview-seconds 0 --device cpu --threads 1 --heal {heal}"
    return read_generate([*prompt.split(), *shlex.split(f"{options} {way.options}")]).settings


def same_settings(one: Config, other: Config) -> bool:
    """Whether two runs of a prompt are the same."""
    names = ("optimise", "distill", "regularise", "scene", "camera", "light")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def made(prompt: str, way: Way, heal: int, prior: Prior, folder: Path) -> dict[str, Any]:
    """Make a run, and say what was found, done, and reached.

    One that begins anew with nothing but the preset's settings is the healthy run, bit for bit; it ends there.
    """
    config = config_of(prompt, way, heal)
    judge: Any = prior if way.answer is None else Broken(prior, way.answer)
    job, plain = generate.create_run(config, folder, prior=judge), config_of(prompt, Way(), 0)
    found, healed, worked, left, tampered = dict[str, int](), list[str](), 0, list[str](), False
    error = ""
    try:
        with closing(stepping.train(job, lambda doing: None)) as steps:
            for metrics in steps:
                worked += 1
                left = [finding.name for finding in metrics.findings]
                found |= {name: metrics.step for name in left if name not in found}
                if metrics.healing is not None:
                    healed.append(str(metrics.healing))
                    if way.answer is None and metrics.step == 1 and same_settings(job.run.acting, plain):
                        return {"found": found, "healed": healed, "steps": worked, "is": "healthy"}
                if way.tamper and not tampered and metrics.step == STEPS * 3 // 5:
                    way.tamper(job.run)
                    tampered = True
    except UserError as problem:
        error = str(problem)
    job.run.scene.radius = 1.0  # the views of all are taken from where the truth was seen
    reached = compared(evaluation_views(job.run.scene, job.run.recipe.eval_render), open_truths().true(prompt))
    return {
        "found": found,
        "healed": healed,
        "left": left,
        "error": error,
        "steps": worked,
        "reached": asdict(reached),
    }


def good(reached: dict[str, float], healthy: dict[str, float]) -> bool:
    """Whether a result is near the healthy one."""
    near = reached["object_psnr_db"] >= healthy["object_psnr_db"] - NEAR_DB
    return near and reached["silhouette_iou"] >= healthy["silhouette_iou"] - NEAR_IOU


def drawn(prompt: str, count: int, prior: Prior) -> list[dict[str, float]]:
    """Of several draws of one run: what the candidates' scorer says after a fifth of the steps, and what is reached."""
    config, rows = config_of(prompt, Way(), 0), list[dict[str, float]]()
    for seed in range(count):
        run = replace(start(replace(config, seed=seed), CPU), config=config)
        prompts = prompt_table(config, prior)
        for _ in optimise(run, prior, prompts, round(candidates.SHARE * STEPS)):
            pass
        error = candidates.denoising_error(run, prior, prompts)
        for _ in optimise(run, prior, prompts, STEPS):
            pass
        views = evaluation_views(run.scene, run.recipe.eval_render)
        rows.append({"error": error, **asdict(compared(views, open_truths().true(prompt)))})
    return rows


def main() -> None:
    """Make what is missing, and write all results after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--prompts", nargs="*", default=[])
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--healthy", nargs="*", default=[])
    parser.add_argument("--heal", type=int, default=3)
    parser.add_argument("--draws", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    configure_torch(1, repeatable=True)
    prior = open_prior("embedded", PriorOptions(device=CPU))
    known = read_json(arguments.out) if arguments.out.exists() else {"runs": [], "draws": {}}
    there = {(row["way"], row["prompt"]) for row in known["runs"]}
    for way, prompt in [
        *(("healthy", prompt) for prompt in arguments.healthy),
        *((way, prompt) for way in arguments.ways for prompt in arguments.prompts),
    ]:
        if (way, prompt) in there:
            continue
        heal = 0 if way == "healthy" else arguments.heal
        folder = arguments.work / folder_name(f"{way} {prompt}", 0)
        shutil.rmtree(folder, ignore_errors=True)
        row = {"way": way, "prompt": prompt, **made(prompt, WAYS[way], heal, prior, folder)}
        known["runs"].append(row)
        print(row, file=sys.stderr, flush=True)
        _write(known, arguments.out)
    for prompt in arguments.healthy if arguments.draws else []:
        if prompt not in known["draws"]:
            known["draws"][prompt] = drawn(prompt, arguments.draws, prior)
            _write(known, arguments.out)


def _write(known: dict[str, Any], out: Path) -> None:
    """With the verdicts, which need the healthy run of the prompt."""
    healthy = {row["prompt"]: row for row in known["runs"] if row["way"] == "healthy"}
    for row in known["runs"]:
        end = healthy.get(row["prompt"]) if row.get("is") == "healthy" else row
        if end and row["prompt"] in healthy:
            row["good"] = good(end["reached"], healthy[row["prompt"]]["reached"])
            row["saved"] = row["good"] and not end["left"] and not end["error"]
    write_text(out, as_json({"machine": machine(CPU), "steps": STEPS, **known}) + "\n")


if __name__ == "__main__":
    main()
