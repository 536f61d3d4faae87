"""The joint stage of a scene: all of its things learn together, from pictures of the whole scene and its sentence.

It is a run of its own, in the folder `joint` of the scene: its field is that of all things, each where `scene.json` has
it, so loop, laws, checkpoints and log are those of any run. Where things are does not change. At its end every thing
has a mesh again, and they take the places of the earlier ones in the scene's .glb and page; the things' own runs stay.
Pictures go to the scene's folder.
"""

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import nn

from dreamfusion import build, checkpoint, compose, generate
from dreamfusion.compose.glb import Glb, Placed, glb_content, read_glb
from dreamfusion.config import (
    Config,
    FourierFieldConfig,
    GridFieldConfig,
    JointFieldConfig,
    MlpFieldConfig,
    PlaceConfig,
    ProposalConfig,
    RegulariseConfig,
)
from dreamfusion.config.serialise import to_json
from dreamfusion.diffusion.priors import PromptEncoder
from dreamfusion.diffusion.priors.vocabulary import require_sentences
from dreamfusion.errors import UserError
from dreamfusion.files import explain_unwritable, read_json, write_json
from dreamfusion.generate import Job, OpenParts
from dreamfusion.loop import Run, start
from dreamfusion.nerf.fields.joint import JointField
from dreamfusion.nerf.scene import Scene
from dreamfusion.progress import ProgressCallback, silent
from dreamfusion.runs import RunFolder
from dreamfusion.schedules import Constant, Ramp, Schedule

SCENE = "scene.json"
"""Name of the file that says where everything is, for `dreamfusion compose`"""
FILL = 0.9
"""share of its ball that a scene fills"""
LOOKS = 3
"""times that every cell of the memory of empty space is looked into before the first step"""


@dataclass(frozen=True)
class Laid:
    """A scene as it was laid out."""

    composition: compose.Composition
    runs: tuple[Path, ...]
    """folders of its distinct things"""
    files: tuple[Glb, ...]
    """their meshes"""
    placed: tuple[Placed, ...]


def folder_of(home: Path) -> RunFolder:
    """Where the joint stage of the scene in a folder is."""
    return RunFolder(home / "joint")


def read(scene: Path) -> Laid:
    """The scene that a file describes. Raises UserError unless all of its things are runs with their meshes."""
    composition = compose.read(scene)
    paths, files, placed = compose.parts_of(composition)
    for path in paths:
        if path.name != RunFolder(path.parent).mesh.name or not RunFolder(path.parent).config.exists():
            raise UserError(f"{path} is no run's: a joint stage needs the runs of all things in {scene}")
    return Laid(composition, tuple(path.parent for path in paths), tuple(files), tuple(placed))


def stage_config(told: Config, laid: Laid, steps: int) -> Config:
    """The configuration of a joint stage of things that were made as `told`."""
    field, law, optimise = told.scene.field, told.distill, told.optimise
    assert isinstance(field, GridFieldConfig | MlpFieldConfig | FourierFieldConfig)
    places = _places(laid, told.scene.radius)
    end = {name: _at_end(weight) for name, weight in vars(told.regularise).items()}
    return replace(
        told,
        prompt=laid.composition.title,
        understood=(),
        heal=0,
        candidates=1,
        steps=steps,
        size_schedule=Constant(1.0),
        scene=replace(
            told.scene,
            field=JointFieldConfig(field, len(laid.runs), places),
            proposal=ProposalConfig(),
            variance=Constant(told.scene.variance(1.0)),
            centre_memory=0.0,
        ),
        light=replace(told.light, albedo_until=0.0),
        distill=replace(law, t_min=Constant(law.t_min(1.0)), t_max=Constant(law.t_max(1.0))),
        regularise=RegulariseConfig(**end),
        optimise=replace(optimise, lr_schedule=Ramp(0.5 * optimise.lr_schedule(1.0), 0.1 * optimise.lr_schedule(1.0))),
        memory=replace(told.memory, latent_until=0.0),
    )


def open_stage(
    home: Path, steps: int, device: str, parts: OpenParts | None = None, say: ProgressCallback = silent
) -> Job:
    """The joint stage of the scene in a folder: the one that was begun, at its last checkpoint, or else a new one.

    The caller owns the folder. Raises UserError for things that do not go together, for a prior that reads no
    sentences, and where what was begun was another scene, or was to be of other steps.
    """
    stage, laid = folder_of(home), read(home / SCENE)
    firsts = [generate.open_run(path, device)[1] for path in laid.runs]
    config = stage_config(_common(laid.runs, firsts), laid, steps)
    if not (stage.checkpoint / checkpoint.HEAD).exists():
        return replace(_begin(stage, config, firsts, parts, say), of=RunFolder(home))
    begun = generate.config_of(stage.path)
    if (begun.steps, begun.scene.field) != (steps, config.scene.field):
        raise UserError(
            f"{stage.path} holds a joint stage of {begun.steps} steps of this scene as it was then: give the same, or"
            " delete it to begin anew"
        )
    return replace(generate.resume_run(stage.path, device, parts=parts), of=RunFolder(home))


def _begin(
    stage: RunFolder, config: Config, firsts: Sequence[Run], parts: OpenParts | None, say: ProgressCallback
) -> Job:
    prior, prompts = (parts or generate.open_parts)(config, firsts[0].device)
    if isinstance(prior, PromptEncoder):
        require_sentences(prior)
    say("things into one scene")
    run = joint_run(config, [first.scene for first in firsts])
    part = RunFolder(stage.path.with_name(".part-joint"))
    shutil.rmtree(part.path, ignore_errors=True)
    try:
        with explain_unwritable(stage.path):
            checkpoint.save(run, RunFolder.create(part.path, to_json(run.config)).checkpoint)
            part.path.rename(stage.path)
    finally:
        shutil.rmtree(part.path, ignore_errors=True)
    return Job(run, prior, prompts, stage)


def joint_run(config: Config, scenes: Sequence[Scene]) -> Run:
    """A joint stage before its first step, with what the scenes of its things have learned."""
    device = scenes[0].occupancy.density.device
    run = start(config, device)
    joint = run.scene.field
    assert isinstance(joint, JointField)
    for thing, scene in zip(joint.things, scenes, strict=True):
        thing.load_state_dict(_module(scene).state_dict())
    build.follow(run.optimiser, run.scene)
    behind = scenes[0].state_dict().items()
    run.scene.load_state_dict({name: value for name, value in behind if name.startswith("background.")}, strict=False)
    _look_again(run.scene, run.generator)
    return run


def write(job: Job, home: Path, say: ProgressCallback = silent) -> list[Path]:
    """The meshes of the things as they are now, the scene of them, and its page; returns the files, the page last."""
    laid, stage, joint = read(home / SCENE), job.folder, job.run.scene.field
    assert isinstance(joint, JointField)
    files = generate.write_video(job.run, job.products, job.run.config.output, say)
    meshes = [stage.path / f"{number}-{path.name}.glb" for number, path in enumerate(laid.runs)]
    for path, thing, mesh in zip(laid.runs, joint.things, meshes, strict=True):
        _write_thing(path, thing, mesh, job.run, say)
    before = [_ball(file, path) for file, path in zip(laid.files, laid.runs, strict=True)]
    after = [_ball(read_glb(mesh), mesh) for mesh in meshes]
    told = read_json(home / SCENE, "make the scene again")
    for asset, placed in zip(told["assets"], laid.placed, strict=True):
        old, new = before[placed.file], after[placed.file]
        scale = placed.scale * old[3] / new[3]  # so that the ball stays where it is
        moved = Rotation.from_quat(placed.rotation).apply(placed.scale * old[:3] - scale * new[:3])
        place = (np.array(placed.translation) + moved).round(6).tolist()
        asset.pop("height", None)
        asset |= {"file": meshes[placed.file].name, "position": place, "scale": scale}
    write_json(stage.path / SCENE, told)
    return [*files, *meshes, stage.path / SCENE, *compose.renew(compose.read(stage.path / SCENE), home, say)]


def _write_thing(path: Path, field: nn.Module, mesh: Path, stage: Run, say: ProgressCallback) -> None:
    """The mesh of the thing that the run in a folder made, with what its field has learned since."""
    _, run = generate.open_run(path, str(stage.device))
    _module(run.scene).load_state_dict(field.state_dict())
    _look_again(run.scene, run.generator)
    say(f"mesh of {run.config.prompt}")
    more = {"joint": {"steps": stage.step, "prompt": stage.config.prompt}}
    generate.export_mesh(run, [mesh], generate.own_mesh_options(run.config), say, more)


def _places(laid: Laid, radius: float) -> tuple[PlaceConfig, ...]:
    """The things' fields, whose balls have this radius, in a ball of the same radius that holds the scene."""
    scene = trimesh.load_scene(io.BytesIO(glb_content(compose.compose(laid.composition))), file_type="glb")
    low, high = scene.bounds
    middle, unit = (low + high) / 2, 2 * FILL * radius / float(np.linalg.norm(high - low))
    balls = [_ball(file, path) for file, path in zip(laid.files, laid.runs, strict=True)]
    found = list[PlaceConfig]()
    for asset, placed in zip(laid.composition.assets, laid.placed, strict=True):
        ball = balls[placed.file]
        centre = placed.translation + Rotation.from_quat(placed.rotation).apply(placed.scale * ball[:3])
        x, y, z = (unit * (centre - middle)).round(6).tolist()
        scale = float(unit * placed.scale * ball[3] / radius)
        found.append(PlaceConfig(placed.file, (x, y, z), asset.rotation, scale))
    return tuple(found)


def _ball(file: Glb, path: Path) -> Float[np.ndarray, " 4"]:
    """Centre and radius of a field's ball, in the axes and units of the mesh that was made of it. Raises UserError."""
    ball = file.tree["asset"].get("extras", {}).get("ball")
    if not isinstance(ball, list) or len(ball) != 4:
        raise UserError(f"the mesh of {path} does not say where it was: make it again with `dreamfusion mesh {path}`")
    return np.array(ball)


def _common(paths: Sequence[Path], runs: Sequence[Run]) -> Config:
    """The configuration that runs share, but for their words and seeds. Raises UserError if they do not."""
    first = runs[0].acting
    for path, run in zip(paths, runs, strict=True):
        if run.step < run.config.steps:
            raise UserError(f"{path} is not finished: go on with `dreamfusion resume {path}`")
        if not isinstance(run.acting.scene.field, GridFieldConfig | MlpFieldConfig | FourierFieldConfig):
            raise UserError(f"{path} is a mesh that learned: a joint stage needs fields, as --field grid makes them")
        if (run.acting.scene, run.acting.prior) != (first.scene, first.prior):
            raise UserError(f"{paths[0]} and {path} have unlike fields or priors: make them again with equal settings")
    return first


def _at_end(weight: Any) -> Any:
    """Of a regulariser's weight over a run, the last value."""
    return Constant(weight(1.0)) if isinstance(weight, Schedule) else weight


def _module(scene: Scene) -> nn.Module:
    assert isinstance(scene.field, nn.Module)
    return scene.field


def _look_again(scene: Scene, generator: torch.Generator) -> None:
    """Forget what is known of empty space, and look into every cell."""
    if scene.occupancy.config.every:
        scene.occupancy.density.fill_(torch.inf)
        for _ in range(LOOKS):
            scene.occupancy.update(scene.field, generator)
