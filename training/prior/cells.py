"""Cells that a step of the prior's training learns from: some of those near the things, and a few far from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from dreamfusion.embedded.tables import CELL, Angles, Shape, look_up, told
from training.prior.views import CELLS, NUMBERS, MeshViews, premultiplied

FAR = 0.06
"""cells away from the object, as a share of those near it"""


@dataclass(frozen=True)
class Asked:
    """Cells that a step learns from, thing by thing."""

    things: Int[Tensor, " m"]
    angles: Angles
    which: Int[Tensor, " k"]
    """of the views: thing * views + view"""
    place: Int[Tensor, " k"]
    maps: Float[Tensor, "k p n"]

    @property
    def counts(self) -> list[int]:
        """Cells of each thing."""
        count, views = self.angles.azimuth.shape
        return (self.which // views).bincount(minlength=count).tolist()

    def told(self, numbers: Float[Tensor, "m n"], shape: Shape) -> Float[Tensor, "k t"]:
        """What the decoder is told of the cells."""
        return told(look_up(numbers, shape, self.angles), self.angles, self.which, self.place, CELLS)


def gathered(
    data: Sequence[MeshViews], views: np.ndarray, share: float, generator: Generator
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"], Float[Tensor, "k p n"]]:
    """Some of the cells near the things in views "m v", and a few far from them, by thing * v + view; place, maps."""
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
    which = torch.cat([near[kept], far // CELLS**2])
    order = which.argsort(stable=True)
    return (
        which[order],
        torch.cat([place[kept], far % CELLS**2])[order],
        torch.cat([premultiplied(maps[kept]), zero])[order],
    )
