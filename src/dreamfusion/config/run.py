"""The configuration of a run: a tree of frozen records. Presets are values of it, the command line edits it.

The string under a field is its help text. Angles are degrees here, and only here. This module imports nothing slow.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval
from tyro.conf import Positional, Suppress, arg

from dreamfusion.config.bounds import Amount, Count, Fraction, FrameSize, Memory, Samples, Seed, Threads
from dreamfusion.config.distill import DistillConfig
from dreamfusion.config.objective import DistillationObjective, ObjectiveConfig
from dreamfusion.config.scene import SceneConfig
from dreamfusion.config.views import CameraConfig, LightConfig
from dreamfusion.schedules import Constant, Ramp, Schedule

ConditionSet = Literal["all", "no-camera", "no-variety", "none"]
"""inputs of a prior besides the caption (`allowed_conditions`)"""


@dataclass(frozen=True)
class RenderConfig:
    """Volume rendering."""

    samples: Samples = 64
    """samples per ray, between entering and leaving the bounding box of the occupied cells"""
    weight_threshold: Amount = 1e-3
    """rendering weight in 0..1 below which a sample gets no gradient"""
    colour_threshold: Amount = 1e-3
    """rendering weight in 0..1 below which a sample takes the mean colour of its ray, without a query of the field"""
    normals: bool = False
    """compute normals for unlit views too, so that the orientation regulariser acts there"""
    chunk: Annotated[int, Interval(ge=1, le=2**31)] = 16384
    """rays rendered at once in previews and videos; bounds memory"""
    checkpoint_rays: Annotated[int, Interval(ge=0, le=2**31)] = 0
    """gradient checkpointing: rays rendered at once in steps, and again in the backward pass; 0: off"""


@dataclass(frozen=True)
class RegulariseConfig:
    """Regulariser weights."""

    opacity: Schedule = Constant(1e-3)
    """weight of the mean of sqrt(opacity^2 + 0.01) over pixels"""
    orientation: Schedule = Ramp(1e-4, 1e-2, 0.0, 5000 / 15000)
    """weight of sum w max(0, n.v)^2 per ray, v away from the camera: visible normals that face away (lit views only)"""
    entropy: Schedule = Constant(0.0)
    """weight of the binary entropy of the pixels' opacity, nats"""
    distortion: Schedule = Constant(0.0)
    """weight of the distortion loss of mip-NeRF 360 (spread of the weights along a ray, world units)"""
    smoothness: Schedule = Constant(0.0)
    """weight of the total variation of the density logits (grid field only)"""
    interlevel: Schedule = Constant(1.0)
    """weight of the interlevel loss of mip-NeRF 360, which trains the proposal network only"""
    laplacian: Schedule = Constant(0.0)
    """weight of the roughness of a mesh's displacement (second stage only)"""
    bending: Schedule = Constant(0.0)
    """weight of the angles between a mesh's neighbouring faces (second stage only)"""
    stability: Schedule = Constant(0.0)
    """weight of how far a mesh's centre of mass is from well inside its base (second stage only)"""
    reduction: Literal["mean", "sum"] = "mean"
    """reduction over a view's pixels of the first four; score distillation is a sum, the paper does not say"""


@dataclass(frozen=True)
class ShampooConfig:
    """Settings of Shampoo. What the paper leaves open has the defaults of the original implementation."""

    exponent: Annotated[float, Ge(1)] = 2.0
    """p: each side of a gradient matrix is multiplied by its statistics to the power -1/p"""
    block: Annotated[int, Interval(ge=1, le=8192)] = 128
    """largest side of a preconditioned block, numbers"""
    averaged: bool = False
    """momentum is the mean of past updates instead of their sum: steps smaller by 1 - beta1"""
    nesterov: bool = True
    """Nesterov momentum"""
    every: Count = 1
    """steps between updates of the inverse roots"""


@dataclass(frozen=True)
class OptimiseConfig:
    """Optimiser of the scene."""

    method: Literal["adam", "shampoo"] = "adam"
    """optimiser; shampoo: distributed Shampoo grafted to steps of length sqrt(N), the paper's"""

    grid: Amount = 0.02
    """learning rate of grids and textures"""
    vertices: Amount = 1e-3
    """learning rate of a mesh's vertices, world units (second stage only)"""
    network: Amount = 5e-3
    """learning rate of the field's network and of proposals"""
    background: Amount = 1e-3
    """learning rate of a learned background"""
    betas: tuple[Memory, Memory] = (0.9, 0.99)
    """decay rates of the averages of the gradient (momentum) and of its square (Shampoo: of the statistics)"""
    epsilon: Annotated[float, Gt(0)] = 1e-15
    """added to the root mean square (Adam), or to the statistics' eigenvalues, relative to the largest (Shampoo)"""
    lr_schedule: Schedule = Constant(1.0)
    """factor on all learning rates: warm-up and decay"""
    shampoo: ShampooConfig = ShampooConfig()


@dataclass(frozen=True)
class MemoryConfig:
    """Memory and speed of large priors (docs/priors.md)."""

    embeddings: Annotated[str, arg(aliases=["--embeddings"])] = ""
    """file made with --save-embeddings, read in place of running the text encoders"""
    size: Annotated[int, Interval(ge=0, le=8192)] = 0
    """size of the pictures given to a latent prior's auto-encoder, pixels per side; 0: the prior's own"""
    latent_until: Annotated[Fraction, arg(aliases=["--latent-until"])] = 0.0
    """fraction of the run that maps colours to latents by a linear map instead of the VAE encoder"""
    attention_slicing: bool = False
    """compute attention in slices (U-Nets): less memory, more time"""
    vae_slicing: bool = False
    """VAE encoder: one picture at a time, with gradient checkpointing: less memory, more time"""
    vae_tiling: bool = False
    """VAE encoder: large pictures in overlapping tiles, with gradient checkpointing: less memory, more time"""
    offload: bool = False
    """keep the denoiser's weights in main memory and copy each layer to the GPU when it runs: slow, for small GPUs"""


@dataclass(frozen=True)
class OutputConfig:
    """Previews and the files written at the end."""

    samples: Samples = 96
    """samples per ray of previews, turntable and contact sheet (in place of --render.samples)"""
    frames: Annotated[int, Interval(ge=2, le=10_000)] = 40
    """frames of the turntable"""
    frame_size: FrameSize = 176
    """size of the turntable, pixels per side"""
    sheet_size: FrameSize = 144
    """size of each picture on the contact sheet, pixels per side"""
    mesh_resolution: Annotated[int, Interval(ge=8, le=1024)] = 112
    """grid points per diameter of the scene's sphere at which the density is sampled for the mesh"""
    texture_size: Annotated[int, Interval(ge=64, le=4096)] = 1024
    """size of the mesh's texture, pixels per side"""


@dataclass(frozen=True)
class Config:
    """All settings of a run. Equal settings on one machine with as many threads give equal results, bit for bit."""

    prompt: Positional[str] = ""
    """caption: what to make"""
    negative: str = ""
    """negative prompt, in place of the empty caption"""
    understood: Annotated[tuple[tuple[str, str], ...], Suppress] = ()
    """prompt and negative prompt, where the prior understood them otherwise than typed, each with the caption that it
    was given; recorded when a run begins"""
    prior: str = "embedded"
    """text-to-image model: embedded, a diffusers folder, or a hub id (owner/name, or owner/name@revision)"""
    prior_sha256: str = ""
    """required SHA-256 of the denoiser's weights, hexadecimal; if empty, the run records the one it finds"""
    version: Annotated[str, Suppress] = ""
    """version of dreamfusion, recorded when a run begins"""
    custom: Annotated[tuple[str, ...], Suppress] = ()
    """parts that were given as Python objects in place of configured ones, recorded when a run begins"""
    preset: Annotated[str, Suppress] = "fast"
    """name of the preset that the settings started from"""
    steps: Annotated[int, Interval(ge=1, le=10**9)] = 600
    """optimisation steps"""
    seed: Seed = 0
    """seed of all random numbers"""
    size: Annotated[int, Interval(ge=8, le=1024)] = 64
    """size of the training views, pixels per side"""
    size_schedule: Annotated[Schedule, Interval(gt=0, le=1)] = Constant(1.0)
    """factor on the size of the training views along the run: 0.25,0.5,1@0.4,0.7 makes 64, 128, 256 pixels of 256"""
    views: Annotated[int, Interval(ge=1, le=4096)] = 1
    """training views per step"""
    device: str = "auto"
    """device: auto, cpu, cuda, cuda:1 ... or mps"""
    threads: Threads = 0
    """CPU threads, 0: one per core; grid field with the embedded prior: two at most, one per evaluation of the prior"""
    half: bool = False
    """run the prior in half precision (for GPUs)"""
    conditions: ConditionSet = "all"
    """inputs of the prior besides the caption, if it takes any: camera, background, light, variety (from the seed)"""
    view_words: bool = True
    """append 'front view', 'side view' ... to the prompt, by the camera's azimuth and elevation"""
    blend_views: bool = False
    """interpolate the embeddings of neighbouring view captions instead of taking the nearest one"""
    perp_neg: Amount = 0.0
    """Perp-Neg: factor on the weights of the negative captions of other views; 0: off"""
    checkpoint_steps: Count = 100
    """steps between checkpoints"""
    preview_seconds: Amount = 5.0
    """seconds between preview pictures, more where they are slow to render; 0: none"""
    heal: Annotated[int, Interval(ge=0, le=100)] = 0
    """times that a run that goes wrong is taken back and changed (docs/health.md); 0: never, only told"""
    candidates: Annotated[int, Interval(ge=1, le=100)] = 1
    """draws that are begun with, of which the likeliest after a fifth of the steps goes on (docs/health.md)"""
    objective: ObjectiveConfig = DistillationObjective()
    """what pictures are judged by, chosen with --objective"""
    scene: SceneConfig = SceneConfig()
    camera: CameraConfig = CameraConfig()
    light: LightConfig = LightConfig()
    render: RenderConfig = RenderConfig()
    distill: DistillConfig = DistillConfig()
    regularise: RegulariseConfig = RegulariseConfig()
    optimise: OptimiseConfig = OptimiseConfig()
    memory: MemoryConfig = MemoryConfig()
    output: OutputConfig = OutputConfig()

    def size_at(self, progress: float) -> int:
        """Size of the training views at this progress of the run, in [0, 1], pixels per side."""
        return round(self.size * self.size_schedule(progress))

    def caption(self, typed: str) -> str:
        """What the prior was given for a prompt, as far as it is recorded."""
        return dict(self.understood).get(typed, typed)
