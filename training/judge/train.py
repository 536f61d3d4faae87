"""Training of the judge: `python -m training judge --assets DIR` makes its weights from meshes.

Cross entropy of noun, colour word, side and mesh, in bfloat16 where it serves; AdamW; warm-up, then linear down to
zero. Which mesh it is, is asked in training only: it is the same question as the noun's, with more to learn from the
answer.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from dreamfusion.evaluate.judge.network import HIDDEN, OWN, JudgeNet, Opinion, new_network
from dreamfusion.evaluate.judge.sides import SIDES
from training.judge.pictures import TRAINING, UNSEEN, Batch, draw
from training.judge.views import COUNTS, Counts, Split
from training.loop import Plan, Watch, learn, lighter, rise_and_fall, update
from training.mesh_views import Views, balanced
from training.state import State

SIDE_WEIGHTS = torch.tensor([0.2 if side == "none" else 1.0 for side in SIDES])
"""most pictures show no side in particular; sides would be learned late"""
COLOUR_WEIGHTS = torch.tensor([1.0] * OWN + [1 / OWN])
"""half of the pictures have colours of their own; so they weigh as much as those of any one colour word"""


@dataclass(frozen=True)
class TrainOptions:
    """Settings of the training."""

    steps: int = 18_000
    batch: int = 64
    """pictures per step"""
    learning_rate: float = 2e-3
    warm_up: float = 0.05
    """fraction of the steps"""
    weight_decay: float = 0.05
    smoothing: float = 0.1
    """of nouns and meshes: this share of the truth is spread over all of them"""
    mesh_weight: float = 0.5
    side_weight: float = 0.3
    colour_weight: float = 0.6
    views: Counts = COUNTS
    save_every: int = 250
    seed: int = 11
    """of views and pictures"""
    fold: int | None = None
    """half of the meshes that is left out, 0 or 1, in a cross-validation"""


class Pupil(nn.Module):
    """The judge, and what it is asked in training only."""

    def __init__(self, judge: JudgeNet, meshes: int):
        super().__init__()
        self.judge, self.mesh = judge, nn.Linear(HIDDEN, meshes)
        for parameter in self.mesh.parameters():
            nn.init.zeros_(parameter)

    def forward(self, cut: Float[Tensor, "b 4 h w"]) -> tuple[Opinion, Float[Tensor, "b m"]]:
        seen = self.judge.see(cut.contiguous(memory_format=torch.channels_last))
        return self.judge.opinion(seen), self.mesh(seen)


@dataclass(frozen=True)
class Training:
    """A pupil, the chance of its pictures, and the state of both."""

    pupil: Pupil
    generator: Generator
    state: State


def new_training(nouns: int, meshes: int, options: TrainOptions) -> Training:
    """An untrained network and a fresh optimiser."""
    pupil = Pupil(new_network(nouns, options.seed), meshes)
    generator = Generator().manual_seed(options.seed)
    optimiser = torch.optim.AdamW(
        pupil.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
    )
    return Training(pupil, generator, State(pupil, optimiser, [generator]))


def learning_rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then linear down to zero at the last step."""
    warm = max(1, round(options.warm_up * options.steps))
    return options.learning_rate * rise_and_fall(step, options.steps, warm, options.steps - warm)


def loss_of(pupil: Pupil, truth: Batch, options: TrainOptions) -> Float[Tensor, ""]:
    """Weighted sum of the cross entropies. Colour counts where it can be seen."""
    with lighter():
        opinion, mesh = pupil(truth.cut)
    colour = F.cross_entropy(
        opinion.colour.float(), truth.colour, weight=COLOUR_WEIGHTS, ignore_index=UNSEEN, reduction="sum"
    ) / len(truth.colour)
    noun = F.cross_entropy(opinion.noun.float(), truth.noun, label_smoothing=options.smoothing)
    side = F.cross_entropy(opinion.side.float(), truth.side, weight=SIDE_WEIGHTS)
    which = F.cross_entropy(mesh.float(), truth.mesh, label_smoothing=options.smoothing)
    return noun + options.mesh_weight * which + options.side_weight * side + options.colour_weight * colour


def advance(training: Training, views: Views, options: TrainOptions) -> float:
    """One optimiser step; returns the loss."""

    def gradient() -> float:
        rows = balanced(views.noun, options.batch, training.generator)
        loss = loss_of(training.pupil, draw(views[rows], TRAINING, training.generator), options)
        loss.backward()
        return float(loss.detach())

    return update(training.state, gradient, learning_rate(training.state.step, options))


def train(work: Path, split: Split, training: Training, options: TrainOptions, watch: Watch) -> bool:
    """Train, or go on training, in the folder `work` (`training.loop`); returns whether the last step was reached.

    Nothing is done if `options.steps` are done already. Raises UserError if the loss is no number; the state stays.
    """
    plan = Plan(options.steps, options.save_every, lambda step: step * options.batch)
    return learn(training.state, lambda: advance(training, split.learn, options), plan, work, watch)
