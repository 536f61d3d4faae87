"""What a run is told: a tree of frozen records. Presets are values of it, the command line edits it.

The string under a field is its help text. Angles are degrees here, and only here. This module imports nothing slow.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from dreamfusion.config_distill import DistillConfig
from dreamfusion.config_views import CameraConfig, LightConfig, Span
from dreamfusion.schedules import Constant, Ramp, Schedule

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class GridField:
    """The fast field: nested dense grids, a tiny network for the colours."""

    cells: tuple[int, ...] = (16, 32, 64)
    """cells per side of the density grids, coarse to fine, each a multiple of the one before"""
    detail: float = 0.5
    """what each finer density grid counts, relative to the one before"""
    colour_cells: tuple[int, ...] = (16, 64)
    """the same for colour"""
    features: int = 4
    """numbers per vertex of a colour grid"""
    hidden: int = 16
    """width of the colour network"""


@dataclass(frozen=True)
class MlpField:
    """The paper's field: a residual network on integrated positional encodings."""

    levels: int = 8
    """frequencies of the encoding"""
    blocks: int = 5
    """residual blocks"""
    width: int = 128
    """hidden units"""


@dataclass(frozen=True)
class SolidBackground:
    """One plain colour."""

    colour: Colour = (1.0, 1.0, 1.0)
    """red, green, blue in 0..1"""


@dataclass(frozen=True)
class RandomBackground:
    """A new plain colour for every view."""

    low: Colour = (0.0, 0.0, 0.0)
    """darkest red, green, blue"""
    high: Colour = (1.0, 1.0, 1.0)
    """brightest red, green, blue"""
    grey: bool = False
    """greys only"""


@dataclass(frozen=True)
class LearnedBackground:
    """A network by direction: the paper's environment map."""

    levels: int = 4
    """frequencies of the encoded direction"""
    layers: int = 3
    """hidden layers"""
    width: int = 64
    """hidden units"""


FieldConfig = GridField | MlpField
BackgroundConfig = SolidBackground | RandomBackground | LearnedBackground


@dataclass(frozen=True)
class BlobConfig:
    """The matter a run begins with, added to the density logit."""

    height: float = 5.0
    """in the middle"""
    width: float = 0.2
    """standard deviation, world units"""


@dataclass(frozen=True)
class OccupancyConfig:
    """The memory of empty space."""

    cells: int = 64
    """per side"""
    threshold: float = 0.05
    """density above which a cell counts as occupied"""
    every: int = 16
    """steps between refreshes"""
    parts: int = 4
    """refreshes until every cell was asked"""
    decay: float = 0.8
    """what a refresh leaves of the old density"""
    margin: int = 1
    """cells by which occupied space is widened"""


@dataclass(frozen=True)
class SceneConfig:
    """What is optimised."""

    radius: float = 1.0
    """of the ball that holds the object"""
    field: FieldConfig = GridField()
    """chosen with --field"""
    activation: Literal["exp", "softplus"] = "exp"
    """from logit to density"""
    shift: float = 0.0
    """added to the logit: empty space begins at activation(shift)"""
    limit: float = 15.0
    """shifted logit above which exp goes on as a straight line"""
    blob: BlobConfig = BlobConfig()
    background: BackgroundConfig = RandomBackground()
    """chosen with --background"""
    occupancy: OccupancyConfig = OccupancyConfig()


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


@dataclass(frozen=True)
class OptimiseConfig:
    """Adam."""

    grid: float = 0.02
    """learning rate of grids"""
    network: float = 5e-3
    """learning rate of the field's network"""
    background: float = 1e-3
    """learning rate of a learned background"""
    betas: Span = (0.9, 0.99)
    """memory of the gradient and of its square"""
    epsilon: float = 1e-15
    """added to the root of the mean square"""
    rate: Schedule = Constant(1.0)
    """factor on all learning rates: warm-up and decay"""


@dataclass(frozen=True)
class LargeConfig:
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
    """encode one picture at a time: less memory"""
    vae_tiling: bool = False
    """encode large pictures in tiles: less memory"""
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
    """All of a run. Two runs with equal configurations on one machine are equal bit for bit."""

    prompt: Positional[str] = ""
    """what to make"""
    negative: str = ""
    """what to keep away from"""
    prior: str = "embedded"
    """text-to-image model: embedded, a diffusers folder, or a hub id (owner/name, or owner/name@revision)"""
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
    conditions: bool = True
    """tell the prior camera, background and light where it can use them, not words alone"""
    view_words: bool = True
    """append 'front view' and the like to the prompt"""
    blend_views: bool = False
    """blend the captions of neighbouring views instead of taking the nearest one"""
    perp_neg: float = 0.0
    """steer away from other views' captions (Perp-Neg): factor on the usual weights, 0 for not at all"""
    checkpoint_every: int = 100
    """steps"""
    preview_every: float = 5.0
    """seconds; 0 for none"""
    scene: SceneConfig = SceneConfig()
    camera: CameraConfig = CameraConfig()
    light: LightConfig = LightConfig()
    render: RenderConfig = RenderConfig()
    distill: DistillConfig = DistillConfig()
    regularise: RegulariseConfig = RegulariseConfig()
    optimise: OptimiseConfig = OptimiseConfig()
    large: LargeConfig = LargeConfig()
    output: OutputConfig = OutputConfig()
