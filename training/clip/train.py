"""Training of the embedded contrastive model: symmetric InfoNCE, AdamW, warm-up, constant, linear down to zero.

Pictures begin simple and get harder. Beside its own caption and those of the other pictures in the batch, each picture
meets every noun by itself, and a caption of its own that is wrong in one word.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.contrastive.network import ToyboxNet, new_network
from training.clip.captions import Facts, Words, wrong
from training.clip.loss import symmetric
from training.clip.pictures import TRAINING, draw, eased
from training.clip.views import COUNTS, Counts
from training.loop import Plan, Watch, learn, rise_and_fall, update
from training.mesh_views import Views, balanced
from training.state import State


@dataclass(frozen=True)
class TrainOptions:
    """Settings of the training."""

    steps: int = 20_000
    batch: int = 32
    """pictures per step"""
    learning_rate: float = 1.5e-3
    """the greatest"""
    warm_up: int = 200
    """steps"""
    easing: int = 5_000
    """steps in which pictures get as hard as they will be"""
    cool_down: float = 0.4
    """last fraction of the steps, in which the learning rate falls"""
    weight_decay: float = 0.05
    views: Counts = COUNTS
    save_every: int = 200
    seed: int = 7
    """of views and pictures"""


@dataclass(frozen=True)
class Training:
    """A network, the chance of its pictures, and the state of both."""

    network: ToyboxNet
    words: Words
    generator: Generator
    state: State


def new_training(words: Words, options: TrainOptions) -> Training:
    """An untrained network and a fresh optimiser."""
    network = new_network(len(words.words), options.seed)
    generator = Generator().manual_seed(options.seed)
    decaying = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decaying}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True)
    return Training(network, words, generator, State(network, optimiser, [generator]))


def learning_rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, constant, and linear down to zero at the last step."""
    cool_down = round(options.cool_down * options.steps)
    return options.learning_rate * rise_and_fall(step, options.steps, options.warm_up, cool_down)


def loss_of(
    network: ToyboxNet, words: Words, image: Float[Tensor, "b 3 h w"], pictures: Facts, generator: Generator
) -> Float[Tensor, ""]:
    """The contrastive loss of a batch, with captions drawn for it."""
    own = words.caption(pictures, generator)
    captions = own.joined(words.contrary(pictures, generator), words.plain())
    logits = network.scale * network.embed_images(image) @ network.embed_words(words.read(captions)).T
    same = (own.table()[:, None] == captions.table()[None]).all(-1)
    return symmetric(logits, same, wrong(pictures, captions))


def advance(training: Training, views: Views, options: TrainOptions) -> float:
    """One optimiser step; returns the loss."""
    words, generator = training.words, training.generator

    def gradient() -> float:
        rows = balanced(views.noun, options.batch, generator)
        look = eased(TRAINING, min(1.0, training.state.step / options.easing))
        image, pictures = draw(views[rows], words.adjective_of, look, generator)
        loss = loss_of(training.network, words, image, pictures, generator)
        loss.backward()
        return float(loss.detach())

    return update(training.state, gradient, learning_rate(training.state.step, options))


def train(work: Path, views: Views, training: Training, options: TrainOptions, watch: Watch) -> bool:
    """Train, or go on training, in the folder `work` (`training.loop`); returns whether the last step was reached."""
    plan = Plan(options.steps, options.save_every, lambda step: step * options.batch)
    return learn(training.state, lambda: advance(training, views, options), plan, work, watch)
