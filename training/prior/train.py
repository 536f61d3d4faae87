"""Training of the embedded prior: `python -m training prior --assets DIR` makes weights from meshes.

Every step learns from an eighth of the cells of 32 views of each of eight things: what the tables and the decoder make
of them against what was rendered, by squared error. The decoder learns by Adam; so does each thing, with moments and a
count of its own, as most steps do not touch it. Then tables and decoder stay, and each thing learns its corrections of
the decoder, rounded as they are stored (gradients pass the rounding: Bengio et al. 2013). Then a thing like no other is
learned, the mean of all (`training.prior.nothing`), and the errors on views that nothing learned from become the
spreads of the denoiser.
"""

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from dreamfusion.embedded.corrections import decoded, matrices, rounded, unrounded
from dreamfusion.embedded.tables import CELL, Angles, Shape, decoder, draw
from training.loop import Plan, Watch, learn, lighter, update
from training.nouns import Assets, learned
from training.prior.card import make_card
from training.prior.cells import Asked, gathered
from training.prior.error import Unseen, unseen
from training.prior.nothing import mean_thing
from training.prior.rows import Rows
from training.prior.ship import denoiser, measured, write
from training.prior.views import LEARNED, NUMBERS, MeshViews, cameras_of, open_mesh
from training.state import State

WEIGHTS = (1.0,) * 6 + (0.35,) * 3 + (1.5,)
"""of the squared errors of the maps: colours, normals, coverage"""
STD = 0.3
"""of the numbers of a thing, at first"""
ERRORS = "errors.jsonl"
SHAPE = Shape()


@dataclass(frozen=True)
class TrainOptions:
    """Settings of the training; how the shipped weights came about: docs/reference/embedded-prior.md."""

    steps: int = 45_000
    corrected: float = 1 / 3
    """share of them, the last ones, in which corrections are learned"""
    things: int = 8
    """in a step"""
    views: int = 32
    """of each, out of `views.LEARNED`"""
    share: float = 0.125
    """of the cells of these views, at random: many views are worth more than whole ones"""
    learning_rate: float = 4e-3
    """of the decoder"""
    learning_rate_things: float = 0.1
    learning_rate_corrections: float = 0.02
    last: float = 0.02
    """share of the learning rates at the end of their cosines"""
    average: float = 0.999
    """decay of the average of the decoder's weights, each step"""
    average_things: float = 0.95
    """decay of the average of a thing's numbers, each time that it is learned"""
    save_every: int = 1_000
    measure_every: int = 3_000
    measured_views: int = 8
    """of every mesh, which nothing learns from"""
    seed: int = 0

    @property
    def first_steps(self) -> int:
        """Steps in which tables and decoder are learned."""
        return round((1 - self.corrected) * self.steps)


class Tables(nn.Module):
    """All that is learned: the parameters are the decoder's."""

    def __init__(self, count: int, shape: Shape, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.shape, self.decode = shape, decoder(shape)
        self.rows = Rows(STD * torch.randn(count, shape.numbers, generator=Generator().manual_seed(seed)))
        self.corrections = Rows(no_corrections(count, shape, Generator().manual_seed(seed)))

    def settle(self, average: nn.Module) -> None:
        """Put the averages of the decoder's weights and of the things' numbers in their place."""
        self.decode.load_state_dict(average.state_dict())
        self.rows.settle()


def no_corrections(count: int, shape: Shape, generator: Generator) -> Float[Tensor, "things n"]:
    """Where corrections begin: random vectors on the side of the inputs, zeros on the other, as LoRA has them."""
    sides = zip(shape.vectors, (1.0, 0.0) * len(shape.layers), strict=True)
    parts = [
        scale * torch.randn(count, shape.rank * length, generator=generator) / math.sqrt(length)
        for length, scale in sides
    ]
    return torch.cat(parts, dim=1)


def as_stored(numbers: Float[Tensor, "m n"], shape: Shape) -> Float[Tensor, "m n"]:
    """Numbers of corrections, rounded."""
    return unrounded(*rounded(numbers, shape), shape)


@dataclass(frozen=True)
class Training:
    """The tables, and the state of their training."""

    tables: Tables
    state: State
    options: TrainOptions

    @property
    def generator(self) -> Generator:
        return self.state.generators[0]

    @property
    def average(self) -> nn.Sequential:
        """The decoder with the average of its weights."""
        assert isinstance(self.state.average, nn.Sequential)
        return self.state.average

    @property
    def settled(self) -> bool:
        """Whether the decoder is its average: before the first correction it is not, however late that comes."""
        pairs = zip(self.tables.decode.parameters(), self.average.parameters(), strict=True)
        return all(torch.equal(*pair) for pair in pairs)


def new_training(count: int, options: TrainOptions, shape: Shape = SHAPE) -> Training:
    """Tables of `count` things at their random beginning."""
    tables = Tables(count, shape, options.seed)
    adam = torch.optim.Adam(tables.decode.parameters(), betas=(0.9, 0.99), fused=True)
    state = State(tables, adam, [Generator().manual_seed(options.seed)], copy.deepcopy(tables.decode))
    return Training(tables, state, options)


def falling(share: float, options: TrainOptions) -> float:
    """Factor on learning rates after a share of their steps: a cosine from 1 to `last`."""
    return options.last + (1 - options.last) * (0.5 + 0.5 * math.cos(math.pi * min(share, 1.0)))


def things_of(step: int, count: int, options: TrainOptions) -> Int[Tensor, " m"]:
    """Distinct things for a step: all have their turn before any has the next one, in an order of each round."""
    taken = min(options.things, count)
    turns = count // taken
    order = torch.randperm(count, generator=Generator().manual_seed(options.seed + step // turns))
    return order[(step % turns) * taken :][:taken]


def advance(training: Training, data: Sequence[MeshViews], poses: Float[Tensor, "things v 4 4"]) -> float:
    """One step; returns the loss."""
    step, options = training.state.step, training.options
    first = options.first_steps
    if step < first:
        return _advance_tables(training, data, poses, falling(step / first, options))
    if not training.settled:
        training.tables.settle(training.average)
    return _advance_corrections(training, data, poses, falling((step - first) / (options.steps - first), options))


def _advance_tables(training: Training, data: Sequence[MeshViews], poses: Tensor, rate: float) -> float:
    """Tables and decoder learn; there are no corrections."""
    options, tables = training.options, training.tables
    asked = _asked(training, data, poses)
    value = tables.rows.value[asked.things].requires_grad_()

    def gradient() -> float:
        with lighter():
            drawn = tables.decode(asked.told(value, tables.shape))
        return _backward(drawn, asked.maps)

    loss = update(training.state, gradient, rate * options.learning_rate, options.average)
    assert value.grad is not None
    tables.rows.step(asked.things, value.grad, rate * options.learning_rate_things, options.average_things)
    return loss


def _advance_corrections(training: Training, data: Sequence[MeshViews], poses: Tensor, rate: float) -> float:
    """Each thing learns to correct the decoder; tables and decoder stay."""
    options, tables = training.options, training.tables
    asked = _asked(training, data, poses)
    value = tables.corrections.value[asked.things].requires_grad_()
    parts = asked.told(tables.rows.value[asked.things], tables.shape).split(asked.counts)
    tables.decode.requires_grad_(False)

    def gradient() -> float:
        numbers = value + (as_stored(value.detach(), tables.shape) - value).detach()
        with lighter():
            drawn = [
                decoded(tables.decode, matrices(own[None], tables.shape), cells[None])[0]
                for cells, own in zip(parts, numbers, strict=True)
            ]
        return _backward(torch.cat(drawn), asked.maps)

    loss = update(training.state, gradient, 0.0, options.average)
    assert value.grad is not None
    tables.corrections.step(asked.things, value.grad, rate * options.learning_rate_corrections, options.average_things)
    return loss


def _backward(drawn: Float[Tensor, "k o"], maps: Float[Tensor, "k p n"]) -> float:
    """Leave the gradient of the loss; returns the loss."""
    error = (drawn.float().unflatten(1, (CELL * CELL, NUMBERS)) - maps).square()
    loss = (error.mean((0, 1)) * torch.tensor(WEIGHTS)).sum() / sum(WEIGHTS)
    loss.backward()
    return float(loss.detach())


def _asked(training: Training, data: Sequence[MeshViews], poses: Float[Tensor, "things v 4 4"]) -> Asked:
    """Some cells of some views of the things whose turn it is."""
    options = training.options
    things = things_of(training.state.step, len(data), options)
    views = torch.stack([torch.randperm(LEARNED, generator=training.generator)[: options.views] for _ in things])
    found = gathered([data[int(i)] for i in things], views.numpy(), options.share, training.generator)
    return Asked(things, Angles.of(poses[things[:, None], views]), *found)


def errors(training: Training, tests: Sequence[Unseen]) -> Float[np.ndarray, "things 2"]:
    """Of each thing on unseen views, of half and of whole size, by the averages of the weights."""
    tables, shape = training.tables, training.tables.shape
    found = []
    with torch.no_grad():
        for row, test in enumerate(tests):
            own = matrices(as_stored(tables.corrections.mean[[row]], shape), shape)
            decode = partial(decoded, training.average, own)
            found.append(test.errors(draw(tables.rows.mean[[row]], decode, shape, test.pose[None])[0]))
    return np.array(found)


def main(assets: Assets, work: Path, out: Path, options: TrainOptions, watch: Watch) -> bool:
    """Train, or go on training, in the prepared folder `work`, then write the averaged weights to `out`.

    In `work`: views/, the files of `training.loop`, `errors.jsonl`. Returns False if it was stopped before the last
    step; the same call then goes on. Nothing is trained if `options.steps` are done already.
    """
    table = learned(assets.table)
    data = [open_mesh(work, mesh) for mesh in range(len(table))]
    poses = torch.stack([cameras_of(mesh).pose for mesh in range(len(table))])
    tests = [unseen(mesh, row, data[mesh], options.measured_views) for mesh, row in enumerate(table)]
    training = new_training(len(table), options)

    def measure() -> None:
        if training.state.step % options.measure_every == 0:
            _log(training.state.step, errors(training, tests), work, watch)

    plan = Plan(options.steps, options.save_every, partial(views_seen, options=options), measure)
    if not learn(training.state, lambda: advance(training, data, poses), plan, work, watch):
        return False
    ship(training, assets, data, out)
    watch.report(f"wrote {out}")
    return True


def ship(training: Training, assets: Assets, data: Sequence[MeshViews], out: Path) -> None:
    """Write the averaged weights as a prior's folder."""
    table, tables, state = learned(assets.table), training.tables, training.state
    things = torch.cat([tables.rows.mean, mean_thing(tables.rows.mean, training.average, tables.shape)])
    changes = torch.cat([tables.corrections.mean, torch.zeros(1, tables.shape.corrected)])
    network = denoiser(table, tables.shape, things, changes, training.average)
    measured(network, table, data)
    card = make_card(assets.table, state.step, views_seen(state.step, training.options), state.seconds, assets.licence)
    write(network, table, out, card)


def views_seen(step: int, options: TrainOptions) -> int:
    """How many views were learned from after `step` steps, each of them in part."""
    return options.things * options.views * step


def _log(step: int, found: Float[np.ndarray, "things 2"], work: Path, watch: Watch) -> None:
    half, whole = found.mean(0)
    record = {"step": step, "half": round(half, 5), "whole": round(whole, 5), "worst": round(found[:, 1].max(), 4)}
    with (work / ERRORS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")
    watch.report(f"step {step}  mean square error on unseen views {whole:.4f}, of half the size {half:.4f}")
