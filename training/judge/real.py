"""Real meshes seen as results are seen: what the judge says of them is what results are compared with."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.evaluate.evaluation_views import BACKDROP, KINDS, cameras, lights
from dreamfusion.evaluate.janus import fronts
from dreamfusion.evaluate.judge.judge import Judge
from dreamfusion.evaluate.judge.network import SIZE
from training.judge.views import seen_by
from training.meshes import MeshRenderer, load
from training.nouns import Assets
from training.prior.data import shade


def real_views(file: Path, yaw_deg: float) -> Float[Tensor, "3 8 h w 3"]:
    """The evaluation views of a mesh in its own colours, in the order of `KINDS`."""
    ring = cameras(radius=1.0, size=SIZE)
    seen = seen_by(ring, MeshRenderer(load(file, yaw_deg)), torch.ones(len(ring), 3))
    tensor = {name: torch.from_numpy(values).float().permute(0, 2, 3, 1) / 255 for name, values in seen.items()}
    normal, alpha, albedo = tensor["normal"] * (255 / 127) - 1, tensor["alpha"], tensor["paint"] + tensor["rest"]
    light_of = lights(ring)
    drawn = torch.stack([shade(albedo, normal, alpha, light_of[kind]) for kind in KINDS])
    return drawn + (1 - alpha) * BACKDROP


def real_looks(judge: Judge, assets: Assets) -> dict[str, dict[str, float]]:
    """What the judge says of real meshes, by noun.

    "fronts": the Janus rate, of nouns that have a front. By kind of picture: the share of views in which its first
    answer among all nouns is right.
    """
    looks: dict[str, dict[str, float]] = {name: {} for name in ("fronts", *KINDS)}
    for number, noun in enumerate(judge.nouns):
        rows = [row for row in assets.table if row.noun == noun]
        seen = torch.stack([real_views(assets.file(row), row.yaw_deg) for row in rows], dim=1)
        for kind, pictures in zip(KINDS, seen, strict=True):
            right = judge.opinion(pictures.flatten(0, 1)).noun.argmax(1) == number
            looks[kind][noun] = _share(right)
        if noun in judge.with_front:
            looks["fronts"][noun] = _share(fronts(judge, seen[KINDS.index("shaded")]))
    return looks


def _share(marks: Tensor) -> float:
    return round(marks.float().mean().item(), 4)
