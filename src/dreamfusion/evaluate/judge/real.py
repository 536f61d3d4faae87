"""Real meshes seen as results are seen: what the judge says of them is what results are compared with."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.embedded.dataset import shade
from dreamfusion.embedded.meshes import MeshRenderer, load
from dreamfusion.embedded.table import Noun
from dreamfusion.evaluate.janus import fronts
from dreamfusion.evaluate.judge.judge import Judge
from dreamfusion.evaluate.judge.network import SIZE
from dreamfusion.evaluate.judge.views import buffers
from dreamfusion.evaluate.views import BACKDROP, cameras, lights

MESHES = 2
"""of a noun, at most"""


def real_views(file: Path, yaw_deg: float) -> Float[Tensor, "8 h w 3"]:
    """The shaded evaluation views of a mesh, in its own colours."""
    ring = cameras(radius=1.0, size=SIZE)
    seen = buffers(MeshRenderer(load(file, yaw_deg)), ring)
    tensor = {name: torch.from_numpy(values).float().permute(0, 2, 3, 1) / 255 for name, values in seen.items()}
    normal = tensor["normal"] * (255 / 127) - 1
    lit = shade(tensor["paint"] + tensor["rest"], normal, tensor["alpha"], lights(ring)["shaded"])
    return lit + (1 - tensor["alpha"]) * BACKDROP


def real_fronts(judge: Judge, assets: Path, table: list[Noun]) -> dict[str, float]:
    """The Janus rate of real meshes, by noun, of all nouns that have a front. Meshes kept from the judge come first."""
    rates = {}
    for noun in judge.with_front:
        rows = sorted((row for row in table if row.noun == noun), key=lambda row: row.kept_from != "judge")[:MESHES]
        seen = torch.stack([real_views(assets / "meshes" / row.file, row.yaw_deg) for row in rows])
        rates[noun] = round(fronts(judge, seen).float().mean().item(), 4)
    return rates
