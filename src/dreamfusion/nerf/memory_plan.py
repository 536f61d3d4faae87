"""How much memory the 3D half of a run needs, before it begins.

How many samples a step asks depends on what it shows, so this is a model and no count: shares of all samples that were
measured on the dearest case known (a chair that is still fog, under the settings of the preset `sd`), times bytes that
follow from what each kind of sample keeps for the way back. docs/reference/performance.md compares it with runs.
"""

from dataclasses import dataclass

from dreamfusion.config import Config, FieldConfig, GridFieldConfig, MlpFieldConfig
from dreamfusion.nerf.occupancy import FINEST

RECKONED = (GridFieldConfig, MlpFieldConfig)
"""The fields whose samples and parameters are in the plan; of others only rays and empty space are"""
NUMBER = 4
"""bytes, of single precision: the 3D half knows no other"""
REMEMBERED = 4
"""a parameter, its gradient and the two moments of Adam"""
BRICKS = 0.08
"""of the vertices of a level that grows, those near surfaces: of a chair in fog 0.08 to 0.09, of a bicycle 0.03"""
HIT, OCCUPIED, SEEN, COLOURED = 0.55, 0.2, 0.1, 0.035
"""Shares of all samples along all rays of a view: on rays that meet the box of occupied cells; in occupied cells, so
that their density is asked; heavy enough to learn; and heavy enough to have a colour and a normal of their own."""
TABLE = 6
"""numbers for each sample of a ray that hits: place along it, density, what compositing keeps"""
CELL = 80
"""bytes for each cell while the memory of empty space is renewed: its number, a point in it, the field there"""
QUERY = 1.3
"""most that lives during a query of a grid, relative to what is kept of it"""
ALLOCATED = 1.35
"""what the process holds relative to the tensors that live"""


@dataclass(frozen=True)
class PerSample:
    """Bytes that one sample costs, at most."""

    asked: float
    """density without gradient"""
    seen: float
    """density with gradient"""
    coloured: float
    """density, colour and normal with gradient"""


@dataclass(frozen=True)
class ScenePlan:
    """Bytes of tensors on the device that computes, at one stage of a run."""

    state: float
    """parameters, their gradients and moments, and what is merged of them once per picture"""
    step: float
    """of samples along rays, at most"""
    refresh: float
    """while the memory of empty space is renewed; no samples are there then"""

    @property
    def peak(self) -> int:
        """What the process or the device holds for it."""
        return round(ALLOCATED * (self.state + max(self.step, self.refresh)))


def plan(config: Config) -> ScenePlan:
    """That of the dearest stage of a run, mostly the last: views and cells grow."""
    return max((stage(config, percent / 100) for percent in range(101)), key=lambda found: found.peak)


def stage(config: Config, progress: float) -> ScenePlan:
    """That of the steps at this progress, in [0, 1]."""
    scene, render = config.scene, config.render
    field = scene.field
    levels = sum(progress >= at for at in field.grow) if isinstance(field, GridFieldConfig) else 0
    rays = config.views * config.size_at(progress) ** 2
    hit, asked = (HIT, OCCUPIED) if scene.occupancy.every else (1.0, 1.0)
    seen, coloured = SEEN, COLOURED
    if render.weight_threshold == 0:  # all that is asked has a colour
        seen, coloured = 0.0, asked
    if 0 < render.checkpoint_rays < HIT * rays:  # a piece is full of rays that hit
        rays, seen, coloured = render.checkpoint_rays, seen / hit, coloured / hit
        hit, asked = 1.0, asked / hit
    each = per_sample(field, levels) if isinstance(field, RECKONED) else PerSample(0.0, 0.0, 0.0)
    learning = QUERY * TABLE * NUMBER * hit + seen * each.seen + coloured * each.coloured
    cells = min(scene.occupancy.cells << levels, max(FINEST, scene.occupancy.cells)) if scene.occupancy.every else 0
    return ScenePlan(
        state=NUMBER * _numbers(field, levels),
        step=rays * render.samples * max(learning, asked * each.asked),
        refresh=float(CELL * cells**3),
    )


def per_sample(field: GridFieldConfig | MlpFieldConfig, levels: int) -> PerSample:
    """What a sample costs in a field that has grown by so many levels.

    Grids keep eight corners of a sample, a number of eight bytes and a weight of four each: those of the density grid
    and of the colour grids; of grown levels also a byte whether the corner is there, and weights for the slope along
    three axes. An MLP keeps four layers a block for the density. Its normals are the gradient of that, so that the way
    back goes through a way back: 3.7 times as much was measured, with the paper's sizes.
    """
    if isinstance(field, MlpFieldConfig):
        density = NUMBER * field.width * (4 * field.blocks + 2.5)
        return PerSample(asked=4.0 * NUMBER * field.width, seen=density, coloured=3.7 * density)
    corner, grown = 8 * (8 + 4), 8 * (8 + 4 + 1)
    grids = len({field.cells[-1], *field.colour_cells})
    colours = NUMBER * (field.features * len(field.colour_cells) + 3 * field.hidden)
    return PerSample(
        asked=10.0 * NUMBER,
        seen=QUERY * (corner + levels * grown),
        coloured=QUERY * (corner * grids + colours + levels * (2 * grown + 8 * 3 * NUMBER)),
    )


def _numbers(field: FieldConfig, levels: int) -> float:
    """Numbers that are there all the time."""
    if isinstance(field, MlpFieldConfig):
        return float(REMEMBERED * (2 * field.blocks + 1) * field.width**2)
    if not isinstance(field, GridFieldConfig):
        return 0.0
    finest = field.cells[-1]
    base = sum(_vertices(cells) for cells in field.cells) + field.features * sum(map(_vertices, field.colour_cells))
    grown = sum(BRICKS * _vertices(finest << level) * (1 + field.features) for level in range(1, levels + 1))
    merged = 10 * _vertices(finest)  # logits with their slopes, and the gradients of both
    return float(REMEMBERED * (base + grown) + merged)


def _vertices(cells: int) -> int:
    return (cells + 1) ** 3
