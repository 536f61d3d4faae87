"""What a run is told: a tree of frozen records. Presets are values of it, the command line edits it.

The string under a field is its help text. Angles are degrees here, and only here. This module imports nothing slow.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, Suppress, arg

from dreamfusion.config.distill import DistillConfig
from dreamfusion.config.scene import (
    SceneConfig,
    Span,
)
from dreamfusion.config.views import CameraConfig, LightConfig
from dreamfusion.schedules import Constant, Ramp, Schedule

ConditionSet = Literal["all", "no-camera", "none"]
"""what a prior is told beside words (`allowed_conditions`)"""


@dataclass(frozen=True)
class RenderConfig:
    """How rays are followed."""

    samples: int = 64
    """per ray, between entering and leaving the box of occupied cells"""
    weight_threshold: float = 1e-4
    """samples that count for less get no gradient"""
    colour_threshold: float = 1e-4
    """samples that count for less take the mean colour of their ray"""
    normals: bool = False
    """compute normals for unlit views too, so that the orientation weight acts there"""
    chunk: int = 16384
    """rays at once in previews and videos; bounds memory"""
    checkpoint_rays: int = 0
    """rays at once in steps, rendered again for their gradients; bounds memory, costs time; 0: all, once"""


@dataclass(frozen=True)
class RegulariseConfig:
    """What else pulls at the scene; weights."""

    opacity: Schedule = Constant(1e-3)
    """against matter that nobody needs"""
    orientation: Schedule = Ramp(1e-4, 1e-2, 0.0, 5000 / 15000)
    """against surfaces that face away (acts on lit views)"""
    entropy: Schedule = Constant(0.0)
    """against half-transparent pixels"""
    distortion: Schedule = Constant(0.0)
    """against matter spread along a ray"""
    smoothness: Schedule = Constant(0.0)
    """against rough density (grid field only)"""
    interlevel: Schedule = Constant(1.0)
    """makes proposals follow the field; trains nothing else"""
    reduction: Literal["mean", "sum"] = "mean"
    """how the first four count a picture's pixels; score distillation is a sum over them, and the paper says nothing"""


@dataclass(frozen=True)
class ShampooConfig:
    """What only Shampoo needs. What the paper leaves open is as in the original implementation's defaults."""

    exponent: float = 2.0
    """override of the inverse root: both sides of a gradient get their statistics to the power -1/exponent"""
    block: int = 128
    """greatest side of a preconditioned block"""
    averaged: bool = False
    """take the mean of past updates as momentum, not their sum: steps of a tenth of the size"""
    nesterov: bool = True
    """let the momentum look one update ahead"""
    every: int = 1
    """steps between new inverse roots"""


@dataclass(frozen=True)
class OptimiseConfig:
    """How the scene is updated."""

    method: Literal["adam", "shampoo"] = "adam"
    """distributed Shampoo, grafted to steps of length sqrt(N), is the paper's"""

    grid: float = 0.02
    """learning rate of grids"""
    network: float = 5e-3
    """learning rate of the field's network and of proposals"""
    background: float = 1e-3
    """learning rate of a learned background"""
    betas: Span = (0.9, 0.99)
    """memory of the gradient and of its square"""
    epsilon: float = 1e-15
    """added to the root of the mean square (Adam), or to the statistics relative to their greatest value (Shampoo)"""
    lr_schedule: Schedule = Constant(1.0)
    """factor on all learning rates: warm-up and decay"""
    shampoo: ShampooConfig = ShampooConfig()


@dataclass(frozen=True)
class MemoryConfig:
    """What only large priors need (docs/priors.md)."""

    embeddings: Annotated[str, arg(aliases=["--embeddings"])] = ""
    """file made with --save-embeddings, in place of the text encoders"""
    size: int = 0
    """of the pictures as a latent prior sees them, in pixels; 0 for its own"""
    latent_until: Annotated[float, arg(aliases=["--latent-until"])] = 0.0
    """fraction of the run that takes the short cut from colours to latents"""
    attention_slicing: bool = False
    """attention in parts (U-Nets): less memory"""
    vae_slicing: bool = False
    """encode one picture at a time, again on the way back: less memory, more time"""
    vae_tiling: bool = False
    """encode large pictures in tiles, again on the way back: less memory, more time"""
    offload: bool = False
    """keep the denoiser in main memory and fetch each layer when it computes: slow, for small cards"""


@dataclass(frozen=True)
class OutputConfig:
    """The files at the end."""

    samples: int = 96
    """per ray, of previews, turntable and sheet (whatever --render says)"""
    frames: int = 40
    """of the turntable"""
    frame_size: int = 176
    """of the turntable, pixels"""
    sheet_size: int = 144
    """of each picture on the contact sheet, pixels"""
    mesh_resolution: int = 112
    """points at which the density is sampled, per diameter of the scene's ball"""
    texture_size: int = 1024
    """of the mesh, pixels"""


@dataclass(frozen=True)
class Config:
    """All of a run. Two runs with equal ones, on one machine with as many threads, are equal bit for bit."""

    prompt: Positional[str] = ""
    """what to make"""
    negative: str = ""
    """what to keep away from"""
    prior: str = "embedded"
    """text-to-image model: embedded, a diffusers folder, or a hub id (owner/name, or owner/name@revision)"""
    prior_sha256: str = ""
    """of the prior's denoiser, to insist on it; a run that begins without one writes down what it found"""
    version: Annotated[str, Suppress] = ""
    """of dreamfusion, written down when a run begins"""
    preset: str = "fast"
    """where the defaults come from"""
    steps: int = 600
    """updates of the scene"""
    seed: int = 0
    """of everything random"""
    size: int = 64
    """of the pictures shown to the prior, in pixels"""
    views: int = 1
    """pictures per step"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ... or mps"""
    threads: int = 0
    """of the CPU; 0 takes all cores"""
    half: bool = False
    """run the prior in half precision (GPUs)"""
    conditions: ConditionSet = "all"
    """what the prior is told beside words, where it can use it: camera, background, light and variety (by the seed)"""
    view_words: bool = True
    """append 'front view' and the like to the prompt"""
    blend_views: bool = False
    """blend the captions of neighbouring views instead of taking the nearest one"""
    perp_neg: float = 0.0
    """steer away from other views' captions (Perp-Neg): factor on the usual weights, 0 for not at all"""
    checkpoint_steps: int = 100
    """steps"""
    preview_seconds: float = 5.0
    """seconds, more where previews are slow; 0 for none"""
    scene: SceneConfig = SceneConfig()
    camera: CameraConfig = CameraConfig()
    light: LightConfig = LightConfig()
    render: RenderConfig = RenderConfig()
    distill: DistillConfig = DistillConfig()
    regularise: RegulariseConfig = RegulariseConfig()
    optimise: OptimiseConfig = OptimiseConfig()
    memory: MemoryConfig = MemoryConfig()
    output: OutputConfig = OutputConfig()
