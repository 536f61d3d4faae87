"""House rules that no other tool checks."""

import ast
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped

from dreamfusion.geometry import normalise
from dreamfusion.nerf.rays import Gaussians

PACKAGE = Path(__file__).parents[1] / "src" / "dreamfusion"
MODULES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}

FUNCTION_LINES = 60

# Where a library that is not in `dependencies` may be imported, and only inside functions or optional modules.
OPTIONAL = {
    "embreex": (),
    "pxr": ("mesh/usdz.py",),
    "starlette": ("studio/",),
    "uvicorn": ("studio/",),
    "ray": ("batch/on_ray.py",),
    "beartype": (),
    "torchvision": (),
    "pytest": (),
}


def libraries(module: ast.Module) -> set[str]:
    nodes = list(ast.walk(module))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    source = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in plain | source}


def test_a_wrong_shape_raises():
    """The canary: without the import hook of jaxtyping, every annotation of the package would be a comment."""
    with pytest.raises(Exception, match=r"normalise|shape|type"):
        normalise(torch.zeros(3, 4))
    with pytest.raises(Exception, match=r"Gaussians|shape|type"):
        Gaussians(mean=torch.zeros(5, 3), var=torch.zeros(4, 3))
    with pytest.raises(Exception, match=r"normalise|shape|type"):
        normalise("up")  # type: ignore[arg-type]  # the point of it


WARNING = """
import warnings
def warn(level: int):
    warnings.warn("mind this", DeprecationWarning, stacklevel=level)
def use(function, level: int):
    function(level)
"""


def module_that_warns(name: str) -> dict:
    module = {"__name__": name}
    exec(WARNING, module)
    return module


OURS = ["dreamfusion", "dreamfusion.mesh.texture", *sorted(path.stem for path in Path(__file__).parent.rglob("*.py"))]


def causes(name: str) -> tuple[Callable[[], object], ...]:
    """Ways in which a module of ours, of that name, can be what a warning is about."""
    ours, theirs = module_that_warns(name), module_that_warns("skimage.measure")
    return (
        lambda: ours["warn"](1),
        lambda: ours["use"](ours["warn"], 2),
        lambda: ours["use"](theirs["warn"], 2),  # as libraries do with what their callers should mend
        lambda: jaxtyped(typechecker=beartype)(ours["warn"])(2),
    )


def test_a_warning_that_our_code_causes_is_an_error():
    for name in OURS:
        for number, cause in enumerate(causes(name)):
            try:
                cause()
            except DeprecationWarning:
                continue
            pytest.fail(f"warning {number} of {name} is no error")


@pytest.mark.parametrize("name", ["skimage.measure", "torch.nn", "importlib._bootstrap"])
def test_a_warning_between_other_people_s_modules_is_shown(name):
    theirs = module_that_warns(name)
    with warnings.catch_warnings(record=True) as caught:
        theirs["warn"](1)
        theirs["use"](theirs["warn"], 2)
    assert [str(warning.message) for warning in caught] == ["mind this"] * 2


def offenders(found: Callable[[Path, ast.Module], Iterable[object]]) -> list[str]:
    """ "file: what" for everything that `found` says of the package's files, given with their syntax trees."""
    return [
        f"{path.relative_to(PACKAGE).as_posix()}: {what}"
        for path, module in MODULES.items()
        for what in found(path, module)
    ]


def test_the_core_needs_no_optional_library():
    def used(path: Path, module: ast.Module) -> list[str]:
        name = path.relative_to(PACKAGE).as_posix()
        return [lib for lib in libraries(module) & OPTIONAL.keys() if not name.startswith(OPTIONAL[lib])]

    assert offenders(used) == []


def test_nothing_is_pickled():
    def pickled(path: Path, module: ast.Module) -> list[str]:
        found = libraries(module) & {"pickle", "dill", "joblib", "shelve", "marshal"}
        called = {ast.unparse(node) for node in ast.walk(module) if isinstance(node, ast.Attribute)}
        text = (
            {"allow_pickle"} if "allow_pickle" in path.read_text(encoding="utf-8") else set()
        )  # numpy's default is to refuse
        return [*found, *(called & {"torch.load", "torch.save"}), *text]

    assert offenders(pickled) == []


def test_annotations_are_not_strings():
    """jaxtyping skips dataclasses silently where annotations are postponed."""
    assert offenders(lambda _, module: libraries(module) & {"__future__"}) == []


def test_nothing_is_silenced():
    def silenced(_: Path, module: ast.Module) -> list[str]:
        bare = [node.lineno for node in ast.walk(module) if isinstance(node, ast.ExceptHandler) and node.type is None]
        attributes = {node.attr for node in ast.walk(module) if isinstance(node, ast.Attribute)}
        return [*(f"bare except in line {line}" for line in bare), *(attributes & {"nan_to_num", "nan_to_num_"})]

    assert offenders(silenced) == []


def test_functions_are_short():
    def long(_: Path, module: ast.Module) -> list[str]:
        functions = (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        return [node.name for node in functions if (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES]

    assert offenders(long) == []


def test_modules_and_public_functions_say_what_they_are():
    def mute(_: Path, module: ast.Module) -> list[str]:
        public = [node for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        named = [node.name for node in public if not node.name.startswith("_") and not ast.get_docstring(node)]
        return named if ast.get_docstring(module) else ["the module", *named]

    assert offenders(mute) == []


ROOT = PACKAGE.parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_links_lead_to_files_that_are_there():
    links = [
        (page, link) for page in PAGES for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    ]
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_a_source_package_has_the_pictures_of_its_pages():
    packed = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[tool.hatch.build.targets.sdist]")[1]
    shown = [
        (page, link) for page in PAGES for link in re.findall(r"!\[[^\]]*\]\(([^)#:]+)\)", page.read_text("utf-8"))
    ]
    assert len(shown) > 2
    for page, link in shown:
        picture = (page.parent / link).resolve().relative_to(ROOT)
        assert (ROOT / picture).is_file()
        assert f'"{picture.parent.as_posix()}/*{picture.suffix}"' in packed
