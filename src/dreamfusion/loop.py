"""The loop: DreamFusion's algorithm (section 3.4), one step a call. Here and in `objectives` the two halves meet."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion import build, vitals
from dreamfusion.cameras import Cameras
from dreamfusion.config import Config
from dreamfusion.config.check import validate
from dreamfusion.diffusion.distill import Distillation, LearnedLaw
from dreamfusion.diffusion.priors import Prior, PromptEncoder, understood, understood_negative
from dreamfusion.diffusion.prompts import PromptOptions, PromptTable
from dreamfusion.distributed import SINGLE_PROCESS, ProcessGroup, require_divisible
from dreamfusion.errors import UserError
from dreamfusion.healing import Healing, acting
from dreamfusion.health import Finding
from dreamfusion.lights import Light
from dreamfusion.nerf.render import Render, render
from dreamfusion.nerf.scene import Scene
from dreamfusion.objectives import Guide, Objective, Seen, Words
from dreamfusion.objectives.distilled import Distilled
from dreamfusion.own_parts import OwnParts, Unpack, require_sound, stateful, with_names
from dreamfusion.progress import ProgressCallback, silent


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
    healings: tuple[Healing, ...] = ()
    """what `--heal` has changed of what `config` asks for"""

    @property
    def acting(self) -> Config:
        """What it does: what it was told, changed by its healings."""
        return acting(self.config, self.healings)

    def become(self, other: "Run") -> None:
        """Take all that another run has: its state, and what it was told."""
        vars(self).update(vars(other))

    @property
    def objective(self) -> Objective:
        """What its pictures are judged by."""
        return self.recipe.objective or Distilled(self.distillation, self.group, self.config.memory.latent_until)

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
    vitals: dict[str, float]
    """what `health` judges the run by (`vitals`)"""
    healed: int = 0
    """times that the run was healed before"""
    findings: tuple[Finding, ...] = ()
    """what is wrong, if somebody looked"""
    healing: Healing | None = None
    """what is done about it"""

    def record(self) -> dict[str, object]:
        """What is logged: everything but the times, so that equal runs have equal logs."""
        numbers = {"opacity": self.opacity, "occupied": self.occupied, "gradient_norm": self.gradient_norm}
        health: dict[str, object] = {"vitals": self.vitals}
        health |= {"healed": self.healed} if self.healed else {}
        health |= {"findings": {finding.name: finding.figure for finding in self.findings}} if self.findings else {}
        return {"step": self.step, "losses": self.losses, **numbers, **health}


def start(
    config: Config,
    device: torch.device,
    group: ProcessGroup = SINGLE_PROCESS,
    healings: tuple[Healing, ...] = (),
    **own: Unpack[OwnParts],
) -> Run:
    """A run before its first step, with parts of the caller's `own` in place of configured ones (`OwnParts`).

    `Run.config` names them; `healings` change what it asks for. Raises UserError for a configuration or a part with
    which no run can be, or if a part lacks that the configuration names.
    """
    validate(config)
    require_sound(own)
    told = replace(config, custom=with_names(config, own))
    config = acting(told, healings)
    recipe, distillation, law = build.recipe(config), build.distillation(config.distill), own.get("law")
    recipe = replace(recipe, regularisers={**recipe.regularisers, **(own.get("regularisers") or {})})
    distillation = distillation if law is None else replace(distillation, law=law)
    require_divisible(config, distillation.law, group)
    generator = Generator().manual_seed(config.seed)
    scene = build.scene(config.scene, generator, own.get("field"), own.get("background")).to(device)
    for part in stateful(distillation.law, recipe.regularisers).values():
        part.to(device)
    scene.set_variance(config.scene.variance(0.0), 0.0)
    if config.scene.occupancy.every:
        scene.occupancy.update(scene.field, generator)
    optimiser = build.optimiser(config.optimise, scene)
    build.learn(optimiser, distillation.law)
    run = Run(told, recipe, scene, distillation, optimiser, generator, group=group, healings=healings)
    _require_trained(run)
    return run


def prompt_table(config: Config, reader: PromptEncoder, say: ProgressCallback = silent) -> PromptTable:
    """The prompt as the prior understands it; `say` is told of each text that it understands otherwise than typed.

    Raises UserError for words that it does not know, or too many of them.
    """
    prompt = understood(reader, config.caption(config.prompt))
    negative = understood_negative(reader, config.caption(config.negative))
    for text in (prompt, negative):
        if text.notes:
            say("; ".join(text.notes))
    wording = PromptOptions(
        negative=negative.caption,
        view_dependent=config.view_words,
        conditions=config.conditions,
        variety=config.seed,
        blend_views=config.blend_views,
        perp_neg=config.perp_neg,
    )
    return PromptTable(reader, prompt.caption, wording)


def optimise(run: Run, prior: Guide, prompts: Words, until: int) -> Iterator[Metrics]:
    """Advance until `until` steps are done, one step per item. Stop iterating at any time; the run is then whole.

    With another objective than score distillation, `prior` is its contrastive model, and `prompts` the `target`.
    """
    shared = run.group.sharded(prior) if isinstance(prior, Prior) else prior
    while run.step < until:
        yield advance(run, shared, prompts)


def advance(run: Run, prior: Guide, prompts: Words) -> Metrics:
    """One step towards the objective; for score distillation, algorithm 1 of DreamFusion.

    With several processes, `prior` is their shared one.

    Raises Diverged, before anything is updated, if a number is not finite, and UserError for what would train nothing.
    """
    recipe, scene, generator, group, progress = run.recipe, run.scene, run.generator, run.group, run.progress
    watch = _Stopwatch()
    _prepare(run, prior)

    cameras, light, background = _views(run)
    options = replace(recipe.train_render, views=group.shard(run.config.views))
    picture = render(scene, cameras.about(scene.centre), light, options, generator, background)
    watch.lap("render")

    seen = Seen(picture, cameras, light, background, scene, progress)
    judged = run.objective(seen, prior, prompts, generator)
    watch.lap("prior")

    terms = {**judged.terms, **_penalties(run, picture)}
    run.optimiser.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    watch.lap("backward")

    signs = vitals.measured(picture, light[options.views or slice(None)], scene.occupancy if _fresh(run) else None)
    losses = {**terms, **judged.logged}
    watched = [picture.opacity.mean(), scene.occupancy.occupied_fraction(), *signs.values(), *losses.values()]
    norm, opacity, occupied, *rest = _update(run, watched)
    told = vitals.told(dict(zip(signs, rest, strict=False)))
    logged = dict(zip(losses, rest[len(signs) :], strict=True))
    told |= {name: logged["distillation"] / unit for name, unit in judged.vitals.items()}
    watch.lap("update")
    return Metrics(run.step, logged, opacity, occupied, norm, watch.seconds, told, len(run.healings))


def _fresh(run: Run) -> bool:
    """Whether the memory of empty space has news since the last step."""
    every = run.config.scene.occupancy.every
    return every > 0 and run.step % every == 0


def _prepare(run: Run, prior: Guide) -> None:
    """Make the scene as sharp and as fine as it is to be now, and what learns ready for this prior."""
    run.scene.set_variance(run.config.scene.variance(run.progress), run.progress)
    if run.scene.grow(run.progress, run.generator):
        build.follow(run.optimiser, run.scene)
    law = run.distillation.law
    if isinstance(law, LearnedLaw) and isinstance(prior, Prior):
        law.attach(prior, run.generator)
        build.learn(run.optimiser, law)
    _require_trained(run)


def _learning(run: Run) -> dict[str, nn.Parameter]:
    """All parameters of the scene and of a law that learns, by name, but for those that are frozen."""
    modules = {"scene": run.scene} | stateful(run.distillation.law, {})
    named = {f"{where}.{name}": p for where, module in modules.items() for name, p in module.named_parameters()}
    return {name: parameter for name, parameter in named.items() if parameter.requires_grad}


def _require_trained(run: Run) -> None:
    """Raise UserError unless the optimiser moves the parameters of the scene and of the law, all and no others."""
    held = {id(parameter): parameter for group in run.optimiser.param_groups for parameter in group["params"]}
    learning = _learning(run)
    if missing := [name for name, parameter in learning.items() if id(parameter) not in held]:
        raise UserError(
            f"nothing would train {missing[0]}: the optimiser does not hold it. Give own parts to `start` (field=...,"
            " background=..., law=...), not to the run afterwards, and name all parameters in `parameter_groups`"
        )
    if not any(name.startswith("scene.") for name in learning):
        raise UserError("nothing would train the scene: all of its parameters are frozen")
    known = {id(parameter) for parameter in learning.values()}
    if any(parameter.requires_grad for key, parameter in held.items() if key not in known):
        raise UserError(
            "the optimiser holds parameters that are no longer the run's: give own parts to `start` (field=...,"
            " background=..., law=...), not to the run afterwards"
        )


def _views(run: Run) -> tuple[Cameras, Light, Float[Tensor, "b 3"] | None]:
    """Where a step's pictures are taken from, how they are lit, and what is behind them (None: the scene's own)."""
    recipe, generator, count = run.recipe, run.generator, run.config.views
    cameras = recipe.cameras(count, run.config.size_at(run.progress), generator).to(run.device)
    light = recipe.lights(cameras, run.progress, generator)
    return cameras, light, run.scene.background.draw(count, generator)


def _penalties(run: Run, picture: Render) -> dict[str, Float[Tensor, ""]]:
    """The weighted regularisers whose weight is not zero now, of those that say something of the picture."""
    weights = {name: weight(run.progress) for name, (weight, _) in run.recipe.regularisers.items()}
    terms = {
        name: term
        for name, (_, regulariser) in run.recipe.regularisers.items()
        if weights[name] > 0 and (term := regulariser(picture, run.scene)) is not None
    }
    for name, term in terms.items():
        if term.shape or not term.requires_grad:
            raise UserError(f"the regulariser {name} must return one number that depends on the scene, with its graph")
    return {name: weights[name] * term for name, term in terms.items()}


def _update(run: Run, watched: Sequence[Tensor]) -> list[float]:
    """Move the parameters, look again where matter is; returns the gradient's norm, and the watched numbers.

    Several processes first average gradients and numbers. Raises Diverged, before anything is updated.
    """
    rate, occupancy, law = (
        run.acting.optimise.lr_schedule(run.progress),
        run.acting.scene.occupancy,
        run.distillation.law,
    )
    run.group.all_reduce_mean([parameter.grad for parameter in run.scene.parameters() if parameter.grad is not None])
    norms = [_gradient_norm(run.scene.parameters())]
    if isinstance(law, LearnedLaw):
        norms.append(_gradient_norm(law.parameters()))
    numbers = torch.stack([*norms, *watched])
    run.group.all_reduce_mean([numbers])
    told = numbers.tolist()
    _require_finite(run, told)
    for group in run.optimiser.param_groups:
        group["lr"] = group["base"] * rate
    run.optimiser.step()
    run.step += 1
    run.scene.track(run.generator)
    if occupancy.every and run.step % occupancy.every == 0:
        run.scene.occupancy.update(run.scene.field, run.generator, occupancy.parts)
    return [told[0], *told[len(norms) :]]


def _gradient_norm(parameters: Iterable[nn.Parameter]) -> Float[Tensor, ""]:
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


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
