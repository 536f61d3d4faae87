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
from dreamfusion.errors import UserError
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

    albedo_until: float = 1000 / 15000
    """fraction of the run during which views show the albedo only"""
    shaded: float = 0.75
    """probability of a lit view after that; the others go on to show the albedo only"""
    textureless: float = 0.5
    """probability that a lit view is textureless"""
    ambient: float = 0.1
    diffuse: float = 0.9
    distance: tuple[float, float] = (0.8, 1.5)
    """of the light from the origin, uniform (low, high)"""
    spread: float = 1.0
    """standard deviation, per axis, of the point about the camera's position towards which the light lies"""

    def __post_init__(self) -> None:
        for name in ("albedo_until", "shaded", "textureless"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} of the light is a fraction between 0 and 1, not {getattr(self, name)}")
        if not 0 < self.distance[0] <= self.distance[1]:
            raise UserError(f"the light's distance range must be positive and go from low to high, not {self.distance}")

    def __call__(self, cameras: Cameras, progress: float, generator: Generator) -> Light:
        """A light per camera, on the cameras' device; `progress` in [0, 1]."""
        eye = cameras.position
        drawn = torch.rand(3, len(cameras), generator=generator, device=generator.device)
        u = drawn.to(eye)
        bell = torch.randn(len(cameras), 3, generator=generator, device=generator.device).to(eye)
        lit = (u[0] < self.shaded) & (progress >= self.albedo_until)
        low, high = self.distance
        return Light(
            position=(low + (high - low) * u[2])[:, None] * normalise(eye + self.spread * bell),
            ambient=torch.where(lit, self.ambient, 1.0).to(eye),
            diffuse=torch.where(lit, self.diffuse, 0.0).to(eye),
            textureless=lit & (u[1] < self.textureless),
            lit=progress >= self.albedo_until and bool((drawn[0] < self.shaded).any()),
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
