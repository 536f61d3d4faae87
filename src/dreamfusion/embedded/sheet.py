"""Sheets of sampled pictures: what a prior draws for a caption, from several sides."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from dreamfusion.cameras import orbit
from dreamfusion.diffusion.ddim import caption_conditioning, ddim
from dreamfusion.diffusion.priors import Conditioning, ConditionSet, PromptEncoder, ViewCondition, allowed_conditions
from dreamfusion.diffusion.priors.pipeline import PipelinePrior
from dreamfusion.embedded.world import DISTANCE, FOV_DEG
from dreamfusion.lights import albedo_only

AZIMUTHS_DEG, ELEVATION_DEG = (0.0, 90.0, 180.0, 270.0), 20.0
BACKGROUND = 0.8


def sides(
    reader: PromptEncoder,
    captions: Sequence[str],
    device: torch.device,
    conditions: ConditionSet = "all",
    variety: int = 0,
) -> Conditioning:
    """Conditioning of a prior for each caption from the front, left, back and right. Needs no denoiser.

    The side is always in the caption; `conditions`: the inputs besides it.
    """
    azimuth = torch.tensor(AZIMUTHS_DEG).deg2rad().repeat(len(captions))
    count = len(azimuth)
    full = torch.full((count,), 1.0)
    cameras = orbit(azimuth, full * math.radians(ELEVATION_DEG), full * DISTANCE, full * math.radians(FOV_DEG), 64)
    words = reader.view_words
    texts = [f"{c}, {word}" for c in captions for word in (words.front, words.left, words.back, words.right)]
    cameras, behind = cameras.to(device), torch.full((count, 3), BACKGROUND, device=device)
    known = ViewCondition(
        cameras.pose, behind, albedo_only(count, device), torch.full((count,), variety, device=device)
    )
    return caption_conditioning(reader, texts, known.only(allowed_conditions(reader.conditions, conditions)))


def samples(
    prior: PipelinePrior, given: Conditioning, *, steps: int, guidance_scale: float, seed: int
) -> Float[Tensor, "c v h w 3"]:
    """Pictures in [0, 1] for the conditioning of `sides`."""
    x = ddim(prior, given, steps, guidance_scale, Generator().manual_seed(seed), prior.space.limit)
    return prior.decode(x).unflatten(0, (-1, len(AZIMUTHS_DEG)))


def save_sheet(pictures: Float[Tensor, "c v h w 3"], path: Path, zoom: int = 2) -> None:
    """Write a PNG with one row per caption and one column per side, each pixel `zoom` pixels wide."""
    c, v, h, w, _ = pictures.shape
    page = pictures.permute(0, 2, 1, 3, 4).reshape(c * h, v * w, 3)
    image = Image.fromarray((page * 255).round().byte().cpu().numpy())
    image.resize((v * w * zoom, c * h * zoom), Image.Resampling.NEAREST).save(path)
