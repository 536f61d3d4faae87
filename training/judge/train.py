"""Training of the judge: `python -m training judge --assets DIR` makes its weights from meshes.

Cross entropy of noun, colour word and side; AdamW; warm-up, then linear down to zero. Each step's pictures are
shared out to lanes: a lane is a thread with a copy of the network and a random generator of its own, so that drawing
pictures and convolutions keep one core each busy without waiting for the other.
"""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

from dreamfusion.evaluate.judge.judge import open_judge
from dreamfusion.evaluate.judge.network import JudgeNet, new_network
from dreamfusion.evaluate.judge.sides import SIDES
from training.judge.pictures import TRAINING, UNPAINTED, Batch, balanced, draw
from training.judge.views import COUNTS, Counts, Split, Views
from training.loop import Plan, Watch, learn, rise_and_fall, update
from training.state import State

SIDE_WEIGHTS = torch.tensor([0.2 if side == "none" else 1.0 for side in SIDES])
"""most pictures show no side in particular; sides would be learned late"""


@dataclass(frozen=True)
class TrainOptions:
    """Settings of the training; the shipped weights took several parts (docs/reference/evaluation.md)."""

    steps: int = 33_000
    batch: int = 64
    """pictures per step, a multiple of `lanes`"""
    lanes: int = 2
    learning_rate: float = 2e-3
    warm_up: float = 0.05
    """fraction of the steps"""
    weight_decay: float = 0.05
    smoothing: float = 0.1
    """of the nouns: this share of the truth is spread over all of them"""
    side_weight: float = 0.4
    colour_weight: float = 0.3
    views: Counts = COUNTS
    save_every: int = 250
    start: Path | None = None
    """folder of a judge whose weights it begins with, in place of random ones"""
    seed: int = 7
    """of views and pictures"""


@dataclass(frozen=True)
class Lane:
    """A copy of the network, and the chance of its pictures."""

    network: JudgeNet
    generator: Generator


@dataclass(frozen=True)
class Training:
    """The lanes, and the state of their training. The first lane's network is the one that counts."""

    lanes: list[Lane]
    state: State

    @property
    def network(self) -> JudgeNet:
        return self.lanes[0].network


def new_training(nouns: int, options: TrainOptions) -> Training:
    """An untrained network, or the one it starts from, in every lane, and a fresh optimiser."""
    network = new_network(nouns, options.seed)
    if options.start is not None:
        network.load_state_dict(open_judge(folder=options.start).network.state_dict())
    lanes = [
        Lane(network if index == 0 else copy.deepcopy(network), Generator().manual_seed(options.seed + index))
        for index in range(options.lanes)
    ]
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
    )
    copies = [lane.network for lane in lanes[1:]]
    return Training(lanes, State(network, optimiser, [lane.generator for lane in lanes], copies=copies))


def learning_rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then linear down to zero at the last step."""
    warm = max(1, round(options.warm_up * options.steps))
    return options.learning_rate * rise_and_fall(step, options.steps, warm, options.steps - warm)


def loss_of(network: JudgeNet, truth: Batch, options: TrainOptions) -> Float[Tensor, ""]:
    """Weighted sum of the three cross entropies. Colour counts where a colour word was painted."""
    opinion = network(truth.image)
    painted = (truth.colour != UNPAINTED).sum().clamp(min=1)
    colour = F.cross_entropy(opinion.colour, truth.colour, ignore_index=UNPAINTED, reduction="sum") / painted
    noun = F.cross_entropy(opinion.noun, truth.noun, label_smoothing=options.smoothing)
    side = F.cross_entropy(opinion.side, truth.side, weight=SIDE_WEIGHTS)
    return noun + options.side_weight * side + options.colour_weight * colour


def advance(training: Training, views: Views, options: TrainOptions, threads: ThreadPoolExecutor) -> float:
    """One optimiser step on the mean of the lanes' gradients; returns the mean of their losses."""
    first, *others = training.lanes
    each = options.batch // options.lanes

    def gradient() -> float:
        losses = list(threads.map(lambda lane: _learn(lane, views, each, options), training.lanes))
        for other in others:
            torch._foreach_add_(_gradients(first), _gradients(other))
        torch._foreach_div_(_gradients(first), len(losses))
        return sum(losses) / len(losses)

    loss = update(training.state, gradient, learning_rate(training.state.step, options))
    for other in others:
        torch._foreach_copy_(_weights(other), _weights(first))
    return loss


def _gradients(lane: Lane) -> list[Tensor]:
    return [p.grad for p in lane.network.parameters() if p.grad is not None]


def _weights(lane: Lane) -> list[Tensor]:
    return [p.detach() for p in lane.network.parameters()]


def _learn(lane: Lane, views: Views, count: int, options: TrainOptions) -> float:
    """The gradient of one lane's share."""
    lane.network.zero_grad()
    truth = draw(views[balanced(views.noun, count, lane.generator)], TRAINING, lane.generator)
    loss = loss_of(lane.network, truth, options)
    loss.backward()
    return float(loss.detach())


def train(work: Path, split: Split, training: Training, options: TrainOptions, watch: Watch) -> bool:
    """Train, or go on training, in the folder `work` (`training.loop`); returns whether the last step was reached.

    Nothing is done if `options.steps` are done already. Raises UserError if the loss is no number; the state stays.
    """
    plan = Plan(options.steps, options.save_every, lambda step: step * options.batch)
    with ThreadPoolExecutor(options.lanes) as threads:
        return learn(training.state, lambda: advance(training, split.learn, options, threads), plan, work, watch)
