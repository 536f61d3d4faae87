"""What the fast preset leaves out must not matter: its renderer against the naive one, on a scene that was trained."""

import math
from dataclasses import replace

import pytest
import torch

from dreamfusion import build
from dreamfusion.cameras import OrbitSampler, orbit
from dreamfusion.config import CameraConfig, OccupancyConfig, SolidBackground
from dreamfusion.config.presets import preset
from dreamfusion.lights import albedo_only, key_light
from dreamfusion.nerf.background import Solid
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.render import RenderOptions, render
from dreamfusion.nerf.scene import Scene
from reference.analytic_fields import SoftBall
from reference.dense_render import dense_render

DENSE = 192
"""samples per ray of the naive renderer: 1.5 for each cell that a ray crosses on its longest way"""


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def camera(azimuth_deg, size=32):
    one = torch.ones(1)
    return orbit(math.radians(azimuth_deg) * one, 0.4 * one, 3 * one, math.radians(40) * one, size)


@pytest.fixture(scope="module")
def trained():
    """A grid field that has learned, with the fast preset's options, to look like a coloured ball with a soft edge."""
    options = build.recipe(preset("fast")).train_render
    exact = RenderOptions(samples=96, weight_threshold=1e-4, colour_threshold=1e-4)
    cells = OccupancyConfig(cells=32)
    target = Scene(SoftBall(0.5, 30.0), Solid(), Occupancy(cells, 1.0), 1.0)
    scene = build.scene(replace(preset("fast").scene, background=SolidBackground()), seeded())
    field = scene.field
    optimiser, generator = torch.optim.Adam(scene.parameters(), 0.05), seeded(1)
    views = OrbitSampler(
        CameraConfig(distance=(3.0, 3.0), fov_deg=(40.0, 40.0), position_jitter=0.0, look_at_jitter=0.0, up_jitter=0.0)
    )
    for step in range(80):
        if step % 8 == 0:
            scene.occupancy.update(field, generator)
        cameras = views(2, 32, generator)
        light = key_light(cameras, textureless=False) if step % 2 else albedo_only(2)
        with torch.no_grad():
            wanted = render(target, cameras, light, exact, generator).rgb
        optimiser.zero_grad()
        error = (render(scene, cameras, light, options, generator).rgb - wanted).square().mean()
        error.backward()
        optimiser.step()
    assert error < 3e-3
    scene.occupancy.update(field, generator)
    return scene


def fast(scene, cameras, light, towards):
    """Picture and gradients of the fast preset, both averaged over 16 draws of its jitter."""
    options, generator = build.recipe(preset("fast")).train_render, seeded(2)
    pictures = [render(scene, cameras, light, options, generator).rgb for _ in range(16)]
    mean = torch.stack(pictures).mean(0)
    return pictures[0].detach(), mean.detach(), torch.autograd.grad((mean * towards).sum(), list(scene.parameters()))


def psnr(a, b):
    return -10 * math.log10(float((a - b).detach().square().mean()))


@pytest.mark.parametrize("lit", [False, True])
def test_fast_preset_shows_and_learns_what_dense_sampling_does(trained, lit):
    cameras = camera(40)
    light = key_light(cameras, textureless=False) if lit else albedo_only(1)
    towards = torch.randn(1, 32, 32, 3, generator=seeded(3))
    dense, _ = dense_render(trained, cameras, light, DENSE, torch.ones(1, 3))
    expected = torch.autograd.grad((dense * towards).sum(), list(trained.parameters()))
    one, mean, gradient = fast(trained, cameras, light, towards)
    assert psnr(one, dense) > 33  # dB
    assert psnr(mean, dense) > 34
    for (name, _), ours, theirs in zip(trained.named_parameters(), gradient, expected, strict=True):
        agreement = torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0)
        # Fine cells are smaller than a bin: there 16 draws of the jitter still differ from the truth.
        assert agreement > (0.94 if name.endswith(".0") else 0.88), name
