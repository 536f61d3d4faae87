"""Imports go downward only, and the two halves do not know each other (docs/design.md)."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "dreamfusion"

GROUND, OPTICS, SHAPE, WORDS, LOOP, PRODUCT, DOOR = "ground", "optics", "3D", "2D", "loop", "product", "door"
HEIGHT = {GROUND: 0, OPTICS: 1, SHAPE: 2, WORDS: 2, LOOP: 3, PRODUCT: 4, DOOR: 5}

# Every module, or package with all that is in it.
LAYER = {
    "errors": GROUND,
    "geometry": GROUND,
    "json_text": GROUND,
    "permissions": GROUND,
    "reading": GROUND,
    "say": GROUND,
    "schedules": GROUND,
    "version": GROUND,
    "cameras": OPTICS,
    "lights": OPTICS,
    "rays": OPTICS,
    "stepfun": OPTICS,
    "background": SHAPE,
    "compositing": SHAPE,
    "fields": SHAPE,
    "marching": SHAPE,
    "occupancy": SHAPE,
    "regularise": SHAPE,
    "proposals": SHAPE,
    "recompute": SHAPE,
    "render": SHAPE,
    "samples": SHAPE,
    "scene": SHAPE,
    "shading": SHAPE,
    "distill": WORDS,
    "guidance": WORDS,
    "priors": WORDS,
    "prompts": WORDS,
    "views": WORDS,
    "runtime": GROUND,
    "build": LOOP,
    "checkpoint": LOOP,
    "config": LOOP,
    "config_check": LOOP,
    "config_distill": LOOP,
    "config_scene": LOOP,
    "config_text": LOOP,
    "config_views": LOOP,
    "memory": LOOP,
    "optimise": LOOP,
    "presets": LOOP,
    "processes": LOOP,
    "shampoo": LOOP,
    "claims": PRODUCT,
    "compose": PRODUCT,
    "embedded": PRODUCT,
    "evaluate": PRODUCT,
    "generate": PRODUCT,
    "gltf": PRODUCT,
    "mesh": PRODUCT,
    "provenance": PRODUCT,
    "runs": PRODUCT,
    "video": PRODUCT,
    "viewer": PRODUCT,
    "__init__": DOOR,
    "__main__": DOOR,
    "arguments": DOOR,
    "cli": DOOR,
    "cli_evaluate": DOOR,
    "cli_prior": DOOR,
    "cli_products": DOOR,
    "doctor": DOOR,
    "interrupt": DOOR,
    "live": DOOR,
    "streams": DOOR,
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports anywhere in it, as dotted names below the package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                found |= {name.name for name in names}
            case ast.ImportFrom(module=module, names=names, level=0) if module:
                found |= {f"{module}.{name.name}" for name in names}
            case ast.ImportFrom():
                pytest.fail(f"{path}: relative import")
    inside = {name.removeprefix("dreamfusion").lstrip(".") for name in found if name.split(".")[0] == "dreamfusion"}
    return {_module_of(name) for name in inside}


def _module_of(name: str) -> str:
    """The longest beginning of a dotted name that is a module; names of the package itself come from `__init__`."""
    parts = name.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in MODULES), "__init__")


def layer(module: str) -> str:
    return LAYER[module.split(".")[0]]


def may_import(module: str, other: str) -> bool:
    if other == "__init__":
        return layer(module) == DOOR  # its version number
    here, there = layer(module), layer(other)
    return here == there or HEIGHT[there] < HEIGHT[here]


def test_every_module_has_a_layer():
    assert {name.split(".")[0] for name in MODULES} == set(LAYER)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downward(module):
    upward = {other for other in imported(MODULES[module]) if not may_import(module, other)}
    assert upward == set()


def test_no_module_imports_itself_through_others():
    graph = {module: imported(path) - {module, "__init__"} for module, path in MODULES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_the_rules_can_be_broken():
    assert not may_import("render", "priors.protocol")
    assert not may_import("guidance", "scene")
    assert not may_import("rays", "render")
    assert not may_import("optimise", "runs")
    assert may_import("optimise", "render")
    assert may_import("optimise", "guidance")
