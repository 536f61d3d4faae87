"""What a configuration must satisfy before any work starts. Parts check what only they can know."""

import math
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import reduce
from itertools import pairwise
from typing import Any

from dreamfusion.config import (
    BackgroundConfig,
    Colour,
    Config,
    GridFieldConfig,
    LearnedBackground,
    MlpFieldConfig,
    RandomBackground,
    SceneConfig,
    SolidBackground,
)
from dreamfusion.config.distill import CsdLaw, IsmLaw, NfsdLaw, SdsLaw, VsdLaw
from dreamfusion.config.serialise import require_text
from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant, Schedule

LONGEST_PROMPT = 300
"""characters; text encoders read some 77 tokens"""

LARGEST_SCENE = 2**31
"""numbers: 8 GB, and four times as much while it learns"""

_LEAST: dict[str, float] = {
    "checkpoint_steps": 1, "preview_seconds": 0, "scene.occupancy.every": 0, "scene.occupancy.threshold": 0,
    "scene.blob.height": 0, "render.weight_threshold": 0, "render.colour_threshold": 0,
    "distill.grad_clip": 0, "perp_neg": 0, "optimise.grid": 0, "optimise.network": 0, "optimise.background": 0,
    "camera.look_at_jitter": 0, "camera.up_jitter": 0, "scene.proposal.slope": 1, "optimise.shampoo.exponent": 1,
    "optimise.shampoo.every": 1,
}  # fmt: skip
_BETWEEN: dict[str, tuple[float, float]] = {
    "steps": (1, 10**9), "views": (1, 4096), "threads": (0, 4096), "memory.size": (0, 8192),
    "scene.occupancy.cells": (8, 512), "scene.occupancy.parts": (1, 4096), "scene.occupancy.margin": (0, 64),
    "scene.proposal.layers": (1, 64), "scene.proposal.width": (1, 8192), "scene.proposal.levels": (1, 64),
    "render.samples": (2, 4096), "render.chunk": (1, 2**31), "render.checkpoint_rays": (0, 2**31),
    "distill.noise_samples": (1, 1024), "optimise.shampoo.block": (1, 8192), "output.samples": (2, 4096),
    "output.frames": (2, 10_000),
    "seed": (0, 2**63 - 1), "memory.latent_until": (0, 1), "size": (8, 1024), "scene.radius": (0.01, 100),
    "scene.blob.width": (1e-3, 100), "scene.occupancy.decay": (0, 1),
    "distill.guidance_scale": (0, 1000), "distill.guidance_rescale": (0, 1),
    "output.texture_size": (64, 4096), "output.mesh_resolution": (8, 1024),
    "output.frame_size": (16, 4096), "output.sheet_size": (16, 4096),
}  # fmt: skip


def validate(config: Config) -> None:
    """Raise UserError, naming the option, for values with which no run can work."""
    if not any(map(str.isalnum, config.prompt)):
        raise UserError('the prompt is empty: say what to make, for example dreamfusion "a hamburger"')
    for name in ("prompt", "negative"):
        require_text(f"the {name}", getattr(config, name))
        if len(getattr(config, name)) > LONGEST_PROMPT:
            raise UserError(f"the {name} is longer than {LONGEST_PROMPT} characters: say it in fewer words")
    _validate_numbers(config)
    _validate_noise(config)
    _validate_law(config)
    _validate_size(config.scene)
    if config.perp_neg and not config.view_words:
        raise UserError("--perp-neg steers away from view words: leave --no-view-words away, or --perp-neg")
    require_device_name(config.device)
    _validate_background(config.scene.background)
    _validate_paper_parts(config.scene)
    match config.scene.field:
        case GridFieldConfig() as grid:
            _validate_grid(grid)
        case MlpFieldConfig() as mlp:
            for name, most in (("levels", 64), ("blocks", 256), ("width", 8192)):
                require(f"scene.field.{name}", getattr(mlp, name), 1, most)
            if config.regularise.smoothness != Constant(0.0):
                raise UserError("--regularise.smoothness must be 0 with --field mlp: only grids have neighbours")


def require(option: str, value: int | float, low: int | float, high: int | float = math.inf) -> None:
    """Raise UserError, naming the option, unless `value` is finite and in [low, high]."""
    if math.isfinite(value) and low <= value <= high:
        return
    wanted = f"be at least {low}" if high == math.inf else f"lie between {low} and {high}"
    raise UserError(f"--{_dashed(option)} must {wanted}, not {value}")


def require_frame_size(option: str, size: int) -> None:
    """Raise UserError, naming the option, for a frame that no video can have."""
    require(option, size, *_BETWEEN["output.frame_size"])
    if size % 2:
        raise UserError(f"--{_dashed(option)} must be even, as videos want it, not {size}")


def require_device_name(name: str) -> None:
    """Raise UserError for what names no device; whether it is there only `build.device_of` knows."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9]\d?))?", name):
        raise UserError(f"--device must be auto, cpu, cuda, cuda:N or mps, not {name!r}")


def _validate_numbers(config: Config) -> None:
    for name, value in _floats("", config):
        if not math.isfinite(value):
            raise UserError(f"--{_dashed(name)} must be a finite number, not {value}")
    for name, least in _LEAST.items():
        require(name, _get(config, name), least)
    for name, (low, high) in _BETWEEN.items():
        require(name, _get(config, name), low, high)
    for name in ("frame_size", "sheet_size"):
        require_frame_size(f"output.{name}", getattr(config.output, name))
    adam = config.optimise
    if not all(0 <= beta < 1 for beta in adam.betas):
        raise UserError(f"--optimise.betas must be at least 0 and below 1, not {adam.betas}")
    if adam.epsilon <= 0:
        raise UserError(f"--optimise.epsilon must be above 0, not {adam.epsilon}")


def _validate_paper_parts(scene: SceneConfig) -> None:
    """What the networks on blurred places need, if there are any."""
    for bins in scene.proposal.rounds:
        require("scene.proposal.rounds", bins, 2, 4096)
    for reach in scene.proposal.dilation:
        require("scene.proposal.dilation", reach, 0)
    if not all(scene.variance(part / 100) > 0 for part in range(101)):
        raise UserError("--scene.variance must be above 0 all along the run")
    if scene.blob.on == "density" and isinstance(scene.field, GridFieldConfig):
        raise UserError("--scene.blob.on must be logit with --field grid, whose first grid holds the blob")


def _floats(option: str, value: Any) -> Iterator[tuple[str, float]]:
    """Every number with a point in a configuration, with its option; a schedule is one option."""
    if isinstance(value, float):
        yield option, value
    elif isinstance(value, tuple):
        for item in value:
            yield from _floats(option, item)
    elif is_dataclass(value):
        for field in fields(value):
            inner = option if isinstance(value, Schedule) else f"{option}.{field.name}".lstrip(".")
            yield from _floats(inner, getattr(value, field.name))


def _validate_background(background: BackgroundConfig) -> None:
    match background:
        case SolidBackground(colour):
            _require_colour("scene.background.colour", colour)
        case RandomBackground(low, high):
            _require_colour("scene.background.low", low)
            _require_colour("scene.background.high", high)
        case LearnedBackground():
            for name, most in (("levels", 64), ("layers", 64), ("width", 8192)):
                require(f"scene.background.{name}", getattr(background, name), 1, most)


def _require_colour(option: str, colour: Colour) -> None:
    for value in colour:
        require(option, value, 0, 1)


def _validate_noise(config: Config) -> None:
    """Levels are asked for at every step, and should not be refused half-way."""
    low, high = config.distill.t_min, config.distill.t_max
    if not all(0 <= low(share) <= high(share) <= 1 for share in (part / 100 for part in range(101))):
        raise UserError("--distill.t-min and --distill.t-max must satisfy 0 <= t-min <= t-max <= 1 all along the run")


def _validate_law(config: Config) -> None:
    match config.distill.law:
        case NfsdLaw(clean_below):
            require("distill.law.clean-below", clean_below, 0, 1)
        case IsmLaw(inversions, gap, start):
            require("distill.law.inversions", inversions, 1, 1000)
            require("distill.law.gap", gap, 0.001, 0.999)
            require("distill.law.start", start, 0, 0.999)
        case VsdLaw(rank, rate):
            require("distill.law.rank", rank, 1, 4096)
            require("distill.law.rate", rate, 0)
            if config.memory.offload:
                raise UserError("--distill vsd needs the prior's weights on the way back: leave out --memory.offload")
        case SdsLaw() | CsdLaw():
            pass


def _validate_grid(grid: GridFieldConfig) -> None:
    for name, cells in (("cells", grid.cells), ("colour-cells", grid.colour_cells)):
        if not cells or min(cells) < 1 or any(fine % coarse for coarse, fine in pairwise(cells)):
            raise UserError(f"--scene.field.{name} must be positive and each a multiple of the one before, not {cells}")
    if not 0 < grid.detail <= 1:
        raise UserError(f"--scene.field.detail must be above 0 and at most 1, not {grid.detail}")
    if min(grid.features, grid.hidden) < 1:
        raise UserError("--scene.field.features and --scene.field.hidden must be at least 1")


def _validate_size(scene: SceneConfig) -> None:
    """Refuse what no memory holds, before it is asked for."""
    match scene.field:
        case GridFieldConfig(cells, _, colour_cells, features, hidden):
            grids = sum((side + 1) ** 3 for side in cells) + features * sum((side + 1) ** 3 for side in colour_cells)
            numbers = grids + hidden * (features * len(colour_cells) + 3)
        case MlpFieldConfig(levels, blocks, width):
            numbers = 2 * blocks * width**2 + 6 * levels * width
    if numbers > LARGEST_SCENE:
        raise UserError(f"--scene.field has {numbers:.1e} numbers, more than {LARGEST_SCENE:.1e}: choose smaller sizes")


def _get(config: Any, name: str) -> int | float:
    return reduce(getattr, name.split("."), config)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
