"""What a configuration must satisfy before any work starts. Parts check what only they can know."""

import re
from functools import reduce
from itertools import pairwise
from typing import Any

from dreamfusion.config import Config, GridField, MlpField
from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant

LONGEST_PROMPT = 300
"""characters; text encoders read some 77 tokens"""

_LEAST: dict[str, float] = {
    "steps": 1, "views": 1, "threads": 0, "checkpoint_every": 1, "preview_every": 0,
    "scene.occupancy.cells": 8, "scene.occupancy.every": 1, "scene.occupancy.parts": 1,
    "scene.occupancy.margin": 0, "scene.occupancy.threshold": 0, "scene.blob.height": 0,
    "render.samples": 2, "render.chunk": 1, "render.weight_threshold": 0, "sds.draws": 1, "sds.max_norm": 0,
    "output.frames": 2, "output.mesh_resolution": 8,
    "optimise.grid": 0, "optimise.network": 0, "optimise.background": 0,
}  # fmt: skip
_BETWEEN: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1), "size": (8, 1024), "scene.radius": (0.01, 100),
    "scene.blob.width": (1e-3, 100), "scene.occupancy.decay": (0, 1),
    "sds.guidance_scale": (0, 1000), "sds.rescale": (0, 1), "optimise.beta1": (0, 1), "optimise.beta2": (0, 1),
    "output.frame_size": (16, 4096), "output.sheet_size": (16, 4096),
}  # fmt: skip


def validate(config: Config) -> None:
    """Raise UserError, naming the option, for values with which no run can work."""
    if not config.prompt.strip():
        raise UserError('the prompt is empty: say what to make, for example dreamfusion "a hamburger"')
    for name in ("prompt", "negative"):
        if len(getattr(config, name)) > LONGEST_PROMPT:
            raise UserError(f"the {name} is longer than {LONGEST_PROMPT} characters: say it in fewer words")
    _validate_numbers(config)
    _validate_noise(config)
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", config.device):
        raise UserError(f"--device must be auto, cpu, cuda, cuda:N or mps, not {config.device!r}")
    match config.scene.field:
        case GridField() as grid:
            _validate_grid(grid)
        case MlpField():
            if config.regularise.smoothness != Constant(0.0):
                raise UserError("--regularise.smoothness must be 0 with --field mlp: only grids have neighbours")


def _validate_numbers(config: Config) -> None:
    for name, least in _LEAST.items():
        value = _get(config, name)
        if not least <= value < float("inf"):
            raise UserError(f"--{_option(name)} must be at least {least}, not {value}")
    for name, (low, high) in _BETWEEN.items():
        value = _get(config, name)
        if not low <= value <= high:
            raise UserError(f"--{_option(name)} must lie between {low} and {high}, not {value}")
    for name in ("frame_size", "sheet_size"):
        if getattr(config.output, name) % 2:
            raise UserError(f"--output.{_option(name)} must be even, as videos want it")


def _validate_noise(config: Config) -> None:
    """Levels are asked for at every step, and should not be refused half-way."""
    low, high = config.sds.t_min, config.sds.t_max
    if not all(0 <= low(share) <= high(share) <= 1 for share in (part / 100 for part in range(101))):
        raise UserError("--sds.t-min and --sds.t-max must satisfy 0 <= t-min <= t-max <= 1 all along the run")


def _validate_grid(grid: GridField) -> None:
    for name, cells in (("cells", grid.cells), ("colour-cells", grid.colour_cells)):
        if not cells or min(cells) < 1 or any(fine % coarse for coarse, fine in pairwise(cells)):
            raise UserError(f"--scene.field.{name} must be positive and each a multiple of the one before, not {cells}")
    if not 0 < grid.detail <= 1:
        raise UserError(f"--scene.field.detail must be above 0 and at most 1, not {grid.detail}")
    if min(grid.features, grid.hidden) < 1:
        raise UserError("--scene.field.features and --scene.field.hidden must be at least 1")


def _get(config: Any, name: str) -> int | float:
    return reduce(getattr, name.split("."), config)


def _option(name: str) -> str:
    return name.replace("_", "-")
