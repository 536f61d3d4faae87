"""Lights: one point light and one ambient light per view.

A surface with albedo a, normal n and direction l to the light shows `a * (ambient + diffuse * max(0, n.l))`, where a
`textureless` light replaces a by 1. So albedo only (ambient 1, diffuse 0), lit and textureless pictures are values of a
`Light`, not modes of the renderer (paper, section 3.1).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.config import LightConfig
from dreamfusion.geometry import normalise
from dreamfusion.records import mapped


@dataclass(frozen=True, eq=False)
class Light:
    """The lights of a batch of views."""

    position: Float[Tensor, "b 3"]
    """of the point light, in the world"""
    ambient: Float[Tensor, " b"]
    diffuse: Float[Tensor, " b"]
    textureless: Bool[Tensor, " b"]
    """whether the albedo is replaced by 1, so that only the shape is seen (textureless)"""
    lit: bool = True
    """False: all diffuse parts are 0, known on the host, so that no device synchronisation decides about normals"""

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, views: slice) -> "Light":
        """A sub-range of the views."""
        return mapped(self, lambda tensor: tensor[views])

    def to(self, device: torch.device | str) -> "Light":
        return mapped(self, lambda tensor: tensor.to(device))


@dataclass(frozen=True)
class LightSampler:
    """Random lights, drawn for every view by itself.

    The defaults are the paper's (DreamFusion, section 3.2 and appendix A.2). A call takes the same number of random
    values whatever the progress, the fields and the outcome are, so that runs stay comparable.
    """

    config: LightConfig = LightConfig()

    def __call__(self, cameras: Cameras, progress: float, generator: Generator) -> Light:
        """A light per camera, on the cameras' device; `progress` in [0, 1]."""
        eye = cameras.position
        drawn = torch.rand(3, len(cameras), generator=generator, device=generator.device)
        u = drawn.to(eye)
        bell = torch.randn(len(cameras), 3, generator=generator, device=generator.device).to(eye)
        lit = (u[0] < self.config.shaded) & (progress >= self.config.albedo_until)
        low, high = self.config.distance
        grey = lit & (u[1] < self.config.textureless) & (progress <= self.config.textureless_until)
        albedo = torch.where(grey, self.config.grey, 1.0).to(eye)  # of what is seen as white
        return Light(
            position=(low + (high - low) * u[2])[:, None] * normalise(eye + self.config.spread * bell),
            ambient=torch.where(lit, self.config.ambient, 1.0).to(eye) * albedo,
            diffuse=torch.where(lit, self.config.diffuse, 0.0).to(eye) * albedo,
            textureless=grey,
            lit=progress >= self.config.albedo_until and bool((drawn[0] < self.config.shaded).any()),
        )


def albedo_only(count: int, device: torch.device | str = "cpu") -> Light:
    """Lights that show the albedo as it is."""
    one = torch.ones(count, device=device)
    dark, coloured = torch.zeros_like(one), torch.zeros_like(one, dtype=torch.bool)
    return Light(torch.zeros(count, 3, device=device), one, dark, coloured, lit=False)


def key_light(cameras: Cameras, textureless: bool) -> Light:
    """A steady light above and to the right of each camera, for evaluation and media; `textureless`
    sets the albedo to 1.
    """
    eye, right, up = cameras.position, cameras.pose[:, :3, 0], cameras.pose[:, :3, 1]
    one = torch.ones_like(eye[:, 0])
    # Some 36 degrees off the view: enough for shadows that tell the shape, too little to leave what is seen in the
    # dark.
    position = eye + eye.norm(dim=-1, keepdim=True) * (0.4 * right + 0.6 * up)
    return Light(position, 0.3 * one, 0.7 * one, torch.full_like(one, textureless, dtype=torch.bool))
