"""What a configuration must satisfy before any work starts: the bounds of its fields, and what several share."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MultipleOf, Predicate

from dreamfusion.config import (
    ClipMeshObjective,
    Config,
    DistillationObjective,
    FieldConfig,
    FourierFieldConfig,
    GridFieldConfig,
    JointFieldConfig,
    LearnedBackground,
    MeshConfig,
    MlpFieldConfig,
    SceneConfig,
    SphereFieldConfig,
)
from dreamfusion.config.distill import NfsdLaw, VsdLaw
from dreamfusion.config.serialise import require_text
from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant, Schedule

LONGEST_PROMPT = 300
"""characters; text encoders read some 77 tokens"""

SMALLEST_VIEW = 8
"""pixels per side"""

FINEST_CELLS = 512
"""per side, to which a grid can grow"""

LARGEST_SCENE = 2**31
"""numbers: 8 GB, and four times as much while it learns"""


def validate(config: Config) -> None:
    """Raise UserError, naming the option, for values with which no run can work."""
    require_words(config.prompt, config.negative)
    require_bounds(config)
    require_device_name(config.device)
    _validate_noise(config)
    _validate_size(config.scene)
    _validate_growth(config)
    if isinstance(config.distill.law, VsdLaw) and config.memory.offload:
        raise UserError("--distill vsd needs the prior's weights on the way back: leave out --memory.offload")
    if not isinstance(config.objective, DistillationObjective):
        _validate_similarity(config)
    if config.negative and config.distill.guidance_scale == 1 and not isinstance(config.distill.law, NfsdLaw):
        raise UserError(
            "at a guidance scale of 1 a --negative prompt changes nothing: give --guidance-scale 2, or more"
        )
    if config.perp_neg and not config.view_words:
        raise UserError("--perp-neg steers away from view words: leave --no-view-words away, or --perp-neg")
    match config.scene.field:
        case GridFieldConfig() if config.scene.blob.on == "density":
            raise UserError("--scene.blob.on must be logit with --field grid, whose first grid holds the blob")
        case MlpFieldConfig() | FourierFieldConfig() if config.regularise.smoothness != Constant(0.0):
            raise UserError("--regularise.smoothness must be 0 without --field grid: only grids have neighbours")
        case JointFieldConfig(_, things, places) if {place.thing for place in places} != {*range(things)}:
            raise UserError("--scene.field.places must name every one of its things, and no others")


def _validate_similarity(config: Config) -> None:
    """What objectives without a diffusion model cannot do."""
    unused = {
        "--distill vsd": isinstance(config.distill.law, VsdLaw),
        "--negative": bool(config.negative),
        "--perp-neg": config.perp_neg > 0,
        "--candidates": config.candidates > 1,
        "--embeddings": bool(config.memory.embeddings),
    }
    if given := [option for option, there in unused.items() if there]:
        raise UserError(f"{given[0]} needs the diffusion prior of --objective distillation: leave it away")
    if isinstance(config.objective, ClipMeshObjective) and not isinstance(config.scene.field, SphereFieldConfig):
        raise UserError("--objective clip-mesh moves the vertices of a mesh: give --field sphere")
    if isinstance(config.scene.background, LearnedBackground):
        raise UserError("this --objective puts backgrounds of its own behind the object: give --background solid")


def require_words(prompt: str, negative: str) -> None:
    """Raise UserError for a prompt, or a negative one, that no prior could read."""
    if not any(map(str.isalnum, prompt)):
        raise UserError('the prompt is empty: say what to make, for example dreamfusion "a hamburger"')
    for name, text in (("prompt", prompt), ("negative", negative)):
        require_text(f"the {name}", text)
        if len(text) > LONGEST_PROMPT:
            raise UserError(f"the {name} is longer than {LONGEST_PROMPT} characters: say it in fewer words")


def require_bounds(record: Any, option: str = "") -> None:
    """Raise UserError, naming the option, for a value of a record that breaks a bound of its field (`config.bounds`).

    Records in records are walked, numbers must be finite, and what holds for a number holds for each of a tuple's, and
    for a schedule all along the run.
    """
    for name, hint in _hints(type(record)).items():
        _walk(f"{option}.{name}".lstrip("."), hint, getattr(record, name))


def require_device_name(name: str) -> None:
    """Raise UserError for what names no device; whether it is there only `build.device_of` knows."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9]\d?))?", name):
        raise UserError(f"--device must be auto, cpu, cuda, cuda:N or mps, not {name!r}")


def _validate_size(scene: SceneConfig) -> None:
    """Refuse what no memory holds, before it is asked for."""
    numbers = _numbers(scene.field)
    if numbers > LARGEST_SCENE:
        raise UserError(f"--scene.field has {numbers:.1e} numbers, more than {LARGEST_SCENE:.1e}: choose smaller sizes")


def _numbers(field: FieldConfig) -> int:
    """About how many numbers a field has."""
    match field:
        case GridFieldConfig(cells, _, colour_cells, features, hidden, _):
            grids = sum((side + 1) ** 3 for side in cells) + features * sum((side + 1) ** 3 for side in colour_cells)
            return grids + hidden * (features * len(colour_cells) + 3)
        case MlpFieldConfig(levels, blocks, width):
            return 2 * blocks * width**2 + 6 * levels * width
        case FourierFieldConfig(directions, _, blocks, width, inner):
            return 2 * blocks * width * inner + 2 * (directions + 3) * width
        case SphereFieldConfig(parts, _, texture_size):
            return 30 * parts**2 + 5 * texture_size**2
        case MeshConfig(vertices, faces, told=told):
            return 3 * vertices + 15 * faces + 3 * told.texture_size**2
        case JointFieldConfig(each, things):
            return things * _numbers(each)


def _validate_growth(config: Config) -> None:
    """Sizes and cells that are reached along the run."""
    smallest = min(config.size_at(share / 100) for share in range(101))
    if smallest < SMALLEST_VIEW:
        raise UserError(
            f"--size-schedule makes views of {smallest} pixels, less than {SMALLEST_VIEW}: give a larger --size"
        )
    match config.scene.field:
        case GridFieldConfig(cells=cells, grow=grow) if grow:
            finest = cells[-1] << len(grow)
            if finest > FINEST_CELLS or cells[-1] % 2:
                raise UserError(
                    f"--scene.field.grow makes {finest} cells per side of {cells[-1]}: give an even number of"
                    f" --scene.field.cells, and so few fractions that it is at most {FINEST_CELLS}"
                )
            if config.optimise.method != "adam":
                raise UserError("--scene.field.grow needs --optimise.method adam, which balances each number alone")


_BOUNDS: dict[type, tuple[Callable[[Any, Any], bool], str]] = {
    Ge: (lambda bound, value: value >= bound.ge, "be at least {0.ge}"),
    Gt: (lambda bound, value: value > bound.gt, "be above {0.gt}"),
    Le: (lambda bound, value: value <= bound.le, "be at most {0.le}"),
    Lt: (lambda bound, value: value < bound.lt, "be below {0.lt}"),
    MultipleOf: (lambda bound, value: value % bound.multiple_of == 0, "be a multiple of {0.multiple_of}"),
    Predicate: (lambda bound, value: bound.func(value), "{0.func.__doc__}"),
}
"""Whether a value keeps a bound, and the bound in words"""


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _walk(option: str, hint: Any, value: Any) -> None:
    """`require_bounds` for one value and the annotation of its field."""
    hint, *bounds = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if isinstance(value, Schedule):
        for field in fields(value):
            _walk(option, field.type, getattr(value, field.name))
        for share in range(101):
            _require(option, bounds, value(share / 100))
    elif is_dataclass(value):
        require_bounds(value, option)
    elif isinstance(value, tuple):
        kinds = get_args(hint)
        for kind, item in zip(kinds[:1] * len(value) if Ellipsis in kinds else kinds, value, strict=True):
            _walk(option, kind, item)
        _require(option, bounds, value)
    elif value is not None:
        optional = get_origin(hint) in (Union, UnionType)
        _require(option, get_args(get_args(hint)[0])[1:] if optional else bounds, value)


def _require(option: str, bounds: Iterable[Any], value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{_dashed(option)} must be a finite number, not {value}")
    single = [one for bound in bounds for one in (bound if isinstance(bound, GroupedMetadata) else (bound,))]
    known = [bound for bound in single if type(bound) in _BOUNDS]
    if not all(_BOUNDS[type(bound)][0](bound, value) for bound in known):
        wanted = " and ".join(_BOUNDS[type(bound)][1].format(bound) for bound in known).replace(" and be ", " and ")
        raise UserError(f"--{_dashed(option)} must {wanted}, not {value}")


def _validate_noise(config: Config) -> None:
    """Levels are asked for at every step, and should not be refused half-way."""
    low, high = config.distill.t_min, config.distill.t_max
    if not all(low(share / 100) <= high(share / 100) for share in range(101)):
        raise UserError("--distill.t-min must not be above --distill.t-max at any time of the run")


def _dashed(name: str) -> str:
    return name.replace("_", "-")
