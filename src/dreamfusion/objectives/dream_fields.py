"""Dream Fields (Jain et al. 2022): pictures near to the caption, of a scene that is mostly empty.

loss = -mean cos(image, caption) over random crops before random backgrounds - 0.5 mean min(1 - a, transmittance)

`a`, the target of the mean opacity, falls over the first steps, and is scaled with the area that the object covers in a
view. docs/reference/baselines.md has every number with its source.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.config import DreamFieldsObjective
from dreamfusion.contrastive import ContrastiveModel
from dreamfusion.nerf.render import Picture
from dreamfusion.objectives import backgrounds
from dreamfusion.objectives.protocol import Guide, Judged, Seen, Words
from dreamfusion.objectives.target import Target, similarity

FOCAL, DISTANCE, SCALE = 1111.1111 / 800, 4.0, 1.2
"""Focal length in picture heights, distance in radii: there, the target of the opacity is what is told, by `SCALE`"""


@dataclass(frozen=True)
class DreamFields:
    """See the module; the terms are "similarity" and "transmittance"."""

    config: DreamFieldsObjective = DreamFieldsObjective()

    def __call__(self, seen: Seen, guide: Guide, words: Words, generator: Generator) -> Judged:
        """See `Objective`."""
        assert isinstance(guide, ContrastiveModel)
        assert isinstance(words, Target)
        assert seen.background is not None
        pictures = self.augmented(seen.picture, seen.background, guide.image_size, generator)
        target = target_opacity(seen.cameras, self.config.opacity(seen.progress), seen.scene.radius)
        terms = {
            "similarity": -similarity(pictures, guide, words),
            "transmittance": -self.config.transmittance * transmittance(seen.picture.opacity, target),
        }
        return Judged(terms, logged={}, vitals={})

    def augmented(
        self, picture: Picture, background: Float[Tensor, "b 3"], size: int, generator: Generator
    ) -> Float[Tensor, "n s s 3"]:
        """`crops` random crops of each view, of `size` pixels, each before a background of its own."""
        layers = torch.cat([picture.rgb - (1 - picture.opacity)[..., None] * background[:, None, None],
                            picture.opacity[..., None]], dim=-1)  # fmt: skip
        cropped = random_crops(layers, self.config.crops, self.config.crop_size, size, generator)
        behind = self.backgrounds(len(cropped), size, generator).to(cropped)
        return cropped[..., :3] + (1 - cropped[..., 3:]) * behind

    def backgrounds(self, count: int, size: int, generator: Generator) -> Float[Tensor, "n s s 3"]:
        """A third each noise, checkers and Fourier textures, all of them blurred."""
        colours = torch.rand(count, 2, 3, generator=generator, device=generator.device)
        squares = torch.full((count,), self.config.checker_squares, device=generator.device)
        kinds = [
            backgrounds.noise(count, size, generator),
            backgrounds.checker(colours, squares, size),
            backgrounds.fourier(count, size, generator),
        ]
        deviation = backgrounds.uniform(self.config.blur, count, generator)
        return backgrounds.blurred(backgrounds.chosen(kinds, generator), deviation)


def target_opacity(cameras: Cameras, opacity: float, radius: float) -> Float[Tensor, " b"]:
    """The target of each view's mean opacity: larger where the object is, at most 1."""
    focal = 0.5 / torch.tan(0.5 * cameras.fov_y)
    distance = cameras.position.norm(dim=-1) / radius
    return (opacity * (focal / FOCAL).square() / (distance / DISTANCE).square() / SCALE).clamp(max=1.0)


def transmittance(opacity: Float[Tensor, "b h w"], target: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Mean over views of the mean transmittance, up to its target."""
    return torch.minimum(1 - target, 1 - opacity.flatten(1).mean(1)).mean()


def random_crops(
    picture: Float[Tensor, "b h w c"], count: int, share: float, size: int, generator: Generator
) -> Float[Tensor, "n s s c"]:
    """`count` square crops of each picture, view by view, at whole pixels, resized to `size`.

    A crop's side is the `share` of the picture's, in [0, 1]; all places are equally likely.
    """
    views, whole = picture.shape[:2]
    side = max(1, math.floor(share * whole + 1e-6))
    corner = torch.randint(whole - side + 1, (views * count, 2), generator=generator, device=generator.device).tolist()
    crops = torch.stack([picture[i // count, y : y + side, x : x + side] for i, (y, x) in enumerate(corner)])
    resized = F.interpolate(crops.movedim(-1, 1), (size, size), mode="bilinear", antialias=True)
    return resized.movedim(1, -1)
