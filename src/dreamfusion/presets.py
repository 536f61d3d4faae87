"""Presets: named starting points of a configuration, as values. The command line can change every field of them."""

import math

from dreamfusion.config import (
    BlobConfig,
    CameraConfig,
    Config,
    DistillConfig,
    LearnedBackground,
    LightConfig,
    MlpField,
    OccupancyConfig,
    OptimiseConfig,
    OutputConfig,
    ProposalConfig,
    RegulariseConfig,
    RenderConfig,
    SceneConfig,
)
from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant, Ramp, WarmupCosine

FOCAL_1_35, FOCAL_0_7 = (math.degrees(2 * math.atan(0.5 / focal)) for focal in (1.35, 0.7))
"""Fields of view of the paper's focal lengths, 1.35 and 0.7 picture heights"""

FAST = Config(
    steps=500,
    # Space begins clear (density exp(-5) per unit length), with a soft solid ball in the middle.
    scene=SceneConfig(
        shift=-5.0, limit=5.0, blob=BlobConfig(height=8.0, width=0.35), occupancy=OccupancyConfig(threshold=0.05)
    ),
    # What leaving out so much costs in accuracy: docs/performance.md.
    render=RenderConfig(samples=24, weight_threshold=1e-2, colour_threshold=3e-2),
    # The world of the embedded prior: it saw objects from distance 3 at 40 degrees, centred, within the ball of radius
    # 0.95. Jitter would show it pictures that it cannot judge.
    camera=CameraConfig(
        elevation_deg=(-10.0, 75.0),
        distance=(3.0, 3.0),
        fov_deg=(40.0, 40.0),
        position_jitter=0.0,
        look_at_jitter=0.0,
        up_jitter=0.0,
    ),
    # Mostly colour early on; the lamp stands as far away as the camera.
    light=LightConfig(albedo_until=0.2, shaded=0.6, textureless=0.35, ambient=0.3, diffuse=0.7, distance=(2.5, 4.0)),
    # A prior that is told camera, background and light leaves little to guess: more guidance only burns the colours.
    # Late in the run only small corrections.
    distill=DistillConfig(guidance_scale=2.0, t_max=Ramp(0.98, 0.5)),
    # Means over pixels, beside a distillation gradient that is summed over them: hence the large numbers.
    regularise=RegulariseConfig(
        opacity=Constant(20.0),
        orientation=Constant(30.0),
        entropy=Ramp(0.0, 100.0, 0.2, 1.0),
    ),
    optimise=OptimiseConfig(grid=0.06, rate=Ramp(1.0, 0.1, 0.5, 1.0)),
)
"""Minutes on two cores with the embedded prior."""

PAPER = Config(
    preset="paper",
    steps=15_000,
    size=64,
    views=4,
    conditions=False,
    checkpoint_every=250,
    preview_every=60.0,
    scene=SceneConfig(
        radius=1.4,
        field=MlpField(levels=8, blocks=5, width=128),
        # exp(logit) is 1 where the network says nothing: fog that hides the blob. mip-NeRF 360 subtracts 1 as well.
        shift=-1.0,
        blob=BlobConfig(height=5.0, width=0.2),
        variance=Ramp(5e-2, 2e-3, 0.0, 5000 / 15000),
        proposal=ProposalConfig(rounds=(64, 64)),
        background=LearnedBackground(),
        occupancy=OccupancyConfig(every=0),
    ),
    camera=CameraConfig(fov_deg=(FOCAL_1_35, FOCAL_0_7)),
    light=LightConfig(),
    render=RenderConfig(samples=32, weight_threshold=0.0, normals=True, recompute=256),
    output=OutputConfig(samples=32),
    distill=DistillConfig(guidance_scale=101.0, t_min=Constant(0.02), t_max=Constant(0.98)),
    regularise=RegulariseConfig(
        opacity=Constant(1e-3), orientation=Ramp(1e-4, 1e-2, 0.0, 5000 / 15000), over_pixels="sum"
    ),
    optimise=OptimiseConfig(
        method="shampoo",
        network=1e-4,
        background=1e-4,
        betas=(0.9, 0.9),
        epsilon=1e-6,
        rate=WarmupCosine(1e-9 / 1e-4, 1.0, 1e-6 / 1e-4, 3000 / 15000),
    ),
)
"""DreamFusion to the letter (section 3, appendix A.2): every number, and where the paper leaves one open, is in
docs/paper.md. Made for a large prior and GPUs."""

PRESETS = {config.preset: config for config in (FAST, PAPER)}


def preset(name: str) -> Config:
    """The preset of this name. Raises UserError for an unknown one."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: use {' or '.join(PRESETS)}")
    return PRESETS[name]
