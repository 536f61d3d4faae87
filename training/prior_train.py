"""Training of the embedded prior: `python -m training prior --assets DIR` makes weights from meshes.

x0 prediction under a cosine schedule; squared error in units of what is to be corrected at a noise level, so that all
levels weigh the same; captions dropped for classifier-free guidance; camera, background, light and variety dropped,
each for itself, so that the prior does without any of them. The state (networks, averages, optimiser, random generator)
is written every few minutes; an interrupted run goes on where it stopped.
"""

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from dreamfusion.checkpoint import require_fit
from dreamfusion.config.presets import FAST
from dreamfusion.diffusion.priors import NoiseSchedule, open_prior
from dreamfusion.embedded.sheet import samples, save_sheet, sides
from dreamfusion.embedded.sketch import gaussian_nll
from dreamfusion.embedded.unet import GROUPS, known_features, pooled
from dreamfusion.errors import UserError, damage_explained
from training import prior_data as dataset
from training import prior_views as views
from training.prior_card import make_card
from training.prior_parts import Parts, new_parts, write

Report = Callable[[str], None]
Stop = Callable[[], bool]
"""asked after every step: whether to save and leave"""
MISSED = 0.15
"""root mean square of the difference between a picture and its sketch, values in [-1, 1]; it weighs the noise levels"""
NLL_WEIGHT = 0.01
"""weight of the loss by which the sketch learns its spread: small, that it does not bend what the sketch draws"""
VIEWS = "views"
SHEET = ("a hamburger", "a red chair", "a frog", "a blue car", "a sofa", "a snowman")


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


@dataclass
class Training:
    """What changes while training."""

    parts: Parts
    average: nn.Module
    optimiser: torch.optim.Optimizer
    generator: Generator
    step: int = 0
    seconds: float = 0.0
    """of wall time, spent in steps"""

    def tensors(self) -> dict[str, Tensor]:
        """All of the state by name, for one safetensors file."""
        named = {f"network.{k}": v for k, v in self.parts.networks().state_dict().items()}
        named |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            named |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        return {k: v.contiguous().clone() for k, v in named.items()} | {"generator": self.generator.get_state()}


def new_training(options: TrainOptions) -> Training:
    """Untrained networks and a fresh optimiser."""
    parts = new_parts(options.seed)
    networks, words = parts.networks(), parts.text_encoder.get_input_embeddings().weight
    others = [parameter for parameter in networks.parameters() if parameter is not words]
    groups = [{"params": others, "speed": 1.0}, {"params": [words], "speed": options.embedding_lr_multiplier}]
    optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.99), fused=True)
    average = copy.deepcopy(networks).requires_grad_(False)
    return Training(parts, average, optimiser, torch.Generator().manual_seed(options.seed))


def save(training: Training, folder: Path) -> None:
    """Write the state; the old one stays until the new one is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"step": str(training.step), "seconds": str(training.seconds)}
    save_file(training.tensors(), folder / "state.partial", metadata=told)
    (folder / "state.partial").replace(folder / "state.safetensors")


def restore(training: Training, folder: Path) -> None:
    """Read the state back into `training`. Raises UserError if it is damaged or of other networks."""
    file = folder / "state.safetensors"
    with damage_explained(file, "restore it, or delete it to start anew"):
        _restore(training, file)


def _restore(training: Training, file: Path) -> None:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        training.step, training.seconds = int(opened.metadata()["step"]), float(opened.metadata()["seconds"])
    groups: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimiser": {}}
    for name, tensor in load_file(file).items():
        if name == "generator":
            training.generator.set_state(tensor)
        else:
            group, key = name.split(".", 1)
            groups[group][key] = tensor
    training.parts.networks().load_state_dict(groups["network"])
    training.average.load_state_dict(groups["average"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in groups["optimiser"].items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    require_fit(training.optimiser, state)
    training.optimiser.load_state_dict({**training.optimiser.state_dict(), "state": state})


def learning_rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, constant (twice as high for the sketch alone), linear to zero."""
    down = max(1, round(options.steps * options.cool_down))
    highest = options.learning_rate * (2 if step < options.sketch_first else 1)
    return highest * min(1.0, (step + 1) / options.warm_up, max(0.0, (options.steps - step) / down))


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
    for group in training.optimiser.param_groups:
        group["lr"] = group["speed"] * learning_rate(training.step, options)
    if training.step < options.sketch_first:
        loss = sketching_loss(training, pictures, options)
    else:
        loss = denoising_loss(training, pictures, options) + sketching_loss(training, pictures, options)
    if not torch.isfinite(loss):
        raise UserError(
            f"the training diverged at step {training.step + 1}: go on from the last state with another seed"
        )
    loss.backward()
    networks = training.parts.networks()
    nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
    training.optimiser.step()
    training.optimiser.zero_grad()
    training.step += 1
    decay = min(options.average, training.step / (training.step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(training.average.parameters()), list(networks.parameters()), 1 - decay)
    return float(loss.detach())


def averaged(training: Training) -> Parts:
    """The parts with the averaged weights, for sampling and shipping."""
    parts = copy.deepcopy(training.parts)
    parts.networks().load_state_dict(training.average.state_dict())
    return parts


def prepare(assets: Path, work: Path, options: TrainOptions, report: Report) -> None:
    """Render the pictures to learn from into the folder `work`, if they are not there."""
    if not (work / VIEWS).exists():
        views.build(assets, work / VIEWS, options.views, options.seed, report)


def train(work: Path, options: TrainOptions, report: Report, stop: Stop) -> Training:
    """Train, or go on training, in a prepared folder: views/, state.safetensors, log.jsonl, sheets of samples.

    Nothing is done if `options.steps` are done already. Raises UserError if the loss is no number; the state stays.
    Training that was stopped and taken up again is the same as if it had not been: bit for bit on the same machine with
    as many threads.
    """
    training = new_training(options)
    if (work / "state.safetensors").exists():
        restore(training, work)
        report(f"going on at step {training.step}")
    pictures = dataset.Pictures(views.open_views(work / VIEWS))
    _loop(training, pictures, options, work, report, stop)
    return training


def _loop(
    training: Training, pictures: dataset.Pictures, options: TrainOptions, work: Path, report: Report, stop: Stop
) -> None:
    since, losses, seen = time.monotonic(), [], pictures_seen(training.step, options)
    stopped = False
    while training.step < options.steps and not stopped:
        begun = time.monotonic()
        losses.append(advance(training, pictures, options))
        training.seconds += time.monotonic() - begun
        if training.step % 50 == 0:
            now = pictures_seen(training.step, options)
            rate = (now - seen) / (time.monotonic() - since)
            line = {"step": training.step, "loss": sum(losses) / len(losses), "images_per_second": round(rate, 1)}
            with (work / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            report(f"step {training.step}/{options.steps}  loss {line['loss']:.4f}  {rate:.1f} images/s")
            since, losses, seen = time.monotonic(), [], now
        stopped = stop()
        if stopped or training.step % options.save_every == 0 or training.step == options.steps:
            save(training, work)
        if training.step % options.sheet_every == 0:
            _sheet(training, options, work)


def pictures_seen(step: int, options: TrainOptions) -> int:
    """How many pictures the networks have learned from after `step` steps."""
    return options.sketch_batch * step + options.batch * max(0, step - options.sketch_first)


def _card(training: Training, options: TrainOptions) -> dict[str, Any]:
    return make_card(training.step, pictures_seen(training.step, options), training.seconds)


def _sheet(training: Training, options: TrainOptions, work: Path) -> None:
    """Write the averaged weights as they are now, and what they draw for a few captions."""
    write(averaged(training), work / "weights", _card(training, options))
    prior = open_prior(str(work / "weights"))
    told, scale = sides(prior, SHEET, torch.device("cpu")), FAST.distill.guidance_scale
    pictures = samples(prior, told, steps=15, guidance_scale=scale, seed=0)
    save_sheet(pictures, work / f"samples-{training.step:06d}.png")


def main(work: Path, out: Path, options: TrainOptions, report: Report, stop: Stop) -> bool:
    """Train in the prepared folder `work` to the last step, then write the averaged weights to `out`.

    Returns False if it was stopped before; the same call then goes on.
    """
    training = train(work, options, report, stop)
    if training.step < options.steps:
        report(f"stopped after step {training.step}, which is saved; the same command goes on")
        return False
    write(averaged(training), out, _card(training, options))
    report(f"wrote {out}")
    return True
