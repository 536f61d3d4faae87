"""What the benchmarks of a step share: the middle of a run, a run whose scene stands still, and times of steps."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Generator, Tensor

from dreamfusion import build
from dreamfusion.cameras import Cameras, turntable
from dreamfusion.config import Config
from dreamfusion.diffusion.distill import Distillation
from dreamfusion.diffusion.priors import Conditioning, Prior, ViewCondition, allowed_conditions
from dreamfusion.diffusion.priors.pipeline import PipelinePrior
from dreamfusion.diffusion.prompts import PromptTable
from dreamfusion.lights import Light, LightSampler, albedo_only
from dreamfusion.loop import Run, advance, optimise, prompt_table, start
from dreamfusion.schedules import Constant
from machine import now


@dataclass(frozen=True)
class Step:
    """What one step took, in seconds, and of what kind it was."""

    whole: float
    prior: float
    """of the whole: distillation, that is the prior and the few operations about it"""
    stages: dict[str, float]
    """the step's own account; on a GPU, where work is queued, only its sum counts"""
    lit: bool
    """whether any view was lit by a lamp, so that normals were needed"""
    opacity: float
    occupied: float

    @property
    def own(self) -> float:
        """All that is not the prior's: render, backward, update."""
        return self.whole - self.prior


def middle_of_run(config: Config, device: torch.device, prior: Prior, warm_steps: int) -> Run:
    """A fresh run after its first `warm_steps` steps; says on stderr how far it is."""
    run = start(config, device)
    prompts = prompt_table(config, prior)
    for metrics in optimise(run, prior, prompts, warm_steps):
        if metrics.step % 10 == 0 or metrics.step == warm_steps:
            print(f"\rwarming up: step {metrics.step} of {warm_steps}", end="", file=sys.stderr, flush=True)
    if warm_steps:
        print(file=sys.stderr)
    return run


def standing(run: Run, change: Callable[[Config], Config] = lambda config: config) -> Run:
    """A copy of the run, told something else, with learning rates of 0: every step sees the same scene.

    Its generator starts anew, so that two of them with equal pictures see equal views.
    """
    config = change(run.config)
    config = replace(config, optimise=replace(config.optimise, lr_schedule=Constant(0.0)))
    scene, generator = deepcopy(run.scene), Generator().manual_seed(config.seed)
    optimiser = build.optimiser(config.optimise, scene)
    distillation = build.distillation(config.distill)
    return Run(config, build.recipe(config), scene, distillation, optimiser, generator, run.step)


def all_lit(config: Config) -> Config:
    """Every view with a lamp, so that all steps are of one kind, the dear one."""
    return replace(config, light=replace(config.light, albedo_until=0.0, shaded=1.0))


def none_lit(config: Config) -> Config:
    """Every view without a lamp: the cheap kind."""
    return replace(config, light=replace(config.light, shaded=0.0))


def timed_steps(
    run: Run, prior: Prior, prompts: PromptTable, count: int, between: Callable[[], None] = lambda: None
) -> list[Step]:
    """Do `count` steps; `between` is called after each of them."""
    steps = []
    for _ in range(count):
        with _noted(run) as notes:
            since = now(run.device)
            metrics = advance(run, prior, prompts)
            whole = now(run.device) - since
        lit = any(bool((light.diffuse > 0).any()) for light in notes.lights)
        prior_seconds = sum(notes.distillation)
        steps.append(Step(whole, prior_seconds, metrics.seconds, lit, metrics.opacity, metrics.occupied))
        between()
    return steps


def in_one_thread(prior: Prior) -> Prior:
    """The same prior, which evaluates a batch as a whole, not parts of it side by side."""
    return replace(prior, side=1) if isinstance(prior, PipelinePrior) else prior


def two_evaluations(run: Run, prior: Prior) -> float:
    """Seconds of the prior alone, once with the text and once without it, in one call; told what the run tells it."""
    pose = turntable(2, 0.3, run.config.camera.distance[0], 0.7, prior.image_size).pose.to(run.device)
    variety = torch.zeros(2, dtype=torch.long, device=run.device)
    known = ViewCondition(pose, torch.ones(2, 3, device=run.device), albedo_only(2, run.device), variety)
    known = known.only(allowed_conditions(prior.conditions, run.config.conditions))
    text = prior.embed([run.config.prompt, ""])
    noisy = prior.encode(torch.rand(2, prior.image_size, prior.image_size, 3, device=run.device))
    t = torch.full((2,), prior.schedule.steps // 2, device=run.device)
    since = now(run.device)
    prior.predict_noise(noisy, t, text, known)
    return now(run.device) - since


@dataclass(frozen=True)
class _Notes:
    lights: list[Light] = field(default_factory=list)
    distillation: list[float] = field(default_factory=list)
    """seconds of each call"""


@dataclass(frozen=True)
class _NotedLights(LightSampler):
    notes: _Notes = field(default_factory=_Notes)

    def __call__(self, cameras: Cameras, progress: float, generator: Generator) -> Light:
        light = super().__call__(cameras, progress, generator)
        self.notes.lights.append(light)
        return light


@dataclass(frozen=True)
class _TimedDistillation(Distillation):
    notes: _Notes = field(default_factory=_Notes)

    def __call__(self, x: Tensor, given: Conditioning, prior: Prior, progress: float, generator: Generator) -> Tensor:
        since = now(x.device)
        gradient = super().__call__(x, given, prior, progress, generator)
        self.notes.distillation.append(now(x.device) - since)
        return gradient


@contextmanager
def _noted(run: Run) -> Iterator[_Notes]:
    """Within it, the run's lights are remembered and its distillation is timed."""
    recipe, distillation, notes = run.recipe, run.distillation, _Notes()
    lights = _NotedLights(**_values(recipe.lights), notes=notes)
    run.recipe = replace(recipe, lights=lights)
    run.distillation = _TimedDistillation(**_values(distillation), notes=notes)
    try:
        yield notes
    finally:
        run.recipe, run.distillation = recipe, distillation


def _values(record: LightSampler | Distillation) -> dict:
    return {entry.name: getattr(record, entry.name) for entry in fields(record)}
