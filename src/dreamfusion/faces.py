"""Second faces: whether the prior takes what is seen from the sides and from behind for the front of the thing.

A prior that is told the view by words alone may draw a face on every side (the Janus problem). The same words tell it:
if noise is predicted better under "front view" than under the view's own words, a front is seen. The judge of the
evaluation has no part in it.
"""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras, orbit
from dreamfusion.diffusion.priors import Prior, encoded
from dreamfusion.diffusion.prompts import PromptTable
from dreamfusion.lights import albedo_only
from dreamfusion.loop import Run
from dreamfusion.nerf.render import render_views
from dreamfusion.objectives import Guide, Words

AWAY_DEG = (90.0, 135.0, 180.0, 225.0, 270.0)
"""azimuths from which no front should be seen"""
ELEVATION_DEG = 30.0
"""of these views, or the nearest to it of the run's own"""
LEVELS = (0.3, 0.5, 0.7)
"""timesteps at which noise is to be predicted, as fractions of the prior's"""
PARTS, FIRST = 10, 4
"""of a run: after each of so many it is looked at, from this one on"""


def told_by_words(prompts: PromptTable) -> bool:
    """Whether the prior knows the view by words alone, and reads others for the front than for the rest."""
    words = prompts.view_words
    if not prompts.options.view_dependent or "pose" in prompts.conditions:
        return False
    front, *others = (
        prompts.table[words.words.index(word)] for word in (words.front, words.left, words.back, words.right)
    )
    return not any(torch.equal(front, other) for other in others)


def due(step: int, steps: int) -> bool:
    """Whether a run is to be looked at after so many of its steps: after each tenth, the last of all included."""
    part = PARTS * step // steps
    return part >= FIRST and part > PARTS * (step - 1) // steps


def front(run: Run, prior: Guide, prompts: Words) -> float | None:
    """The largest of `seen`; None while the run is not due, or where no words tell the front from the rest."""
    if not due(run.step, run.config.steps) or not isinstance(prior, Prior) or not isinstance(prompts, PromptTable):
        return None
    largest = seen(run, prior, prompts).max().item() if told_by_words(prompts) else math.nan
    return largest if math.isfinite(largest) else None


@torch.no_grad()
def seen(run: Run, prior: Prior, prompts: PromptTable) -> Float[Tensor, " 5"]:
    """`fronts` of a run's views from the sides and from behind; noise and backgrounds are those of its seed."""
    generator, count = Generator().manual_seed(run.config.seed), len(AWAY_DEG)
    cameras = _away(run).to(run.device)
    behind, light = run.scene.background.draw(count, generator), albedo_only(count, run.device)
    picture = render_views(run.scene, cameras, light, run.recipe.train_render, behind)
    x = encoded(prior, picture.rgb, linear=run.progress < run.config.memory.latent_until)
    return fronts(x, cameras, behind, prior, prompts, generator)


@torch.no_grad()
def fronts(
    x: Float[Tensor, "v c h w"],
    cameras: Cameras,
    behind: Float[Tensor, "v 3"] | None,
    prior: Prior,
    prompts: PromptTable,
    generator: Generator,
) -> Float[Tensor, " v"]:
    """How much better "front view" explains unlit pictures than their own view words: log of the ratio of errors.

    An error is the mean square of what is missed of the noise, the same noise for both captions; above 0 the front is
    the better explanation. One picture at a time.
    """
    light, like = albedo_only(len(cameras), cameras.pose.device), torch.ones_like(cameras.fov_y)
    facing = orbit(0 * like, 0 * like, like, cameras.fov_y, 1)
    own, front = (prompts(looking, light, behind) for looking in (cameras, facing))
    t = torch.tensor([round(level * (prior.schedule.steps - 1)) for level in LEVELS], device=x.device)
    errors = list[Tensor]()
    for view in range(len(x)):
        one = slice(view, view + 1)
        clean = x[one].expand(len(t), *x.shape[1:])
        eps = torch.randn(clean.shape, generator=generator).to(x)
        noisy, known = prior.schedule.add_noise(clean, eps, t), own.known.rows(one).repeated(len(t))
        for text in (own.text, front.text):
            said = text[one].expand(len(t), *text.shape[1:])
            errors.append((prior.predict_noise(noisy, t, said, known) - eps).square().mean())
    return torch.stack(errors).view(-1, 2).log().diff(dim=1)[:, 0].neg()


def _away(run: Run) -> Cameras:
    """Views of a run, from the sides and from behind, for pictures of its size."""
    config, azimuth = run.config.camera, torch.tensor(AWAY_DEG).deg2rad()
    low, high = config.elevation_deg
    elevation, distance, fov = min(max(ELEVATION_DEG, low), high), sum(config.distance) / 2, sum(config.fov_deg) / 2
    like, size = torch.ones_like(azimuth), run.config.size_at(run.progress)
    return orbit(azimuth, math.radians(elevation) * like, distance * like, math.radians(fov) * like, size)
