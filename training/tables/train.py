"""Train the tables of all things on renderings of their meshes; stop and resume at any time.

    nice -n 19 python -m training.tables.train --assets DIR --work DIR --seconds-a-thing 34

does all of it, on one core: it renders 840 views of each of the 562 meshes (`tables.views`, 40 minutes of a core and
9 GB in `DIR/views/`), and then learns for that long (5.3 hours of a core). The same call goes on where it was stopped.
Without --assets it learns at once, from the meshes that are rendered; the others join when it is started again. With
--nouns it learns the first mesh of each of these alone.

`DIR/state/state.pt` is written every few minutes (a new file takes the place of the old one, so that a kill leaves a
whole state); `DIR/state/log.jsonl` has the errors on unseen views. The learning rate falls along a cosine over all the
processor time that `--seconds-a-thing` grants; resumed with another number, it goes on at that one's place. What is to
be shipped before the end are averages of the weights (`Trainer.mean`), which need no fall of the rate; at the end the
last weights are as good or better. Both are measured.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.errors import UserError
from training.nouns import learned, nouns
from training.tables.error import Unseen, unseen
from training.tables.network import Angles, Shape, decoder, draw, look_up, new_things, told
from training.tables.views import (
    CELL,
    CELLS,
    LEARNED,
    MAPS,
    MeshViews,
    build,
    cameras_of,
    file_of,
    open_mesh,
    order,
    premultiplied,
)

RATE_SHARED, RATE_THINGS, LAST_RATE = 2e-3, 2e-2, 0.02
WEIGHTS = (1.0,) * 6 + (0.35,) * 3 + (1.5,)
"""of the squared errors of the maps: colours, normals, coverage"""
FAR = 0.06
"""cells away from the object, as a share of those near it"""
DECAY_SHARED, DECAY_THINGS = 0.999, 0.95
"""of the averages: each step, and each time that a thing is learned from"""


@dataclass(frozen=True)
class Plan:
    """How long to learn, and from how much at once."""

    seconds_a_thing: float = 34.0
    """of one core"""
    things: int = 8
    """in a step"""
    views: int = 4
    """of each"""
    save_every: float = 180.0
    """seconds"""
    measure_every: float = 600.0
    """seconds of processor time"""
    measured_views: int = 8
    """of every thing"""


class Rows:
    """Adam on the rows that a step touched, with moments, a count and an average of its own for each."""

    def __init__(self, value: Float[Tensor, "things n"]):
        self.value, self.mean = value, value.clone()
        self.moment, self.square = torch.zeros_like(value), torch.zeros_like(value)
        self.count = torch.zeros(len(value), 1)

    def step(self, rows: Tensor, gradient: Float[Tensor, "m n"], rate: float) -> None:
        """Update distinct rows."""
        first, second = 0.9, 0.99
        self.count[rows] += 1
        count = self.count[rows]
        moment = self.moment[rows].lerp_(gradient, 1 - first)
        square = self.square[rows].lerp_(gradient.square(), 1 - second)
        down = (square / (1 - second**count)).sqrt_().add_(1e-8)
        value = self.value[rows] - rate * (moment / (1 - first**count)) / down
        keep = ((count - 1) / (count + 8)).clamp(max=DECAY_THINGS)
        self.mean[rows] = value.lerp(self.mean[rows], keep)
        self.moment[rows], self.square[rows], self.value[rows] = moment, square, value

    def state(self) -> dict[str, Tensor]:
        return vars(self)


class Trainer:
    """The tables of all things, the decoder, and all that is needed to go on."""

    def __init__(self, shape: Shape, meshes: Sequence[int], seed: int = 0):
        """`meshes` are indices into `learned(nouns())`, one row each."""
        torch.manual_seed(seed)
        self.shape, self.decode, self.meshes = shape, decoder(shape), list(meshes)
        self.rows = Rows(new_things(len(meshes), shape, torch.Generator().manual_seed(seed)))
        self.adam = torch.optim.Adam(self.decode.parameters(), lr=RATE_SHARED, betas=(0.9, 0.99), fused=True)
        self.mean = torch.optim.swa_utils.AveragedModel(self.decode, avg_fn=_average)
        self.random = np.random.default_rng(seed)
        self.queue: list[int] = []
        self.steps, self.seconds = 0, 0.0
        """steps done, and the processor time that they took"""

    def next_things(self, count: int, there: Sequence[int]) -> list[int]:
        """Distinct things of those that are there; all have their turn before any has the next one."""
        if len(self.queue) < count:
            self.queue = self.random.permutation(there).tolist()
        taken, self.queue = self.queue[:count], self.queue[count:]
        return taken

    def drawn(self, plan: Plan) -> np.ndarray:
        """The views of one thing in a step."""
        return self.random.choice(LEARNED, plan.views, replace=False)

    def step(self, data: Mapping[int, MeshViews], poses: Float[Tensor, "things v 4 4"], plan: Plan) -> float:
        """Learn from some views of some things (by their rows); the loss."""
        began = time.process_time()
        things = self.next_things(min(plan.things, len(data)), list(data))
        views = np.stack([self.drawn(plan) for _ in things])
        rows, thing_view, place, target = torch.tensor(things), *gathered([data[i] for i in things], views, self.random)
        angles = Angles.of(poses[rows[:, None], torch.from_numpy(views)])
        value = self.rows.value[rows].requires_grad_()
        cells = told(look_up(value, self.shape, angles), angles, thing_view, place)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            drawn = self.decode(cells)
        error = (drawn.float().unflatten(1, (CELL * CELL, MAPS)) - target).square()
        loss = (error.mean((0, 1)) * torch.tensor(WEIGHTS)).sum() / sum(WEIGHTS)
        self.adam.zero_grad()
        loss.backward()
        rate = self._rate(plan.seconds_a_thing * len(self.rows.value))
        self.adam.param_groups[0]["lr"] = RATE_SHARED * rate
        self.adam.step()
        assert value.grad is not None
        self.rows.step(rows, value.grad, RATE_THINGS * rate)
        self.mean.update_parameters(self.decode)
        self.steps += 1
        self.seconds += time.process_time() - began
        return loss.item()

    def _rate(self, seconds: float) -> float:
        """Factor on the learning rates: a cosine from 1 to `LAST_RATE`."""
        return LAST_RATE + (1 - LAST_RATE) * (0.5 + 0.5 * math.cos(math.pi * min(self.seconds / seconds, 1.0)))

    def errors(self, tests: Mapping[int, Unseen], average: bool = True) -> np.ndarray:
        """Of each thing (by its row) on unseen views, of half and of whole size."""
        decode, value = (self.mean, self.rows.mean) if average else (self.decode, self.rows.value)
        with torch.no_grad():
            return np.array(
                [test.errors(draw(value[[row]], decode, self.shape, test.pose[None])[0]) for row, test in tests.items()]
            )

    def save(self, folder: Path) -> None:
        """Put the state in place of the last one."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "rows": self.rows.state(), "decode": self.decode.state_dict(), "mean": self.mean.state_dict(),
            "adam": self.adam.state_dict(), "random": json.dumps(self.random.bit_generator.state),
            "queue": self.queue, "steps": self.steps, "seconds": self.seconds, "meshes": self.meshes,
        }  # fmt: skip
        partial = folder / "state.partial"
        torch.save(state, partial)
        partial.replace(folder / "state.pt")

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote. Raises UserError if it belongs to other meshes."""
        state = torch.load(folder / "state.pt", weights_only=True)
        if state["meshes"] != self.meshes:
            raise UserError(f"{folder} holds the training of other meshes: choose another --work")
        for name, tensor in state["rows"].items():
            setattr(self.rows, name, tensor)
        for name in ("decode", "mean", "adam"):
            getattr(self, name).load_state_dict(state[name])
        self.random.bit_generator.state = json.loads(state["random"])
        self.queue, self.steps, self.seconds = state["queue"], state["steps"], state["seconds"]


def _average(mean: Tensor, now: Tensor, count: Tensor | int) -> Tensor:
    """Exponential, over all there is at first."""
    return mean.lerp(now, 1 - min(DECAY_SHARED, int(count) / (int(count) + 9)))


def gathered(
    data: Sequence[MeshViews], views: np.ndarray, random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The cells near the things in views "m v", and a few far from them: thing * v + view, place, maps "k 4 10"."""
    count = views.shape[1]
    parts = [mesh.of(wanted) for mesh, wanted in zip(data, views, strict=True)]
    thing_view = np.concatenate([which + i * count for i, (which, _, _) in enumerate(parts)])
    place, maps = (np.concatenate([part[k] for part in parts]) for k in (1, 2))
    empty = np.ones((views.size, CELLS**2), dtype=bool)
    empty[thing_view, place] = False
    far = random.choice(np.flatnonzero(empty), round(FAR * len(place)))
    zero = torch.zeros(len(far), CELL * CELL, MAPS)
    return (
        torch.from_numpy(np.concatenate([thing_view, far // CELLS**2])),
        torch.from_numpy(np.concatenate([place, far % CELLS**2])),
        torch.cat([premultiplied(torch.from_numpy(maps)), zero]),
    )


def train(work: Path, meshes: Sequence[int], state: Path, plan: Plan) -> Trainer:
    """Learn the meshes (indices into `learned(nouns())`, one row each) until the time is over.

    Those whose views are not in `work` yet keep their rows as they are, and join when it is called again.
    """
    table = learned(nouns())
    data = {row: open_mesh(work, mesh) for row, mesh in enumerate(meshes) if file_of(work, mesh).exists()}
    poses = torch.stack([cameras_of(mesh).pose for mesh in meshes])
    tests = {row: unseen(meshes[row], table[meshes[row]], data[row], plan.measured_views) for row in data}
    trainer = Trainer(Shape(), meshes)
    if (state / "state.pt").exists():
        trainer.load(state)
    saved, measured = time.monotonic(), trainer.seconds
    losses: list[float] = []
    while trainer.seconds < plan.seconds_a_thing * len(meshes):
        losses.append(trainer.step(data, poses, plan))
        if time.monotonic() - saved > plan.save_every:
            trainer.save(state)
            saved = time.monotonic()
        if trainer.seconds - measured > plan.measure_every:
            log(trainer, tests, state, losses)
            measured = trainer.seconds
            losses.clear()
    if losses:
        log(trainer, tests, state, losses)
    trainer.save(state)
    return trainer


def log(trainer: Trainer, tests: Mapping[int, Unseen], state: Path, losses: Sequence[float]) -> None:
    """Measure, and write it down."""
    averages, last = (trainer.errors(tests, average) for average in (True, False))
    record = {
        "things": len(tests), "steps": trainer.steps, "seconds": round(trainer.seconds),
        "loss": round(float(np.mean(losses)), 5),
        "mean weights": _summary(averages), "last weights": _summary(last),
    }  # fmt: skip
    state.mkdir(parents=True, exist_ok=True)
    with (state / "log.jsonl").open("a") as stream:
        stream.write(json.dumps(record) + "\n")
    print(record, flush=True)


def _summary(errors: np.ndarray) -> dict[str, float]:
    e32, e64 = errors.mean(0)
    return {"e32": round(float(e32), 5), "e64": round(float(e64), 5), "worst e64": round(float(errors[:, 1].max()), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, help="folder with meshes/: render what is not rendered yet")
    parser.add_argument("--work", type=Path, required=True, help="folder of views/ and state/")
    parser.add_argument("--nouns", nargs="+", default=[], help="the first mesh of each of these alone")
    parser.add_argument("--seconds-a-thing", type=float, default=Plan.seconds_a_thing, help="of one core")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = learned(nouns())
    rows = [row.noun for row in table]
    if unknown := set(given.nouns) - set(rows):
        parser.error(f"no mesh is called {sorted(unknown)[0]!r}")
    meshes = [rows.index(noun) for noun in given.nouns] or order(table)
    if given.assets:
        build(given.assets, given.work, meshes)
    missing = sum(not file_of(given.work, mesh).exists() for mesh in meshes)
    if missing == len(meshes):
        parser.error("no mesh is rendered yet: give --assets")
    if missing:
        print(f"{missing} of {len(meshes)} meshes are not rendered yet; they join at the next start", flush=True)
    train(given.work, meshes, given.work / "state", Plan(given.seconds_a_thing))


if __name__ == "__main__":
    main()
