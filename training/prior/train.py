"""Training of the embedded prior: `python -m training prior --assets DIR` makes weights from meshes.

Every step learns from an eighth of the cells of 32 views of each of eight things: what the tables and the decoder make
of them against what was rendered, by squared error. The decoder learns by Adam; so does each thing, with moments and a
count of its own, as most steps do not touch it. Then a thing like no other is learned, the mean of all
(`training.prior.nothing`), and the errors on views that nothing learned from become the spreads of the denoiser.
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

from dreamfusion.embedded.tables import CELL, Angles, Shape, decoder, draw, look_up, told
from training.loop import Plan, Watch, learn, lighter, update
from training.nouns import Assets, learned
from training.prior.card import make_card
from training.prior.error import Unseen, unseen
from training.prior.nothing import mean_thing
from training.prior.ship import denoiser, measured, write
from training.prior.views import CELLS, LEARNED, NUMBERS, MeshViews, cameras_of, open_mesh, premultiplied
from training.state import State

WEIGHTS = (1.0,) * 6 + (0.35,) * 3 + (1.5,)
"""of the squared errors of the maps: colours, normals, coverage"""
FAR = 0.06
"""cells away from the object, as a share of those near it"""
STD = 0.3
"""of the numbers of a thing, at first"""
ERRORS = "errors.jsonl"
SHAPE = Shape()


@dataclass(frozen=True)
class TrainOptions:
    """Settings of the training; how the shipped weights came about: docs/reference/embedded-prior.md."""

    steps: int = 30_000
    things: int = 8
    """in a step"""
    views: int = 32
    """of each, out of `views.LEARNED`"""
    share: float = 0.125
    """of the cells of these views, at random: many views are worth more than whole ones"""
    learning_rate: float = 4e-3
    """of the decoder"""
    learning_rate_things: float = 0.1
    last: float = 0.02
    """share of the learning rates at the end of their cosine"""
    average: float = 0.999
    """decay of the average of the decoder's weights, each step"""
    average_things: float = 0.95
    """decay of the average of a thing's numbers, each time that it is learned"""
    save_every: int = 1_000
    measure_every: int = 3_000
    measured_views: int = 8
    """of every mesh, which nothing learns from"""
    seed: int = 0


class Rows(nn.Module):
    """The numbers of all things, with Adam for each by itself: moments, a count and an average of its own."""

    def __init__(self, value: Float[Tensor, "things n"]):
        super().__init__()
        self.value, self.mean, self.moment, self.square, self.count = (
            nn.Buffer(tensor)
            for tensor in (
                value, value.clone(), torch.zeros_like(value), torch.zeros_like(value), torch.zeros(len(value), 1)
            )
        )  # fmt: skip

    def step(self, rows: Int[Tensor, " m"], gradient: Float[Tensor, "m n"], rate: float, average: float) -> None:
        """Update distinct rows (Adam: Kingma and Ba 2015, with decays of 0.9 and 0.99)."""
        first, second = 0.9, 0.99
        self.count[rows] += 1
        count = self.count[rows]
        moment = self.moment[rows].lerp_(gradient, 1 - first)
        square = self.square[rows].lerp_(gradient.square(), 1 - second)
        down = (square / (1 - second**count)).sqrt_().add_(1e-8)
        value = self.value[rows] - rate * (moment / (1 - first**count)) / down
        keep = ((count - 1) / (count + 8)).clamp(max=average)
        self.mean[rows] = value.lerp(self.mean[rows], keep)
        self.moment[rows], self.square[rows], self.value[rows] = moment, square, value


class Tables(nn.Module):
    """All that is learned: the parameters are the decoder's."""

    def __init__(self, count: int, shape: Shape, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.shape, self.decode = shape, decoder(shape)
        self.rows = Rows(STD * torch.randn(count, shape.numbers, generator=Generator().manual_seed(seed)))


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
    def average(self) -> nn.Module:
        """The decoder with the average of its weights."""
        assert self.state.average is not None
        return self.state.average


def new_training(count: int, options: TrainOptions, shape: Shape = SHAPE) -> Training:
    """Tables of `count` things at their random beginning."""
    tables = Tables(count, shape, options.seed)
    adam = torch.optim.Adam(tables.decode.parameters(), betas=(0.9, 0.99), fused=True)
    state = State(tables, adam, [Generator().manual_seed(options.seed)], copy.deepcopy(tables.decode))
    return Training(tables, state, options)


def falling(step: int, options: TrainOptions) -> float:
    """Factor on the learning rates: a cosine from 1 to `last`."""
    return options.last + (1 - options.last) * (0.5 + 0.5 * math.cos(math.pi * min(step / options.steps, 1.0)))


def things_of(step: int, count: int, options: TrainOptions) -> Int[Tensor, " m"]:
    """Distinct things for a step: all have their turn before any has the next one, in an order of each round."""
    taken = min(options.things, count)
    turns = count // taken
    order = torch.randperm(count, generator=Generator().manual_seed(options.seed + step // turns))
    return order[(step % turns) * taken :][:taken]


def advance(training: Training, data: Sequence[MeshViews], poses: Float[Tensor, "things v 4 4"]) -> float:
    """One step; returns the loss."""
    state, options, tables = training.state, training.options, training.tables
    things = things_of(state.step, len(data), options)
    views = torch.stack([torch.randperm(LEARNED, generator=training.generator)[: options.views] for _ in things])
    cells, place, target = gathered([data[int(i)] for i in things], views.numpy(), options.share, training.generator)
    angles = Angles.of(poses[things[:, None], views])
    value = tables.rows.value[things].requires_grad_()
    rate = falling(state.step, options)

    def gradient() -> float:
        numbers = told(look_up(value, tables.shape, angles), angles, cells, place, CELLS)
        with lighter():
            drawn = tables.decode(numbers)
        error = (drawn.float().unflatten(1, (CELL * CELL, NUMBERS)) - target).square()
        loss = (error.mean((0, 1)) * torch.tensor(WEIGHTS)).sum() / sum(WEIGHTS)
        loss.backward()
        return float(loss.detach())

    loss = update(state, gradient, rate * options.learning_rate, options.average)
    assert value.grad is not None
    tables.rows.step(things, value.grad, rate * options.learning_rate_things, options.average_things)
    return loss


def gathered(
    data: Sequence[MeshViews], views: np.ndarray, share: float, generator: Generator
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"], Float[Tensor, "k p n"]]:
    """Some of the cells near the things in views "m v", and a few far from them: thing * v + view, place, maps."""
    count = views.shape[1]
    parts = [mesh.of(wanted) for mesh, wanted in zip(data, views, strict=True)]
    near = torch.from_numpy(np.concatenate([which + i * count for i, (which, _, _) in enumerate(parts)]))
    place, maps = (torch.from_numpy(np.concatenate([part[k] for part in parts])) for k in (1, 2))
    empty = torch.ones(views.size * CELLS**2, dtype=torch.bool)
    empty[near * CELLS**2 + place] = False
    kept = (torch.rand(len(place), generator=generator) < share).nonzero()[:, 0]
    spots = empty.nonzero()[:, 0]
    far = spots[torch.randint(len(spots), (round(FAR * len(kept)),), generator=generator)]
    zero = torch.zeros(len(far), CELL * CELL, NUMBERS)
    return (
        torch.cat([near[kept], far // CELLS**2]),
        torch.cat([place[kept], far % CELLS**2]),
        torch.cat([premultiplied(maps[kept]), zero]),
    )


def errors(training: Training, tests: Sequence[Unseen]) -> Float[np.ndarray, "things 2"]:
    """Of each thing on unseen views, of half and of whole size, by the averages of the weights."""
    tables = training.tables
    with torch.no_grad():
        return np.array(
            [
                test.errors(draw(tables.rows.mean[[row]], training.average, tables.shape, test.pose[None])[0])
                for row, test in enumerate(tests)
            ]
        )


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
    network = denoiser(table, tables.shape, things, training.average)
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
