"""The configuration of the scene: field, background, proposals, occupancy. See `config`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, MultipleOf

from dreamfusion.config.bounds import Amount, Cells, Colour, Count, Fraction, Layers, Levels, Memory, Places, Width
from dreamfusion.config.refine import RefineConfig
from dreamfusion.schedules import Ramp, Schedule


@dataclass(frozen=True)
class GridFieldConfig:
    """Grid field: nested dense grids, with a small network for the colours."""

    cells: Cells = (16, 32, 64)
    """cells per side of the density grids, coarse to fine, each a multiple of the one before"""
    detail: Annotated[float, Interval(gt=0, le=1)] = 0.5
    """factor of each finer density grid relative to the one before"""
    colour_cells: Cells = (16, 64)
    """cells per side of the colour grids"""
    features: Count = 4
    """channels per vertex of a colour grid"""
    hidden: Count = 16
    """hidden units of the colour network"""
    grow: Places = ()
    """fractions of the run at which the finest density and colour cells are halved, near surfaces only"""


@dataclass(frozen=True)
class MlpFieldConfig:
    """MLP field, the paper's: a residual network on integrated positional encodings."""

    levels: Levels = 8
    """octaves of the positional encoding"""
    blocks: Annotated[int, Interval(ge=1, le=256)] = 5
    """residual blocks"""
    width: Width = 128
    """hidden units per layer"""
    order: Literal["norm-first", "norm-last"] = "norm-first"
    """layer norm of a block's input (the residual path stays linear), or of its sum; the paper says "between" blocks"""


@dataclass(frozen=True)
class FourierFieldConfig:
    """Fourier field, that of Dream Fields: a residual network on Fourier features of random directions."""

    directions: Annotated[int, Interval(ge=1, le=8192)] = 128
    """random directions, beside the three axes"""
    levels: Levels = 8
    """octaves of their frequencies"""
    blocks: Annotated[int, Interval(ge=1, le=256)] = 4
    """residual blocks"""
    width: Width = 128
    """hidden units per layer"""
    inner: Width = 256
    """hidden units inside a block"""


@dataclass(frozen=True)
class MeshConfig:
    """A closed mesh with a texture in place of a field: the second stage's. Its sizes are recorded when it begins."""

    vertices: Count = 642
    """vertices; neighbouring faces share them"""
    faces: Annotated[int, Ge(4), MultipleOf(2)] = 1280
    """triangles"""
    after: Annotated[int, Ge(0)] = 0
    """steps of the first stage, whose surface it began as"""
    told: RefineConfig = RefineConfig()
    """what the second stage was told"""


@dataclass(frozen=True)
class SphereFieldConfig:
    """Sphere, that of CLIP-Mesh: the limit surface of a control mesh, with a texture and a normal map."""

    parts: Annotated[int, Interval(ge=1, le=64)] = 8
    """parts of each edge of an icosahedron: 8 make 642 vertices and 1,280 triangles"""
    size: Annotated[float, Interval(gt=0, le=100)] = 1.0
    """radius of the sphere that it begins as, world units"""
    texture_size: Annotated[int, Interval(ge=64, le=4096)] = 512
    """size of the texture and of the normal map, pixels per side"""


@dataclass(frozen=True)
class SolidBackground:
    """Solid background: one colour."""

    colour: Colour = (1.0, 1.0, 1.0)
    """red, green, blue, each in 0..1"""


@dataclass(frozen=True)
class RandomBackground:
    """Random background: a new solid colour per view, uniform between two colours."""

    low: Colour = (0.0, 0.0, 0.0)
    """lower bound of red, green, blue, each in 0..1"""
    high: Colour = (1.0, 1.0, 1.0)
    """upper bound of red, green, blue, each in 0..1"""
    grey: bool = False
    """one random number for all three channels: greys only"""


@dataclass(frozen=True)
class LearnedBackground:
    """Learned background: an MLP of the direction, the paper's environment map. The paper gives no sizes."""

    levels: Levels = 4
    """octaves of the direction's positional encoding"""
    layers: Layers = 3
    """hidden layers"""
    width: Width = 64
    """hidden units per layer"""


@dataclass(frozen=True)
class PlaceConfig:
    """Where a thing is in a scene of several."""

    thing: Annotated[int, Ge(0)] = 0
    """number of its field"""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """of the field's origin, world units"""
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """degrees about the x, then the y, then the z axis of the scene, through the field's origin"""
    scale: Annotated[float, Gt(0)] = 1.0
    """of the field's lengths"""


@dataclass(frozen=True)
class JointFieldConfig:
    """Fields of several things, each at its places: the joint stage's. Its things are recorded when it begins."""

    each: GridFieldConfig | MlpFieldConfig | FourierFieldConfig = GridFieldConfig()
    """kind of all fields"""
    things: Count = 1
    """fields; a thing that is there several times has one"""
    places: tuple[PlaceConfig, ...] = (PlaceConfig(),)
    """where they are"""


FieldConfig = GridFieldConfig | MlpFieldConfig | FourierFieldConfig | SphereFieldConfig | MeshConfig | JointFieldConfig
BackgroundConfig = SolidBackground | RandomBackground | LearnedBackground


@dataclass(frozen=True)
class BlobConfig:
    """Initial density: a Gaussian at the centre."""

    height: Amount = 5.0
    """value added at the centre: to the logit, or to the density (per world unit)"""
    width: Annotated[float, Interval(ge=1e-3, le=100)] = 0.2
    """standard deviation of the Gaussian, world units"""
    on: Literal["logit", "density"] = "logit"
    """add it before the activation, or after it (mlp field only)"""


@dataclass(frozen=True)
class ProposalConfig:
    """Proposal network for the samples along a ray (mip-NeRF 360). The paper gives no sizes."""

    rounds: tuple[Annotated[int, Interval(ge=2, le=4096)], ...] = ()
    """intervals per ray of each proposal round, before the --render.samples; none: uniform samples, no network"""
    layers: Layers = 2
    """hidden layers"""
    width: Width = 64
    """hidden units per layer"""
    levels: Levels = 8
    """octaves of the positional encoding"""
    dilation: tuple[Amount, Amount] = (0.5, 0.0025)
    """dilation of the proposal weights: in expected intervals, and as a fraction of the ray (as mip-NeRF 360)"""
    slope: Annotated[float, Ge(1)] = 10.0
    """annealing of the proposal weights: slope of the bias curve over the run (as mip-NeRF 360)"""


@dataclass(frozen=True)
class OccupancyConfig:
    """EMA occupancy grid used to skip empty space."""

    cells: Annotated[int, Interval(ge=8, le=512)] = 64
    """cells per side"""
    threshold: Amount = 0.05
    """density per world unit above which a cell counts as occupied"""
    every: Annotated[int, Ge(0)] = 16
    """steps between updates; 0: no grid, the whole sphere is sampled"""
    parts: Annotated[int, Interval(ge=1, le=4096)] = 4
    """updates until every cell was evaluated once"""
    decay: Fraction = 0.8
    """decay per update: new value = max(decay * old, density)"""
    margin: Annotated[int, Interval(ge=0, le=64)] = 1
    """cells by which the occupied region is dilated"""


@dataclass(frozen=True)
class SceneConfig:
    """The scene: field, background, bounds."""

    radius: Annotated[float, Interval(ge=0.01, le=100)] = 1.0
    """radius of the sphere that bounds the object, world units"""
    field: FieldConfig = GridFieldConfig()
    """kind of field, chosen with --field"""
    activation: Literal["exp", "softplus"] = "exp"
    """activation from logit to density per world unit"""
    density_bias: float = 0.0
    """added to the logit before the activation: the initial density of empty space is activation(density_bias)"""
    exp_clamp: float = 15.0
    """logit above which exp continues as its tangent"""
    blob: BlobConfig = BlobConfig()
    variance: Annotated[Schedule, Gt(0)] = Ramp(5e-2, 2e-3, 0.0, 5000 / 15000)
    """variance of the Gaussians given to the mlp field and the proposals (annealed), world units squared"""
    proposal: ProposalConfig = ProposalConfig()
    background: BackgroundConfig = RandomBackground()
    """kind of background, chosen with --background"""
    occupancy: OccupancyConfig = OccupancyConfig()
    centre_memory: Memory = 0.0
    """decay per step of the running mean of the matter's centre, about which views are taken; 0: about the origin"""
