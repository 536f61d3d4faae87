"""How far the pictures of the tables are from renderings that nothing learned from."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

from dreamfusion.embedded.tables import CELL, MAPS
from dreamfusion.embedded.world import COLOURS
from dreamfusion.lights import Light
from training.nouns import Noun
from training.prior.data import held_out, random_backgrounds, random_lights, shade
from training.prior.views import CELLS, LEARNED, NUMBERS, UNSEEN, MeshViews, cameras_of, premultiplied

LUMA_VIEWS = 100
PAINTED = 8
"""of 255: darker pixels do not count as painted"""


@dataclass(frozen=True)
class Unseen:
    """Renderings of one mesh that nothing learned from, and how each is lit and painted."""

    pose: Float[Tensor, "v 4 4"]
    maps: Float[Tensor, "v h w 10"]
    light: Light
    background: Float[Tensor, "v 3"]
    paint: Float[Tensor, "v 3"]
    """colour in [0, 1]; negative: the mesh's own"""
    luma: float
    """mean brightness of the painted pixels"""

    def errors(self, drawn: Float[Tensor, "v h w 10"]) -> tuple[float, float]:
        """Mean square of pixels in [-1, 1] of drawn maps: against pictures of half size, and of whole size."""
        whole = (self._pictures(drawn) - self._pictures(self.maps)).square().mean()
        half = (self._pictures(halved(drawn)) - self._pictures(halved(self.maps))).square().mean()
        return 4 * float(half), 4 * float(whole)

    def _pictures(self, maps: Float[Tensor, "v h w 10"]) -> Float[Tensor, "v h w 3"]:
        """Shaded, painted, in front of their backgrounds."""
        paint = maps[..., :3]
        new = self.paint[:, None, None] * paint.mean(-1, keepdim=True) / max(self.luma, 0.05)
        paint = torch.where(self.paint[:, None, None] < 0, paint, new.clamp(max=1))
        return shown(torch.cat([paint, maps[..., 3:]], dim=-1), self.light, self.background)


def unseen(mesh: int, row: Noun, views: MeshViews, count: int) -> Unseen:
    """The first `count` unseen views of a mesh, lit and painted as in training, always in the same way."""
    generator = Generator().manual_seed(mesh)
    pose = cameras_of(mesh).pose[LEARNED : LEARNED + min(count, UNSEEN)]
    allowed = torch.tensor([COLOURS[colour] for colour in COLOURS if not held_out(colour, row.noun)])
    light, background = random_lights(pose, generator), random_backgrounds(len(pose), generator)
    paint = allowed[torch.randint(len(allowed), (len(pose),), generator=generator)]
    paint[torch.rand(len(pose), generator=generator) < 0.5] = -1
    maps = whole(views, np.arange(LEARNED, LEARNED + len(pose)))
    return Unseen(pose, maps, light, background, paint, luma_of(views))


def luma_of(views: MeshViews) -> float:
    """Mean brightness in [0, 1] of the painted pixels of some of the views, darker ones than `PAINTED` are none."""
    cells = torch.from_numpy(views.cells["maps"][: views.first[: LUMA_VIEWS + 1][-1]].copy())
    painted = cells.unflatten(1, (-1, NUMBERS))[..., :3].float().mean(-1)
    return float(painted.sum() / (painted > PAINTED).sum().clamp(min=1) / 255)


def whole(views: MeshViews, numbers: np.ndarray) -> Float[Tensor, "v h w 10"]:
    """The rendered maps of whole pictures, multiplied by the coverage."""
    which, place, maps = (torch.from_numpy(array) for array in views.of(numbers))
    grid = torch.zeros(len(numbers), CELLS**2, CELL * CELL, NUMBERS)
    grid[which, place] = premultiplied(maps)
    grid = grid.unflatten(2, (CELL, CELL)).unflatten(1, (CELLS, CELLS))
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def halved(maps: Float[Tensor, "v h w 10"]) -> Float[Tensor, "v h2 w2 10"]:
    """Means over two by two pixels."""
    return F.avg_pool2d(maps.movedim(-1, 1), 2).movedim(1, -1)


def shown(maps: Float[Tensor, "v h w 10"], light: Light, background: Float[Tensor, "v 3"]) -> Float[Tensor, "v h w 3"]:
    """Maps multiplied by their coverage, shaded, before a background."""
    paint, rest, normal, alpha = maps.split(MAPS, dim=-1)
    alpha = alpha.clamp(0, 1)
    normal = normal / torch.maximum(alpha, normal.norm(dim=-1, keepdim=True)).clamp_min(1e-3)
    return (shade(paint + rest, normal, alpha, light) + (1 - alpha) * background[:, None, None]).clamp(0, 1)
