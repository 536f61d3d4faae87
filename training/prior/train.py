"""Training of the embedded prior: `python -m training prior --assets DIR` makes weights from meshes.

x0 prediction under a cosine schedule; squared error in units of what is to be corrected at a noise level, so that all
levels weigh the same; captions dropped for classifier-free guidance; camera, background, light and variety dropped,
each for itself, so that the prior does without any of them.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from dreamfusion.config.presets import FAST
from dreamfusion.diffusion.priors import NoiseSchedule, open_prior
from dreamfusion.embedded.sheet import samples, save_sheet, sides
from dreamfusion.embedded.sketch import gaussian_nll
from dreamfusion.embedded.unet import GROUPS, known_features, pooled
from training.loop import Plan, Watch, learn, rise_and_fall, update
from training.nouns import Assets, Noun
from training.prior import data as dataset
from training.prior.card import make_card
from training.prior.parts import Parts, new_parts, write
from training.prior.views import build, open_views
from training.state import State

MISSED = 0.15
"""root mean square of the difference between a picture and its sketch, values in [-1, 1]; it weighs the noise levels"""
NLL_WEIGHT = 0.01
"""weight of the loss by which the sketch learns its spread: small, that it does not bend what the sketch draws"""
VIEWS = "views"
SHOWN = 6
"""nouns on a sheet of samples, spread over the manifest"""


@dataclass(frozen=True)
class TrainOptions:
    """Settings of the training; how the shipped weights came about: docs/reference/embedded-prior.md."""

    steps: int = 60_000
    batch: int = 16
    """pictures for the denoiser in every step after `sketch_first`"""
    learning_rate: float = 6e-4
    warm_up: int = 200
    sketch_first: int = 6_250
    """steps in which only the sketch is trained, at twice the learning rate"""
    sketch_batch: int = 256
    """pictures of half the size for the sketch, in every step"""
    embedding_lr_multiplier: float = 10.0
    """factor on the learning rate of the word embeddings: a noun is in one caption of some 240"""
    cool_down: float = 0.5
    """the last fraction of the steps, in which the learning rate falls linearly to zero"""
    average: float = 0.999
    """decay of the exponential moving average of the weights, which is what ships"""
    drop_caption: float = 0.1
    keep_conditions: float = 0.85
    """probability with which each of camera, background, light and variety is told"""
    degraded: float = 0.25
    """share of the denoiser's pictures that it sees blurred, half transparent and in a wrong colour"""
    views: int = 300
    """of each noun, shared by its meshes (at least `views.LEAST_VIEWS` of each)"""
    save_every: int = 250
    """steps between states that survive even a crash"""
    sheet_every: int = 2_000
    seed: int = 1


@dataclass(frozen=True)
class Training:
    """The prior's parts, and the state of their training."""

    parts: Parts
    state: State

    @property
    def generator(self) -> Generator:
        return self.state.generators[0]


def new_training(table: Sequence[Noun], options: TrainOptions) -> Training:
    """Untrained networks and a fresh optimiser."""
    parts = new_parts(table, options.seed)
    networks, words = parts.networks(), parts.text_encoder.get_input_embeddings().weight
    others = [parameter for parameter in networks.parameters() if parameter is not words]
    groups = [{"params": others, "speed": 1.0}, {"params": [words], "speed": options.embedding_lr_multiplier}]
    optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.99), fused=True)
    average = copy.deepcopy(networks).requires_grad_(False)
    return Training(parts, State(networks, optimiser, [Generator().manual_seed(options.seed)], average))


def learning_rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, constant (twice as high for the sketch alone), linear to zero."""
    highest = options.learning_rate * (2 if step < options.sketch_first else 1)
    return highest * rise_and_fall(step, options.steps, options.warm_up, round(options.steps * options.cool_down))


def denoising_loss(training: Training, pictures: dataset.Pictures, options: TrainOptions) -> Float[Tensor, ""]:
    """The squared error of the denoiser on one batch, in units of the sketch's typical one at each noise level."""
    generator, parts = training.generator, training.parts
    batch = pictures.batch(options.batch, generator)
    schedule = NoiseSchedule.variance_preserving(parts.scheduler.alphas_cumprod)
    timestep = random_timesteps(options.batch, schedule.steps, generator)
    noise = torch.randn(batch.image.shape, generator=generator)
    chosen = torch.rand(options.batch, generator=generator) < options.degraded
    shown = torch.where(chosen[:, None, None, None], dataset.degraded(batch, generator), batch.image)
    noisy = schedule.add_noise(shown, noise, timestep)
    clean = parts.unet.denoise(noisy, timestep, *_told(training, batch, options))
    weight = 1 + (MISSED * schedule.alpha(timestep) / schedule.sigma(timestep)).square() * ~chosen
    return (weight * (clean - batch.image).square().mean((1, 2, 3))).mean()


def random_timesteps(count: int, steps: int, generator: Generator) -> Int[Tensor, " b"]:
    """Half of them uniform, as score distillation asks; half logit-normal, where most is to be learned."""
    level = torch.sigmoid(0.6 + 1.2 * torch.randn(count, generator=generator))
    uniform, coin = torch.rand(2, count, generator=generator)
    return (torch.where(coin < 0.5, uniform, level) * steps).long()


def sketching_loss(training: Training, pictures: dataset.Pictures, options: TrainOptions) -> Float[Tensor, ""]:
    """The squared error of the sketch on one batch, plus a little of how unlikely it is under the spread it told."""
    batch = pictures.batch(options.sketch_batch, training.generator, halve=True)
    text, known = _told(training, batch, options)
    drawn, spread = training.parts.unet.sketch(pooled(text), known)
    error = (drawn - batch.image).square().mean(1, keepdim=True)
    return error.mean() + NLL_WEIGHT * gaussian_nll(error.detach(), spread)


def _told(
    training: Training, batch: dataset.Batch, options: TrainOptions
) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b f"]]:
    """Text and known numbers of a batch, some of them hidden."""
    count, generator = len(batch.captions), training.generator
    drop = torch.rand(count, generator=generator) < options.drop_caption
    captions = ["" if gone else caption for gone, caption in zip(drop, batch.captions, strict=True)]
    keep = (torch.rand(count, len(GROUPS), generator=generator) < options.keep_conditions).float()
    known = known_features(batch.image, batch.pose, batch.background, batch.light, batch.variety)
    return training.parts.embed(captions), known * keep.repeat_interleave(torch.tensor(GROUPS), dim=1)


def advance(training: Training, pictures: dataset.Pictures, options: TrainOptions) -> float:
    """One optimiser step: the sketch alone at first, then denoiser and sketch; returns the loss."""
    state = training.state

    def gradient() -> float:
        if state.step < options.sketch_first:
            loss = sketching_loss(training, pictures, options)
        else:
            loss = denoising_loss(training, pictures, options) + sketching_loss(training, pictures, options)
        loss.backward()
        return float(loss.detach())

    return update(state, gradient, learning_rate(state.step, options), options.average)


def averaged(training: Training) -> Parts:
    """The parts with the averaged weights, for sampling and shipping."""
    parts = copy.deepcopy(training.parts)
    assert training.state.average is not None
    parts.networks().load_state_dict(training.state.average.state_dict())
    return parts


def prepare(assets: Assets, work: Path, options: TrainOptions, report: Callable[[str], None]) -> None:
    """Render the pictures to learn from into the folder `work`, if they are not there."""
    if not (work / VIEWS).exists():
        build(assets, work / VIEWS, options.views, options.seed, report)


def main(assets: Assets, work: Path, out: Path, options: TrainOptions, watch: Watch) -> bool:
    """Train, or go on training, in the prepared folder `work`, then write the averaged weights to `out`.

    In `work`: views/, the files of `training.loop`, sheets of samples. Returns False if it was stopped before the last
    step; the same call then goes on. Nothing is trained if `options.steps` are done already.
    """
    training = new_training(assets.table, options)
    pictures = dataset.Pictures(open_views(work / VIEWS, assets.table), assets.table)

    def sheet() -> None:
        if training.state.step % options.sheet_every == 0:
            _sheet(training, _card(training, assets, options), work)

    plan = Plan(options.steps, options.save_every, partial(pictures_seen, options=options), sheet)
    if not learn(training.state, lambda: advance(training, pictures, options), plan, work, watch):
        return False
    write(averaged(training), out, _card(training, assets, options))
    watch.report(f"wrote {out}")
    return True


def pictures_seen(step: int, options: TrainOptions) -> int:
    """How many pictures the networks have learned from after `step` steps."""
    return options.sketch_batch * step + options.batch * max(0, step - options.sketch_first)


def _card(training: Training, assets: Assets, options: TrainOptions) -> dict[str, Any]:
    step, seconds = training.state.step, training.state.seconds
    return make_card(assets.table, step, pictures_seen(step, options), seconds, assets.licence)


def _sheet(training: Training, card: dict[str, Any], work: Path) -> None:
    """Write the averaged weights as they are now, and what they draw for a few captions."""
    write(averaged(training), work / "weights", card)
    prior = open_prior(str(work / "weights"))
    some = card["nouns"][:: max(1, len(card["nouns"]) // SHOWN)][:SHOWN]
    captions = [dataset.with_article("a {}", noun) for noun in some]
    told, scale = sides(prior, captions, torch.device("cpu")), FAST.distill.guidance_scale
    pictures = samples(prior, told, steps=15, guidance_scale=scale, seed=0)
    save_sheet(pictures, work / f"samples-{training.state.step:06d}.png")
