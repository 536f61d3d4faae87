"""One declaration per option: its default is the same on the command line, in Python, and in the parts that use it."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass, make_dataclass, replace
from importlib import import_module
from inspect import Parameter, getmembers, isclass, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import pytest
from annotated_types import Ge, Interval, MultipleOf, Predicate

from dreamfusion import build
from dreamfusion.cli import arguments
from dreamfusion.config import Config
from dreamfusion.config.check import require_bounds
from dreamfusion.config.kinds import BACKGROUNDS, FIELDS, LAWS
from dreamfusion.config.presets import PRESETS
from dreamfusion.errors import UserError
from dreamfusion.schedules import Schedule

SRC = Path(build.__file__).parent
PARTS = ("nerf", "diffusion/distill", "cameras.py", "lights.py", "shampoo.py")


def records(kind: type) -> Iterator[type]:
    """A record's class and those of all records that may stand in it, each member of a union included."""
    yield kind
    for hint in get_type_hints(kind).values():
        for inner in get_args(hint) or (hint,):
            if is_dataclass(inner) and inner not in get_args(Schedule):
                yield from records(inner)


RECORDS = list(dict.fromkeys(records(Config)))


def test_all_records_are_walked():
    assert {"Config", "GridFieldConfig", "MlpFieldConfig", "LearnedBackground", "ShampooConfig", "VsdLaw"} <= {
        kind.__name__ for kind in RECORDS
    }
    assert len(RECORDS) >= 23


@pytest.mark.parametrize("name", PRESETS)
def test_the_command_line_has_the_defaults_of_the_preset(name):
    assert arguments.read_generate(["a", "chair", "--preset", name]).settings == replace(
        PRESETS[name], prompt="a chair"
    )


CHOICES = [("field", FIELDS), ("background", BACKGROUNDS), ("distill", LAWS)]


@pytest.mark.parametrize(("option", "value"), [(name, value) for name, kinds in CHOICES for value in kinds])
def test_the_command_line_has_the_defaults_of_python(option, value):
    settings = arguments.read(
        arguments.Generate, "generate", [], arguments.Generate(replace(Config(), prompt="a chair"))
    ).settings
    assert settings == Config(prompt="a chair")
    settings = arguments.read_generate(["a", "chair", f"--{option}", value, "--preset", "if"]).settings
    kind = dict(CHOICES)[option][value]
    chosen = settings.distill.law if option == "distill" else getattr(settings.scene, option)
    of_preset = PRESETS["if"].distill.law if option == "distill" else getattr(PRESETS["if"].scene, option)
    assert chosen == (of_preset if isinstance(of_preset, kind) else kind())


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_the_defaults_keep_their_bounds(kind):
    require_bounds(kind())


def parts() -> Iterator[type]:
    """The classes of the two halves, the samplers and the optimiser."""
    paths = [path for part in PARTS for path in ([SRC / part] if part.endswith(".py") else (SRC / part).rglob("*.py"))]
    for path in paths:
        name = ".".join(("dreamfusion", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__")
        yield from (kind for _, kind in getmembers(import_module(name), isclass) if kind.__module__ == name)


def defaults(kind: type) -> dict[str, Any]:
    found = signature(kind).parameters.values() if not getattr(kind, "_is_protocol", False) else ()
    return {entry.name: entry.default for entry in found if entry.default is not Parameter.empty}


OTHERS = {"DreamTime.spread", "Softplus.scale"}
"""What only shares its name with an option"""


def test_no_part_declares_an_option_again_with_another_default():
    assert {"RenderOptions", "OrbitSampler", "LightSampler", "Ism", "Shampoo"} <= {kind.__name__ for kind in parts()}
    of_options: dict[str, list[Any]] = {}
    for kind in RECORDS:
        for field in fields(kind):
            if field.default is not MISSING:
                of_options.setdefault(field.name, []).append(field.default)
    drifted = [
        f"{kind.__name__}.{name} is {default}, not {of_options[name]}"
        for kind in set(parts())
        for name, default in defaults(kind).items()
        if name in of_options and default not in of_options[name] and f"{kind.__name__}.{name}" not in OTHERS
        if isinstance(default, type(of_options[name][0]))  # not where None stands for 0, or an object for its name
    ]
    assert drifted == []


BROKEN = [
    (Annotated[int, Ge(1)], 0, "be at least 1, not 0"),
    (Annotated[float, Interval(ge=0, lt=1)], 1.0, "be at least 0 and below 1, not 1.0"),
    (Annotated[int, MultipleOf(2)], 3, "be a multiple of 2"),
    (Annotated[int, Ge(1)] | None, 0, "be at least 1"),
    (tuple[Annotated[float, Ge(0)], ...], (1.0, -1.0), "be at least 0, not -1.0"),
    (float, float("nan"), "be a finite number"),
]


@pytest.mark.parametrize(("hint", "value", "words"), BROKEN, ids=str)
def test_every_kind_of_bound_is_held_and_named(hint, value, words):
    record = make_dataclass("Record", [("some_option", hint)])
    with pytest.raises(UserError, match=f"^--some-option must {words}"):
        require_bounds(record(value))


def test_predicates_say_what_they_want():
    for kind in RECORDS:
        for hint in get_type_hints(kind, include_extras=True).values():
            for bound in get_args(hint)[1:]:
                assert not isinstance(bound, Predicate) or bound.func.__doc__
