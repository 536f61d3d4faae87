"""Tables of documents against the code: a row's field has its value, and the test that proves it exists."""

import ast
import re
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

from dreamfusion.config import Config
from dreamfusion.config.serialise import schedule_from_text
from dreamfusion.schedules import Schedule

ROOT = Path(__file__).parents[1]


def page(name: str) -> str:
    """A document of the reference."""
    return (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its first two lines."""
    section = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def code(cell: str) -> list[str]:
    """What stands between back-quotes."""
    return re.findall(r"`([^`]+)`", cell)


def value_at(config: Config, path: str):
    """A field of a preset, by its dotted path."""
    return reduce(getattr, path.split("."), config)


def same(value: object, text: str) -> bool:
    """Whether a value of the configuration is what the table says."""
    if isinstance(value, bool | str):
        return str(value).lower() == text.lower()
    if isinstance(value, Schedule):
        return same_schedule(value, schedule_from_text(text))
    numbers = value if isinstance(value, tuple) else (value,)
    return [pytest.approx(number, rel=1e-5) for number in numbers] == [float(part) for part in text.split(",")]


def same_schedule(a: Schedule, b: Schedule) -> bool:
    return type(a) is type(b) and all(
        a(share / 1000) == pytest.approx(b(share / 1000), rel=1e-5, abs=1e-12) for share in range(1001)
    )


def require_test(reference: str) -> None:
    """`test_file.py::test_name` is there."""
    file, name = reference.split("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, reference


def require_name(dotted: str) -> None:
    """`module.name` of the package, or an attribute of it, is there."""
    parts = dotted.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            module = import_module("dreamfusion." + ".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        reduce(getattr, parts[count:], module)
        return
    pytest.fail(f"there is no {dotted}")


def require_row(config: Config, path: str, value: str, proof: str) -> None:
    """A row's field of the preset has its value, or what it names is there, and so are its tests."""
    if path.endswith("()"):
        require_name(path.removesuffix("()"))
    else:
        there = value_at(config, path)
        assert same(there, code(value)[0]), f"{path} is {there}, the page says {value}"
    assert code(proof), "no test named"
    for reference in code(proof):
        require_test(reference)
