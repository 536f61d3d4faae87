"""Several finished objects in one scene: `write(read(path), out)` (docs/meshes-and-viewer.md describes the file).

Positions are metres, rotations degrees; the world is that of every mesh here: y up, fronts along +z, ground at y = 0.
"""

import io
import math
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from dreamfusion.compose.glb import Glb, Placed, glb_content, join, read_glb
from dreamfusion.compose.motion import Motion, motion_from
from dreamfusion.config.serialise import from_json, require_text
from dreamfusion.errors import UserError
from dreamfusion.files import explain_unwritable, permitted, read_json, write_bytes, write_text
from dreamfusion.progress import ProgressCallback, silent
from dreamfusion.runs import RunFolder, refuse_occupied
from dreamfusion.viewer import Page, render_page

SCENE, INDEX = "scene.glb", "index.html"
"""Names of the files that are written"""


@dataclass(frozen=True)
class Asset:
    """An object and where it is, as an item of `assets` in the file says it."""

    file: str
    """.glb file or folder of a run, as seen from the folder of the file"""
    name: str = ""
    """what to call it; the run's prompt or the file's name if empty"""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """of the object's origin, metres; objects of runs stand on their origin"""
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """degrees about the x, then the y, then the z axis of the scene, through the object's origin"""
    scale: float = 1.0
    """of all lengths of the object; runs' objects are 1 metre long"""
    height: float = 0.0
    """instead of a scale: metres from the lowest to the highest point before it is turned; 0 where a scale is meant"""
    motion: Motion | None = None
    """how it moves (`motion_from` reads it); nothing is learned"""


@dataclass(frozen=True)
class Composition:
    """What the file says."""

    title: str
    assets: tuple[Asset, ...]
    home: Path
    """folder from which files are seen"""
    motion: Motion | None = None
    """of everything, about the origin"""


def read(path: Path) -> Composition:
    """The composition that a JSON file describes. Raises UserError for all that is wrong with it."""
    return parse(read_json(path, "give a scene as in docs/meshes-and-viewer.md"), path)


def parse(content: Any, path: Path) -> Composition:
    """The composition that such a file holds, or will hold. Raises UserError as `read` does."""
    if not isinstance(content, dict):
        raise UserError(f'{path} must hold an object: {{"assets": [...]}}')
    unknown = sorted(set(content) - {"title", "assets", "motion"})
    if unknown:
        raise UserError(f"unknown setting {unknown[0]} in {path}: remove it, or check its spelling")
    title, assets = content.get("title", path.stem), content.get("assets")
    if not isinstance(title, str) or not title.strip():
        raise UserError(f"title must be a text, not {reprlib.repr(title)}")
    require_text(f"the title in {path}", title)
    if not isinstance(assets, list) or not assets:
        raise UserError(
            f'{path} names no assets: give at least one, as {{"assets": [{{"file": "runs/a-hamburger-0"}}]}}'
        )
    motion = None if content.get("motion") is None else motion_from(content["motion"], "motion")
    return Composition(title, tuple(_asset(each, f"assets[{i}]") for i, each in enumerate(assets)), path.parent, motion)


def alone(path: Path) -> Composition:
    """One object by itself: the folder of a run or a .glb file. Raises UserError if there is none."""
    made = _made_by(read_glb(_mesh_of(path)).tree["asset"])
    name = path.resolve().name
    return Composition(str(made.get("prompt", "")) or name, (Asset(name),), path.resolve().parent)


def write(composition: Composition, out: Path, say: ProgressCallback = silent) -> list[Path]:
    """Make the folder `out` with the scene and its page; returns these files. `say` is told what is being done.

    Raises UserError, and then, unless it is the disk that fails, nothing was made.
    """
    refuse_occupied(out)
    return renew(composition, out, say)


def renew(composition: Composition, out: Path, say: ProgressCallback = silent) -> list[Path]:
    """The same in a folder that may hold other files, and an earlier scene."""
    scene = compose(composition)
    say(f"scene and page of {len(composition.assets)} objects")
    content = glb_content(scene)
    roots = scene.tree["nodes"][scene.roots[0]]["children"] if composition.motion else scene.roots
    tops = [scene.tree["nodes"][top] for top in roots]
    facts = {f"{number}. {top['name']}": _few_words(top["extras"]) for number, top in enumerate(tops, 1)}
    page = render_page(Page(composition.title, facts, content, heading="Objects", mesh_name=SCENE))
    with explain_unwritable(out):
        out.mkdir(parents=True, exist_ok=True)
    write_bytes(out / SCENE, content)
    write_text(out / INDEX, page)
    return [out / SCENE, out / INDEX]


def compose(composition: Composition) -> Glb:
    """The scene. The node of every object holds in its extras which file it was and what the file said of itself."""
    _, files, placed = parts_of(composition)
    return join(files, placed, {"title": composition.title}, composition.motion)


@permitted()
def parts_of(composition: Composition) -> tuple[list[Path], list[Glb], list[Placed]]:
    """The distinct files of a composition, what they hold, and where each is. Raises UserError as `read_glb`."""
    paths = [_mesh_of(composition.home / Path(asset.file).expanduser()).resolve() for asset in composition.assets]
    distinct = list(dict.fromkeys(paths))
    files = [read_glb(path) for path in distinct]
    numbers = [distinct.index(path) for path in paths]
    placed = [_placed(asset, n, files[n]) for asset, n in zip(composition.assets, numbers, strict=True)]
    return distinct, files, placed


def _asset(values: Any, where: str) -> Asset:
    if not isinstance(values, Mapping) or not isinstance(values.get("file"), str) or not values["file"]:
        raise UserError(
            f'{where} must be an object with a file, as {{"file": "runs/a-hamburger-0"}}, not {reprlib.repr(values)}'
        )
    motion = None if values.get("motion") is None else motion_from(values["motion"], f"{where}.motion")
    asset = from_json(Asset, {name: value for name, value in values.items() if name != "motion"}, where)
    for number in (*asset.position, *asset.rotation, asset.scale, asset.height):
        if not math.isfinite(number):
            raise UserError(f"{where} must hold finite numbers, not {number}")
    if "scale" in values and "height" in values:
        raise UserError(f"{where} has a scale and a height: give one of the two")
    for name in ("scale", "height"):
        if name in values and values[name] <= 0:
            raise UserError(f"{where}.{name} must be above 0, not {values[name]}")
    return replace(asset, motion=motion)


def _mesh_of(path: Path) -> Path:
    """The GLB file of an asset. Raises UserError if there is none."""
    if os.path.isdir(path):  # unlike Path.is_dir, also for what can be no name
        run = RunFolder.open(path)
        if not run.mesh.is_file():
            raise UserError(f"{run.mesh} is missing: make it with `dreamfusion mesh {path}`")
        return run.mesh
    if path.suffix.lower() != ".glb":
        raise UserError(f"{path} is neither a .glb file nor the folder of a run")
    return path


def _placed(asset: Asset, number: int, file: Glb) -> Placed:
    origin = file.tree["asset"]
    scale = asset.height / _height(file, asset.file) if asset.height else asset.scale
    if not math.isfinite(scale):
        raise UserError(f"{asset.file} cannot be {asset.height} high: give it a scale instead")
    return Placed(
        number,
        asset.name or str(_made_by(origin).get("prompt", "")) or Path(asset.file).stem,
        asset.position,
        tuple(Rotation.from_euler("xyz", asset.rotation, degrees=True).as_quat().tolist()),
        scale,
        {"file": asset.file, "asset": origin},
        asset.motion,
    )


def _height(file: Glb, name: str) -> float:
    """Metres from the lowest to the highest point.

    Raises UserError if there is nothing, or nothing upright, or what cannot be read.
    """
    try:
        with np.errstate(all="ignore"):  # what is no finite number is refused below
            bounds = trimesh.load_scene(io.BytesIO(glb_content(file)), file_type="glb").bounds
            height = 0.0 if bounds is None else float(bounds[1, 1] - bounds[0, 1])
    except Exception as error:  # the reader has no errors of its own
        raise UserError(
            f"the height of {name} cannot be read from it: give it a scale instead, or export it again"
        ) from error
    if not 0 < height < math.inf:
        raise UserError(f"{name} has no height: give it a scale instead")
    return height


def _made_by(origin: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run wrote of itself into its file; empty for the files of other programs."""
    extras = origin.get("extras")
    return extras if isinstance(extras, Mapping) else {}


def _few_words(extras: Mapping[str, Any]) -> str:
    """What an object comes from, for the page."""
    made = _made_by(extras["asset"])
    known = [f"{key} {made[key]}" for key in ("seed", "steps") if key in made]
    if isinstance(joint := made.get("joint"), Mapping):
        known.append(f"then {joint.get('steps')} of all together")
    return ", ".join(known) or Path(extras["file"]).name
