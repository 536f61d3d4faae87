"""The loop: DreamFusion's algorithm (section 3.4), one step a call. The only place where the two halves meet."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion import build
from dreamfusion.cameras import Cameras
from dreamfusion.config import Config
from dreamfusion.config.check import validate
from dreamfusion.diffusion.distill import Distillation, Vsd, surrogate
from dreamfusion.diffusion.priors import LinearEncodingPrior, Prior, PromptEncoder, require_known
from dreamfusion.diffusion.prompts import PromptOptions, PromptTable
from dreamfusion.distributed import SINGLE_PROCESS, ProcessGroup, require_divisible
from dreamfusion.errors import UserError
from dreamfusion.lights import Light
from dreamfusion.nerf import regularise
from dreamfusion.nerf.fields.grid import GridField
from dreamfusion.nerf.render import Render, render
from dreamfusion.nerf.scene import Scene
from dreamfusion.schedules import Schedule


class Diverged(UserError):
    """A loss or a gradient is no finite number. Nothing was updated with it."""


@dataclass
class Run:
    """Everything of a run that changes, and what it was told. The only mutable record; a checkpoint holds all of it."""

    config: Config
    recipe: build.Recipe
    scene: Scene
    distillation: Distillation
    """holds parameters if its law learns (VSD): then `optimiser` moves them too, from the first step on"""
    optimiser: torch.optim.Optimizer
    generator: Generator
    """on the CPU, on every machine: draws are moved to the device"""
    step: int = 0
    """steps done"""
    group: ProcessGroup = SINGLE_PROCESS
    """the processes that share the steps"""

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return min(self.step / self.config.steps, 1.0)

    @property
    def device(self) -> torch.device:
        return self.scene.occupancy.density.device


@dataclass(frozen=True)
class Metrics:
    """What one step did."""

    step: int
    """steps done, this one included"""
    losses: dict[str, float]
    """weighted parts; "distillation" is the mean norm of its gradient per picture, as its value means nothing"""
    opacity: float
    """mean over the pixels, in [0, 1]"""
    occupied: float
    """share of the cells that were searched for matter"""
    gradient_norm: float
    """over all parameters of the scene"""
    seconds: dict[str, float]
    """wall time by stage: render, prior, backward, update (on a GPU, where work is queued, only the sum counts)"""

    def record(self) -> dict[str, object]:
        """What is logged: everything but the times, so that equal runs have equal logs."""
        numbers = {"opacity": self.opacity, "occupied": self.occupied, "gradient_norm": self.gradient_norm}
        return {"step": self.step, "losses": self.losses, **numbers}


def start(config: Config, device: torch.device, group: ProcessGroup = SINGLE_PROCESS) -> Run:
    """A run before its first step. Raises UserError for a configuration with which none can be."""
    validate(config)
    require_divisible(config, group)
    generator = Generator().manual_seed(config.seed)
    scene = build.scene(config.scene, generator).to(device)
    scene.set_variance(config.scene.variance(0.0), 0.0)
    if config.scene.occupancy.every:
        scene.occupancy.update(scene.field, generator)
    distillation, optimiser = build.distillation(config.distill), build.optimiser(config.optimise, scene)
    return Run(config, build.recipe(config), scene, distillation, optimiser, generator, group=group)


def prompt_table(config: Config, reader: PromptEncoder) -> PromptTable:
    """The prompt as the prior understands it. Raises UserError for words that it does not know, or too many of them."""
    require_known(reader, config.prompt)
    require_known(reader, config.negative)
    wording = PromptOptions(
        negative=config.negative,
        view_dependent=config.view_words,
        conditions=config.conditions,
        variety=config.seed,
        blend_views=config.blend_views,
        perp_neg=config.perp_neg,
    )
    return PromptTable(reader, config.prompt, wording)


def optimise(run: Run, prior: Prior, prompts: PromptTable, until: int) -> Iterator[Metrics]:
    """Advance until `until` steps are done, one step per item. Stop iterating at any time; the run is then whole."""
    while run.step < until:
        yield advance(run, prior, prompts)


def advance(run: Run, prior: Prior, prompts: PromptTable) -> Metrics:
    """One step of score distillation. Raises Diverged, before anything is updated, if a number is not finite."""
    config, recipe, scene, generator, progress = run.config, run.recipe, run.scene, run.generator, run.progress
    group, own, watch = run.group, run.group.shard(config.views), _Stopwatch()
    scene.set_variance(config.scene.variance(progress), progress)
    if isinstance(run.distillation.law, Vsd) and run.distillation.law.attach(prior, generator):
        build.learn(run.optimiser, run.distillation.law)

    cameras, light, background = _views(run)
    picture = render(scene, cameras, light, replace(recipe.train_render, views=own), generator, background)
    watch.lap("render")

    x = _encoded(prior, picture.rgb, rough=progress < config.memory.latent_until)
    given = prompts(cameras, light, background)
    gradient = run.distillation(group.all_gather(x), given, group.sharded(prior), progress, generator)
    lessons = run.distillation.auxiliary_losses(x, given, prior, progress, generator)
    watch.lap("prior")

    penalties = _penalties(run, picture, progress) | lessons
    loss = torch.stack([surrogate(x, gradient if own is None else gradient[own]), *penalties.values()]).sum()
    run.optimiser.zero_grad()
    loss.backward()
    group.all_reduce_mean([parameter.grad for parameter in scene.parameters() if parameter.grad is not None])
    watch.lap("backward")

    pull = gradient.flatten(1).norm(dim=1).mean()
    watched = [
        _gradient_norm(scene),
        pull,
        picture.opacity.mean(),
        scene.occupancy.occupied_fraction(),
        *penalties.values(),
    ]
    if isinstance(run.distillation.law, Vsd):
        watched.append(_gradient_norm(run.distillation.law))
    numbers = torch.stack(watched)
    group.all_reduce_mean([numbers])
    numbers = numbers.tolist()
    _require_finite(run, numbers)
    _update(run, progress)
    watch.lap("update")

    norm, pull, opacity, occupied, *parts = numbers
    losses = {"distillation": pull, **dict(zip(penalties, parts, strict=False))}  # the last part is the law's
    return Metrics(run.step, losses, opacity, occupied, norm, watch.seconds)


def _views(run: Run) -> tuple[Cameras, Light, Float[Tensor, "b 3"] | None]:
    """Where a step's pictures are taken from, how they are lit, and what is behind them (None: the scene's own)."""
    recipe, generator, count = run.recipe, run.generator, run.config.views
    cameras = recipe.cameras(count, run.config.size, generator).to(run.device)
    light = recipe.lights(cameras, run.progress, generator)
    return cameras, light, run.scene.background.draw(count, generator)


def _encoded(prior: Prior, image: Float[Tensor, "b h w 3"], rough: bool) -> Float[Tensor, "b c u v"]:
    return prior.encode_linear(image) if rough and isinstance(prior, LinearEncodingPrior) else prior.encode(image)


def _penalties(run: Run, picture: Render, progress: float) -> dict[str, Float[Tensor, ""]]:
    """The weighted regularisers whose weight is not zero now. Orientation waits for views with normals."""
    weights, field = run.recipe.weights, run.scene.field
    pixels = run.config.size**2 if weights.reduction == "sum" else 1
    terms: dict[str, tuple[Schedule, Callable[[], Tensor]]] = {
        "opacity": (weights.opacity, lambda: pixels * regularise.opacity(picture)),
        "entropy": (weights.entropy, lambda: pixels * regularise.entropy(picture)),
        "distortion": (weights.distortion, lambda: pixels * regularise.distortion(picture)),
    }
    if picture.along.normal is not None:
        terms["orientation"] = weights.orientation, lambda: pixels * regularise.orientation(picture)
    if picture.along.proposals:
        terms["interlevel"] = weights.interlevel, lambda: regularise.interlevel(picture)
    if isinstance(field, GridField):
        terms["smoothness"] = weights.smoothness, lambda: regularise.total_variation(field.merged_logits())
    now = {name: weight(progress) for name, (weight, _) in terms.items()}
    return {name: now[name] * term() for name, (_, term) in terms.items() if now[name] > 0}


def _update(run: Run, progress: float) -> None:
    """Move the parameters, then look again where matter is."""
    rate, occupancy = run.config.optimise.lr_schedule(progress), run.config.scene.occupancy
    for group in run.optimiser.param_groups:
        group["lr"] = group["base"] * rate
    run.optimiser.step()
    run.step += 1
    if occupancy.every and run.step % occupancy.every == 0:
        run.scene.occupancy.update(run.scene.field, run.generator, occupancy.parts)


def _gradient_norm(module: nn.Module) -> Float[Tensor, ""]:
    return nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


def _require_finite(run: Run, numbers: list[float]) -> None:
    if not all(map(math.isfinite, numbers)):
        raise Diverged(
            f"the run diverged at step {run.step + 1}: a loss or gradient is not a finite number, nothing was updated;"
            " start again with a lower --guidance-scale, --optimise.grid or --optimise.network, or another --seed"
        )


class _Stopwatch:
    """Wall time since the last lap, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.seconds[name], self._last = now - self._last, now
