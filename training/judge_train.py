"""Training of the judge: `python -m training judge --assets DIR` makes its weights from meshes.

Cross entropy of noun, colour word and side; AdamW; warm-up, then linear down to zero. Each step's pictures are
shared out to lanes: a lane is a thread with a copy of the network and a random generator of its own, so that drawing
pictures and convolutions keep one core each busy without waiting for the other. The state is written every few
minutes; an interrupted training goes on where it stopped, on the same machine bit for bit the same.
"""

import copy
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor
from torch.nn import functional as F

from dreamfusion.checkpoint import require_fit
from dreamfusion.errors import UserError, damage_explained
from dreamfusion.evaluate.judge.judge import open_judge
from dreamfusion.evaluate.judge.network import JudgeNet, new_network
from dreamfusion.evaluate.judge.sides import SIDES
from training.judge_pictures import TRAINING, UNPAINTED, Batch, balanced, draw
from training.judge_views import COUNTS, Counts, Split, Views
from training.nouns import names, nouns

Report = Callable[[str], None]
Stop = Callable[[], bool]
"""asked after every step: whether to save and leave"""
STATE, LOG = "state.safetensors", "log.jsonl"
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


@dataclass
class Training:
    """What changes while training. The first lane's network is the one that counts."""

    lanes: list[Lane]
    optimiser: torch.optim.AdamW
    step: int = 0

    @property
    def network(self) -> JudgeNet:
        return self.lanes[0].network

    def tensors(self) -> dict[str, Tensor]:
        """All of the state by name, for one safetensors file."""
        named: dict[str, Tensor] = {}
        for index, lane in enumerate(self.lanes):
            named |= {f"lane.{index}.{name}": tensor for name, tensor in lane.network.state_dict().items()}
            named[f"generator.{index}"] = lane.generator.get_state()
        for index, state in self.optimiser.state_dict()["state"].items():
            named |= {f"optimiser.{index}.{name}": tensor for name, tensor in state.items()}
        return {name: tensor.contiguous().clone() for name, tensor in named.items()}


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
    return Training(lanes, optimiser)


def save(training: Training, work: Path) -> None:
    """Write the state; the old one stays until the new one is complete."""
    partial = work / f"{STATE}.partial"
    save_file(training.tensors(), partial, metadata={"step": str(training.step)})
    partial.replace(work / STATE)


def restore(training: Training, work: Path) -> None:
    """Read the state back into `training`. Raises UserError if it is damaged or of another network."""
    with damage_explained(work / STATE, "restore it, or delete it to start anew"):
        _restore(training, work)


def _restore(training: Training, work: Path) -> None:
    with safe_open(work / STATE, "pt") as opened:
        training.step = int(opened.metadata()["step"])
    tensors = load_file(work / STATE)
    for index, lane in enumerate(training.lanes):
        prefix = f"lane.{index}."
        lane.network.load_state_dict(
            {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        )
        lane.generator.set_state(tensors[f"generator.{index}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match name.split(".", 2):
            case ["optimiser", index, key]:
                moments.setdefault(int(index), {})[key] = tensor
    require_fit(training.optimiser, moments)
    training.optimiser.load_state_dict({**training.optimiser.state_dict(), "state": moments})


def learning_rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then linear down to zero at the last step."""
    warm = max(1, round(options.warm_up * options.steps))
    return options.learning_rate * min((step + 1) / warm, (options.steps - step) / max(1, options.steps - warm))


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
    for group in training.optimiser.param_groups:
        group["lr"] = learning_rate(training.step, options)
    each = options.batch // options.lanes
    losses = list(threads.map(lambda lane: _learn(lane, views, each, options), training.lanes))
    if not all(map(math.isfinite, losses)):
        raise UserError(f"the training diverged at step {training.step + 1}: go on from the last state, or start anew")
    first, *others = training.lanes
    for other in others:
        torch._foreach_add_(_gradients(first), _gradients(other))
    torch._foreach_div_(_gradients(first), len(losses))
    torch.nn.utils.clip_grad_norm_(first.network.parameters(), 1.0)
    training.optimiser.step()
    for other in others:
        torch._foreach_copy_(_weights(other), _weights(first))
    training.step += 1
    return sum(losses) / len(losses)


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


def train(work: Path, split: Split, options: TrainOptions, report: Report, stop: Stop) -> Training:
    """Train, or go on training, in the folder `work`: state.safetensors, log.jsonl.

    Nothing is done if `options.steps` are done already. Raises UserError if the loss is no number; the state stays.
    """
    training = new_training(len(names(nouns())), options)
    if (work / STATE).exists():
        restore(training, work)
        report(f"going on at step {training.step}")
    since, losses, stopped = time.monotonic(), list[float](), False
    with ThreadPoolExecutor(options.lanes) as threads:
        while training.step < options.steps and not stopped:
            losses.append(advance(training, split.learn, options, threads))
            stopped = stop()
            if training.step % 50 == 0:
                rate = len(losses) * options.batch / (time.monotonic() - since)
                _log(work, training.step, sum(losses) / len(losses), rate, report)
                since, losses = time.monotonic(), []
            if stopped or training.step % options.save_every == 0 or training.step == options.steps:
                save(training, work)
    return training


def _log(work: Path, step: int, loss: float, rate: float, report: Report) -> None:
    line = {"step": step, "loss": round(loss, 4), "images_per_second": round(rate, 1)}
    with (work / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    report(f"step {step}  loss {loss:.4f}  {rate:.0f} images/s")
