"""Presets: named starting points of a configuration, as values. The command line can change every field of them."""

import math
from collections.abc import Iterable
from dataclasses import replace

from dreamfusion.config import (
    BlobConfig,
    CameraConfig,
    ClipMeshObjective,
    Config,
    DistillConfig,
    DreamFieldsObjective,
    FourierFieldConfig,
    GridFieldConfig,
    LearnedBackground,
    LightConfig,
    MemoryConfig,
    MlpFieldConfig,
    OccupancyConfig,
    OptimiseConfig,
    OutputConfig,
    ProposalConfig,
    RegulariseConfig,
    RenderConfig,
    SceneConfig,
    SolidBackground,
    SphereFieldConfig,
)
from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant, Geometric, Ramp, Steps, WarmupCosine

FOV_DREAM_FIELDS = math.degrees(2 * math.atan(0.5 / (1.2 * 1111.1111 / 800)))
"""Field of view of Dream Fields: 1.2 times the focal length of NeRF's synthetic scenes"""
FOCAL_1_35, FOCAL_0_7 = (math.degrees(2 * math.atan(0.5 / focal)) for focal in (1.35, 0.7))
"""Fields of view of the paper's focal lengths, 1.35 and 0.7 picture heights"""

FAST = Config(
    steps=500,
    # Space begins clear (density exp(-5) per unit length), with a soft solid ball in the middle.
    scene=SceneConfig(
        density_bias=-5.0,
        exp_clamp=5.0,
        blob=BlobConfig(height=8.0, width=0.35),
        occupancy=OccupancyConfig(threshold=0.05),
    ),
    # What leaving out so much costs in accuracy: docs/reference/performance.md.
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
    # A prior conditioned on camera, background and light is certain enough: guidance away from what it expects of
    # nothing in particular only makes its answers wrong (1.7 dB at a scale of 2). The contrast that more of it adds is
    # taken back. Much noise all along: less of it changes nothing that can be seen (docs/reference/embedded-prior.md).
    distill=DistillConfig(guidance_scale=1.0, guidance_rescale=1.0, t_min=Ramp(0.75, 0.5), t_max=Constant(0.98)),
    # Means over pixels, beside a distillation gradient that is summed over them: hence the large numbers. The entropy
    # turns soft density into surfaces, which a mesh can follow.
    regularise=RegulariseConfig(
        opacity=Constant(20.0),
        orientation=Constant(30.0),
        entropy=Ramp(0.0, 1000.0, 0.2, 1.0),
    ),
    optimise=OptimiseConfig(grid=0.06, lr_schedule=Ramp(1.0, 0.1, 0.5, 1.0)),
)
"""Minutes on two cores with the embedded prior."""

PAPER = Config(
    preset="paper",
    steps=15_000,
    size=64,
    views=4,
    conditions="none",
    checkpoint_steps=250,
    preview_seconds=60.0,
    scene=SceneConfig(
        radius=1.4,
        field=MlpFieldConfig(levels=8, blocks=5, width=128),
        # exp(logit) is 1 where the network says nothing: fog that hides the blob. mip-NeRF 360 subtracts 1 as well.
        density_bias=-1.0,
        blob=BlobConfig(height=5.0, width=0.2),
        variance=Ramp(5e-2, 2e-3, 0.0, 5000 / 15000),
        proposal=ProposalConfig(rounds=(64, 64)),
        background=LearnedBackground(),
        occupancy=OccupancyConfig(every=0),
    ),
    camera=CameraConfig(fov_deg=(FOCAL_1_35, FOCAL_0_7)),
    light=LightConfig(),
    render=RenderConfig(samples=32, weight_threshold=0.0, normals=True, checkpoint_rays=256, chunk=1024),
    output=OutputConfig(samples=32),
    distill=DistillConfig(guidance_scale=101.0, t_min=Constant(0.02), t_max=Constant(0.98)),
    regularise=RegulariseConfig(
        opacity=Constant(1e-3), orientation=Ramp(1e-4, 1e-2, 0.0, 5000 / 15000), reduction="sum"
    ),
    optimise=OptimiseConfig(
        method="shampoo",
        network=1e-4,
        background=1e-4,
        betas=(0.9, 0.9),
        epsilon=1e-6,
        lr_schedule=WarmupCosine(1e-9 / 1e-4, 1.0, 1e-6 / 1e-4, 3000 / 15000),
    ),
)
"""DreamFusion to the letter (section 3, appendix A.2): every number, and where the paper leaves one open, is in
docs/reference/paper.md. Made for a large prior and GPUs."""

# What priors that know any object share. Nothing of this is tuned: no weights of a large model were at hand. The values
# are those that published runs agree on, in the 3D half that is known to work here.
_OPEN = replace(
    FAST,
    steps=10_000,
    half=True,
    checkpoint_steps=250,
    # Views as people take them, with a little play: these models do not know an exact camera.
    camera=CameraConfig(
        elevation_deg=(-10.0, 60.0),
        distance=(2.6, 3.2),
        fov_deg=(38.0, 52.0),
        position_jitter=0.1,
        look_at_jitter=0.05,
        up_jitter=0.02,
    ),
    render=RenderConfig(samples=48, weight_threshold=1e-3, colour_threshold=1e-2),
    optimise=OptimiseConfig(grid=0.02, lr_schedule=Ramp(1.0, 0.1, 0.5, 1.0)),
)

# Latent priors judge 512 pixels or more: the shape first, then views of 256 pixels and cells as small as those. Their
# pull is a sum over latents, whatever the size of the views, so regularisers that are means keep their meaning.
_DETAILED = replace(
    _OPEN,
    size=256,
    size_schedule=Steps((0.25, 0.5, 1.0), (0.3, 0.6)),
    scene=replace(FAST.scene, field=GridFieldConfig(grow=(0.3, 0.6))),
    render=replace(_OPEN.render, samples=96),
    output=OutputConfig(samples=160, frame_size=256, sheet_size=256, mesh_resolution=224),
)

SD = replace(
    _DETAILED,
    preset="sd",
    # A 64-pixel picture has as many pixels as the prior has latents: the first fifth of the run needs no auto-encoder.
    memory=MemoryConfig(latent_until=0.2),
    # DreamFusion's guidance; less leaves Stable Diffusion undecided. Late in the run only small corrections.
    distill=DistillConfig(guidance_scale=100.0, t_max=Ramp(0.98, 0.5)),
)
"""Stable Diffusion 1.x and 2.x; docs/reference/priors.md has the memory of each."""

SDXL = replace(
    SD,
    preset="sdxl",
    # The auto-encoder's gradient is what needs memory, and grows with the area: 768 pixels instead of 1024, which the
    # network is told.
    memory=MemoryConfig(size=768, latent_until=0.2, vae_slicing=True),
    distill=DistillConfig(guidance_scale=50.0, t_max=Ramp(0.98, 0.5)),
)
"""Stable Diffusion XL, PixArt."""

LAPTOP = replace(
    _OPEN,
    preset="laptop",
    distill=SD.distill,
    # Fifteen hours on two busy cores, where `sd` takes five days (docs/priors.md). Fewer steps, each a larger one.
    size=64,
    steps=2_000,
    optimise=replace(SD.optimise, grid=0.04),
    # Processors that have no half precision of their own emulate it, many times slower.
    half=False,
    # The auto-encoder costs more than the two evaluations of a small network: it comes in for the last tenth, which is
    # long enough for colours, and in parts, for computers with 8 GB.
    memory=MemoryConfig(latent_until=0.9, vae_slicing=True),
)
"""Stable Diffusions with a distilled, smaller network, on a computer without a GPU."""

IF = replace(
    _OPEN,
    preset="if",
    # Pixels of the model are pixels of the picture: the paper's own case, no auto-encoder, several views per step.
    size=64,
    views=4,
    # Published runs use a fifth of the latent models' guidance: pixel models exaggerate more.
    distill=DistillConfig(guidance_scale=20.0, t_max=Ramp(0.98, 0.5)),
)
"""DeepFloyd IF's first stage."""

FLUX = replace(
    _DETAILED,
    preset="flux",
    # 512 pixels: a quarter of the tokens of 1024, and the models know smaller pictures.
    memory=MemoryConfig(size=512, latent_until=0.2),
    # Flow models are sampled with guidance 3.5 to 7. alpha sigma weighs the distance to the estimate by alpha^2: their
    # timesteps crowd near pure noise, where little of it can be trusted (docs/reference/derivations.md).
    distill=DistillConfig(guidance_scale=10.0, t_min=Constant(0.05), t_max=Ramp(0.95, 0.5), weighting="alpha-sigma"),
)
"""Flow matching models: Flux, Stable Diffusion 3."""

_NOTHING = RegulariseConfig(opacity=Constant(0.0), orientation=Constant(0.0), interlevel=Constant(0.0))

DREAM_FIELDS = Config(
    preset="dream-fields",
    objective=DreamFieldsObjective(),
    steps=10_000,
    size=88,
    checkpoint_steps=250,
    preview_seconds=60.0,
    scene=SceneConfig(
        radius=1.0,
        field=FourierFieldConfig(),
        activation="softplus",
        blob=BlobConfig(height=0.0),
        background=SolidBackground((0.0, 0.0, 0.0)),
        occupancy=OccupancyConfig(every=0),
        centre_memory=0.999,
    ),
    camera=CameraConfig(
        elevation_deg=(30.0, 30.0),
        distance=(4.0, 4.0),
        fov_deg=(FOV_DREAM_FIELDS, FOV_DREAM_FIELDS),
        position_jitter=0.0,
        look_at_jitter=0.0,
        up_jitter=0.0,
    ),
    light=LightConfig(shaded=0.0),
    render=RenderConfig(samples=192, weight_threshold=0.0, checkpoint_rays=1024, chunk=1024),
    regularise=_NOTHING,
    optimise=OptimiseConfig(
        network=1e-4, betas=(0.9, 0.999), epsilon=1e-5, lr_schedule=Geometric(0.1, 1.0, 0.0, 1500 / 10_000)
    ),
)
"""Dream Fields (Jain et al. 2022) at its low quality; docs/reference/baselines.md has every number. For GPUs."""

DREAM_FIELDS_FAST = replace(
    FAST,
    preset="dream-fields-fast",
    objective=DreamFieldsObjective(crops=4),
    scene=replace(FAST.scene, background=SolidBackground((0.0, 0.0, 0.0)), centre_memory=0.999),
    # The embedded world's camera, at the paper's elevation.
    camera=replace(FAST.camera, elevation_deg=(30.0, 30.0)),
    light=LightConfig(shaded=0.0),
    regularise=_NOTHING,
)
"""The same loss in minutes on two cores: our grid field, views of 64 pixels, fewer steps, half the crops."""

CLIP_MESH = Config(
    preset="clip-mesh",
    objective=ClipMeshObjective(),
    steps=5_000,
    size=512,
    views=25,
    checkpoint_steps=250,
    preview_seconds=60.0,
    scene=SceneConfig(
        radius=1.0,
        field=SphereFieldConfig(),
        background=SolidBackground((0.0, 0.0, 0.0)),
        occupancy=OccupancyConfig(every=0),
    ),
    camera=CameraConfig(
        elevation_deg=(0.0, 90.0),
        elevation_uniform_in_angle=1.0,
        elevation_falloff=5.0,
        distance=(5.0, 12.0),
        fov_deg=(30.0, 90.0),
        fov_uniform_in_angle=True,
        position_jitter=0.0,
        look_at_jitter=0.0,
        up_jitter=0.0,
        shift=2.0,
    ),
    light=LightConfig(
        albedo_until=0.0,
        shaded=1.0,
        textureless=0.5,
        textureless_until=0.5,
        grey=0.5,
        ambient=0.3,
        diffuse=0.7,
        distance=(5.0, 12.0),
    ),
    regularise=_NOTHING,
    # Texels are logits, whose slope at grey is a quarter.
    optimise=OptimiseConfig(
        grid=0.04, vertices=0.01, betas=(0.9, 0.999), epsilon=1e-8, lr_schedule=Geometric(1.0, 0.1)
    ),
)
"""CLIP-Mesh (Khalid et al. 2022) without its embedding prior; docs/reference/baselines.md has the numbers. For GPUs."""

CLIP_MESH_FAST = replace(
    CLIP_MESH,
    preset="clip-mesh-fast",
    steps=300,
    size=64,
    views=4,
    checkpoint_steps=FAST.checkpoint_steps,
    preview_seconds=FAST.preview_seconds,
    scene=replace(CLIP_MESH.scene, field=SphereFieldConfig(size=0.6, texture_size=256)),
    # The embedded world: the object in the middle, at one distance.
    camera=replace(CLIP_MESH.camera, distance=(3.0, 3.0), fov_deg=(40.0, 40.0), fov_uniform_in_angle=False, shift=0.1),
    light=replace(CLIP_MESH.light, distance=(2.5, 4.0)),
)
"""The same loss in minutes on two cores: small pictures, few views, fewer steps."""

PRESETS = {
    config.preset: config
    for config in (FAST, PAPER, SD, LAPTOP, SDXL, IF, FLUX, DREAM_FIELDS, DREAM_FIELDS_FAST, CLIP_MESH, CLIP_MESH_FAST)
}

FOR_OBJECTIVES = {"dream-fields": DREAM_FIELDS_FAST.preset, "clip-mesh": CLIP_MESH_FAST.preset}
"""By the name of the objective, if only that is given"""


def preset(name: str) -> Config:
    """The preset of this name. Raises UserError for an unknown one."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: use {' or '.join(PRESETS)}")
    return PRESETS[name]


FOR_PIPELINES = {
    "StableDiffusionPipeline": SD.preset,
    "StableDiffusionXLPipeline": SDXL.preset,
    "IFPipeline": IF.preset,
    "StableDiffusion3Pipeline": FLUX.preset,
    "FluxPipeline": FLUX.preset,
    "PixArtAlphaPipeline": SDXL.preset,
    "PixArtSigmaPipeline": SDXL.preset,
}
"""By the class of a large prior"""


def suited(pipeline: str, libraries: Iterable[str]) -> str:
    """The name of the preset for a prior, by what its `model_index.json` says: its class, and where its parts are from.

    Networks of this package know the camera and the light, as the embedded prior does.
    """
    own = any(library.split(".")[0] == "dreamfusion" for library in libraries)
    return FAST.preset if own else FOR_PIPELINES.get(pipeline, FAST.preset)
