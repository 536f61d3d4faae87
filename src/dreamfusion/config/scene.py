"""What a run is told of its scene: the part of the configuration that says what is optimised. See `config`."""

from dataclasses import dataclass
from typing import Literal

from dreamfusion.schedules import Ramp, Schedule

Span = tuple[float, float]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class GridFieldConfig:
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
class MlpFieldConfig:
    """The paper's field: a residual network on integrated positional encodings."""

    levels: int = 8
    """frequencies of the encoding"""
    blocks: int = 5
    """residual blocks"""
    width: int = 128
    """hidden units"""
    order: Literal["norm-first", "norm-last"] = "norm-first"
    """where a block normalises: what enters it (a way past all blocks stays open), or its sum; paper: "between" them"""


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
    """A network by direction: the paper's environment map. Its sizes are not in the paper; these keep it smooth."""

    levels: int = 4
    """frequencies of the encoded direction"""
    layers: int = 3
    """hidden layers"""
    width: int = 64
    """hidden units"""


FieldConfig = GridFieldConfig | MlpFieldConfig
BackgroundConfig = SolidBackground | RandomBackground | LearnedBackground


@dataclass(frozen=True)
class BlobConfig:
    """The matter a run begins with, in the middle."""

    height: float = 5.0
    """in the middle"""
    width: float = 0.2
    """standard deviation, world units"""
    on: Literal["logit", "density"] = "logit"
    """added before the activation, or after it (mlp field only)"""


@dataclass(frozen=True)
class ProposalConfig:
    """The network that says where rays are cut. Sizes are not in the paper; these cost less than the field."""

    rounds: tuple[int, ...] = ()
    """bins per ray of each round of proposals, before those of --render.samples; none: even bins, no network"""
    layers: int = 2
    """hidden layers"""
    width: int = 64
    """hidden units"""
    levels: int = 8
    """frequencies of the encoding"""
    dilation: Span = (0.5, 0.0025)
    """how much further weights reach: in expected bins, and as a share of the ray (mip-NeRF 360's)"""
    slope: float = 10.0
    """how soon in the run weights count in full (mip-NeRF 360's)"""


@dataclass(frozen=True)
class OccupancyConfig:
    """The memory of empty space."""

    cells: int = 64
    """per side"""
    threshold: float = 0.05
    """density above which a cell counts as occupied"""
    every: int = 16
    """steps between refreshes; 0: nothing is remembered, all of the ball is searched"""
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
    field: FieldConfig = GridFieldConfig()
    """chosen with --field"""
    activation: Literal["exp", "softplus"] = "exp"
    """from logit to density"""
    density_bias: float = 0.0
    """added to the logit: empty space begins at activation(shift)"""
    exp_clamp: float = 15.0
    """shifted logit above which exp goes on as a straight line"""
    blob: BlobConfig = BlobConfig()
    variance: Schedule = Ramp(5e-2, 2e-3, 0.0, 5000 / 15000)
    """blur of the places that the mlp field and the proposals see, world units squared"""
    proposal: ProposalConfig = ProposalConfig()
    background: BackgroundConfig = RandomBackground()
    """chosen with --background"""
    occupancy: OccupancyConfig = OccupancyConfig()
