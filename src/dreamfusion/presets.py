"""Presets: named starting points of a configuration, as values. The command line can change every field of them."""

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
    RegulariseConfig,
    RenderConfig,
    SceneConfig,
)
from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant, Ramp

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
    # DreamFusion, section 3 and appendix A.2, as far as it is built: not yet the proposal sampler, the annealed
    # variance of the encoding, Shampoo and the cosine decay. Needs a large prior and a GPU.
    preset="paper",
    steps=15_000,
    views=4,
    conditions=False,
    checkpoint_every=250,
    scene=SceneConfig(radius=1.4, field=MlpField(), background=LearnedBackground()),
    camera=CameraConfig(),
    light=LightConfig(),
    render=RenderConfig(samples=160, weight_threshold=0.0, normals=True),
    output=OutputConfig(samples=160),
    distill=DistillConfig(guidance_scale=101.0, t_min=Constant(0.02), t_max=Constant(0.98)),
    regularise=RegulariseConfig(opacity=Constant(1e-3), orientation=Ramp(1e-4, 1e-2, 0.0, 5000 / 15000)),
    optimise=OptimiseConfig(
        network=1e-4,
        background=1e-4,
        epsilon=1e-6,
        rate=Ramp(1e-5, 1.0, 0.0, 3000 / 15000),
    ),
)
"""The paper's recipe."""

PRESETS = {config.preset: config for config in (FAST, PAPER)}


def preset(name: str) -> Config:
    """The preset of this name. Raises UserError for an unknown one."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: use {' or '.join(PRESETS)}")
    return PRESETS[name]
