"""Imports go downward only, and the halves do not know each other (docs/design.md). A layer is a place."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "dreamfusion"

# From the bottom to the top. What stands on one floor may import each other, but for those `APART`.
FLOORS = (
    {
        *("errors", "version", "files", "json_text", "memory", "places", "progress", "quiet", "records", "runtime"),
        *("geometry", "schedules", "vocabulary", "words"),
    },
    {"config"},
    {"cameras", "lights"},
    {"nerf", "surface", "diffusion", "contrastive"},
    {"build", "loop", "objectives", "own_parts", "checkpoint", "distributed", "shampoo", "vitals", "health", "healing"},
    {
        *(
            "generate",
            "stepping",
            "facts",
            "refine",
            "candidates",
            "runs",
            "claims",
            "provenance",
            "video",
            "mesh",
            "viewer",
            "compose",
            "scenes",
        ),
        "embedded",
        *("batch", "evaluate", "studio"),
    },
    {"cli", "__main__", "__init__"},
)
APART = {"nerf", "diffusion", "contrastive"}


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
    assert not {name for name in found if name.split(".")[0] in ("training", "benchmarks")}, "not in the wheel"
    inside = {name.removeprefix("dreamfusion").lstrip(".") for name in found if name.split(".")[0] == "dreamfusion"}
    return {_module_of(name) for name in inside}


def _module_of(name: str) -> str:
    """The longest beginning of a dotted name that is a module; names of the package itself come from `__init__`."""
    parts = name.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in MODULES), "__init__")


def floor(module: str) -> int:
    return next(height for height, names in enumerate(FLOORS) if module.split(".")[0] in names)


def may_import(module: str, other: str) -> bool:
    top, there = module.split(".")[0], other.split(".")[0]
    if other == "__init__":
        return floor(module) == floor("cli")  # its version number
    if top == there:
        return True
    return floor(other) <= floor(module) and not {top, there} <= APART


def test_every_place_is_on_a_floor():
    assert {name.split(".")[0] for name in MODULES} <= set().union(*FLOORS)


def test_imports_go_downward():
    arrows = ((module, other) for module, path in MODULES.items() for other in imported(path))
    assert [f"{module} imports {other}" for module, other in arrows if not may_import(module, other)] == []


def test_no_module_imports_itself_through_others():
    graph = {module: imported(path) - {module, "__init__"} for module, path in MODULES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_the_rules_can_be_broken():
    assert not may_import("nerf.render", "diffusion.priors.protocol")
    assert not may_import("diffusion.guidance", "nerf.scene")
    assert not may_import("contrastive.toybox", "nerf.render")
    assert not may_import("contrastive.pretrained", "diffusion.priors.locate")
    assert not may_import("config.run", "nerf.render")
    assert not may_import("loop", "runs")
    assert may_import("loop", "nerf.render")
    assert may_import("loop", "diffusion.guidance")
