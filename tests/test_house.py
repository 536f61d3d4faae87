"""House rules that no other tool checks."""

import ast
import re
import warnings
from pathlib import Path

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped

from dreamfusion.geometry import normalise
from dreamfusion.nerf.rays import Gaussians

PACKAGE = Path(__file__).parents[1] / "src" / "dreamfusion"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]

FILE_LINES, FUNCTION_LINES = 300, 60

# Where a library that is not in `dependencies` may be imported, and only inside functions or optional modules.
OPTIONAL = {
    "embreex": (),
    "pxr": ("mesh/usdz.py",),
    "fastapi": (),
    "ray": (),
    "beartype": (),
    "torchvision": (),
    "pytest": (),
}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def libraries(path: Path) -> set[str]:
    nodes = list(ast.walk(tree(path)))
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


@pytest.mark.parametrize("name", OURS)
def test_a_warning_that_our_code_causes_is_an_error(name):
    ours, theirs = module_that_warns(name), module_that_warns("skimage.measure")
    for cause in (
        lambda: ours["warn"](1),
        lambda: ours["use"](ours["warn"], 2),
        lambda: ours["use"](theirs["warn"], 2),  # as libraries do with what their callers should mend
        lambda: jaxtyped(typechecker=beartype)(ours["warn"])(2),
    ):
        with pytest.raises(DeprecationWarning, match="mind this"):
            cause()


@pytest.mark.parametrize("name", ["skimage.measure", "torch.nn", "importlib._bootstrap"])
def test_a_warning_between_other_people_s_modules_is_shown(name):
    theirs = module_that_warns(name)
    with warnings.catch_warnings(record=True) as caught:
        theirs["warn"](1)
        theirs["use"](theirs["warn"], 2)
    assert [str(warning.message) for warning in caught] == ["mind this"] * 2


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_core_needs_no_optional_library(path):
    name = path.relative_to(PACKAGE).as_posix()
    used = {library for library in libraries(path) if library in OPTIONAL}
    assert {library for library in used if not name.startswith(OPTIONAL[library])} == set()


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_is_pickled(path):
    assert libraries(path) & {"pickle", "dill", "joblib", "shelve", "marshal"} == set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}
    assert "allow_pickle" not in path.read_text(encoding="utf-8")  # numpy's default is to refuse


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_annotations_are_not_strings(path):
    """jaxtyping skips dataclasses silently where annotations are postponed."""
    assert "__future__" not in libraries(path)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_is_silenced(path):
    for node in ast.walk(tree(path)):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), "bare except"
        assert not (isinstance(node, ast.Attribute) and node.attr in ("nan_to_num", "nan_to_num_")), "nan_to_num"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_and_functions_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES
    functions = (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    too_long = [node.name for node in functions if (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES]
    assert too_long == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_modules_and_public_functions_say_what_they_are(path):
    module = tree(path)
    assert ast.get_docstring(module), "no docstring"
    public = [
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


ROOT = PACKAGE.parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_to_files_that_are_there(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


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
