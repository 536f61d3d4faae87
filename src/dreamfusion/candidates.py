"""Several draws to begin with, of which the likeliest goes on (`--candidates`, docs/health.md).

All candidates are of the same thing: the seed says which of those that fit the prompt is meant, and they differ in
their random draws. They are begun one after the other, and the choice is the prior's, never the judge's.
"""

from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from dreamfusion.diffusion.priors import Prior, encoded
from dreamfusion.diffusion.prompts import PromptTable
from dreamfusion.files import write_json
from dreamfusion.health import Memory
from dreamfusion.lights import albedo_only
from dreamfusion.loop import Diverged, Metrics, Run, optimise, start
from dreamfusion.nerf.render import render_views
from dreamfusion.objectives import Guide, Words
from dreamfusion.progress import ProgressCallback
from dreamfusion.runs import RunFolder

SHARE = 0.2
"""of the steps, after which one is chosen"""
VIEWS = 16
LEVELS = (0.3, 0.5, 0.7)
"""timesteps at which noise is to be predicted, as fractions of the prior's"""
SCORER = "mean square error of the noise that the prior predicts in unlit renderings; fewer findings first"
_SEEDS = 2**63


@dataclass(frozen=True)
class Candidate:
    """One of those to choose from."""

    seed: int
    """of its draws"""
    error: float | None
    """`denoising_error`; None if it diverged"""
    findings: tuple[str, ...]
    """names of what was wrong with it in the end"""

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Smaller is better."""
        return self.error is None, len(self.findings), self.error or 0.0


def choose(
    run: Run, prior: Guide, prompts: Words, folder: RunFolder, say: ProgressCallback
) -> Generator[Metrics, None, None]:
    """Begin the candidates of a run before its first step, and let it become the best; yields the steps of all."""
    config, best = run.config, (run, Candidate(run.config.seed, None, ()), list[Mapping[str, Any]]())
    found = list[Candidate]()
    for number in range(config.candidates):
        say(f"candidate {number + 1} of {config.candidates}")
        seed = (config.seed + number) % _SEEDS
        trial = replace(start(replace(config, seed=seed), run.device), config=config)
        memory, records, findings, error = Memory(config.preset), list[Mapping[str, Any]](), (), None
        try:
            for metrics in optimise(trial, prior, prompts, max(1, round(SHARE * config.steps))):
                findings = memory.judged(metrics.record(), trial.progress)
                records.append(replace(metrics, findings=findings).record())
                yield metrics
            error = denoising_error(trial, prior, prompts)
        except Diverged:
            pass  # then it is the last one to be chosen
        found.append(Candidate(seed, error, tuple(finding.name for finding in findings)))
        if found[-1].rank < best[1].rank:
            best = trial, found[-1], records
    chosen, winner, records = best
    run.become(chosen)
    for record in records:
        folder.log(record)
    write_json(folder.candidates, {"scorer": SCORER, "chosen": winner.seed, "candidates": list(map(asdict, found))})


@torch.no_grad()
def denoising_error(run: Run, prior: Guide, prompts: Words) -> float:
    """How badly the prior predicts noise in a run's renderings: views, noise and levels are those of its seed."""
    assert isinstance(prior, Prior)
    assert isinstance(prompts, PromptTable)
    generator = torch.Generator().manual_seed(run.config.seed)
    cameras = run.recipe.cameras(VIEWS, run.config.size, generator).to(run.device)
    background, light = run.scene.background.draw(VIEWS, generator), albedo_only(VIEWS, run.device)
    picture = render_views(run.scene, cameras, light, run.recipe.train_render, background)
    t = torch.tensor([round(level * (prior.schedule.steps - 1)) for level in LEVELS], device=run.device)
    errors = []
    for view in range(VIEWS):
        one = slice(view, view + 1)
        x = encoded(prior, picture.rgb[one], linear=run.progress < run.config.memory.latent_until)
        x = x.expand(len(t), *x.shape[1:])
        given = prompts(cameras[one], light[one], None if background is None else background[one]).repeated(len(t))
        eps = torch.randn(x.shape, generator=generator).to(x)
        predicted = prior.predict_noise(prior.schedule.add_noise(x, eps, t), t, given.text, given.known)
        errors.append((predicted - eps).square().mean())
    return torch.stack(errors).mean().item()


def in_words(record: Mapping[str, Any]) -> str:
    """What `candidates.json` says."""
    chosen, count = record["chosen"], len(record["candidates"])
    return f"the draws of seed {chosen}, of {count} candidates after a fifth of the steps, by: {record['scorer']}"
