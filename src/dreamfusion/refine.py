"""The second stage of a run, in its folder: the run's surface as a mesh that goes on learning.

It is a run of its own, in the folder `refine` of the first one, with the same configuration but for what `stage_config`
changes: so the loop, checkpoints and log are those of any run. Its files take the place of the first stage's mesh,
pictures and page; the first stage's checkpoint stays.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from dreamfusion import checkpoint, generate, provenance
from dreamfusion.config import Config, MeshConfig, ProposalConfig, RefineConfig, RegulariseConfig
from dreamfusion.config.serialise import to_json
from dreamfusion.errors import UserError
from dreamfusion.files import explain_unwritable
from dreamfusion.generate import Job, OpenParts
from dreamfusion.loop import Run, start
from dreamfusion.mesh import Mesh, MeshOptions, TextureOptions, mesh_of
from dreamfusion.mesh.refined import put_into
from dreamfusion.progress import ProgressCallback, silent
from dreamfusion.runs import RunFolder
from dreamfusion.schedules import Constant, Ramp
from dreamfusion.surface import MeshScene


def told_by(config: Config) -> RefineConfig:
    """How a run is refined if nothing else is said: at the noise levels and with the guidance with which it ended."""
    law = config.distill
    return replace(RefineConfig(), t_min=law.t_min(1.0), t_max=law.t_max(1.0), guidance_scale=law.guidance_scale)


def stage_config(config: Config, told: RefineConfig, mesh: Mesh) -> Config:
    """The configuration of the second stage of a run that begins with this mesh."""
    surface = MeshConfig(len(mesh.vertices), len(mesh.faces), config.steps, told)
    nothing = Constant(0.0)
    return replace(
        config,
        heal=0,
        candidates=1,
        steps=told.steps,
        size=told.size,
        size_schedule=Constant(1.0),
        views=told.views,
        scene=replace(
            config.scene,
            field=surface,
            proposal=ProposalConfig(),
            occupancy=replace(config.scene.occupancy, every=0),
        ),
        light=replace(config.light, albedo_until=0.0),
        distill=replace(
            config.distill,
            t_min=Constant(told.t_min),
            t_max=Constant(told.t_max),
            guidance_scale=told.guidance_scale,
        ),
        regularise=RegulariseConfig(
            opacity=nothing,
            orientation=nothing,
            interlevel=nothing,
            laplacian=Constant(told.laplacian),
            bending=Constant(told.bending),
            stability=Constant(told.stability),
        ),
        optimise=replace(
            config.optimise,
            method="adam",
            grid=told.texture_rate,
            vertices=told.vertex_rate,
            betas=(0.9, 0.99),
            lr_schedule=Ramp(1.0, 0.1, 0.5, 1.0),
        ),
        memory=replace(config.memory, latent_until=0.0),
    )


def first_mesh(run: Run, told: RefineConfig, say: ProgressCallback = silent) -> Mesh:
    """The mesh with which the second stage of a run begins. Raises NoSurface for an empty scene, and fog."""
    texture = TextureOptions(told.texture_size)
    options = MeshOptions(told.resolution, run.config.size, told.blur, faces=told.faces, texture=texture, fit=False)
    return mesh_of(run.scene, run.recipe.eval_render, options, say).mesh


def second_run(first: Run, told: RefineConfig, mesh: Mesh) -> Run:
    """The second stage of a run before its first step."""
    config = stage_config(first.acting, told, mesh)
    run = start(config, first.device)
    assert isinstance(run.scene, MeshScene)
    put_into(run.scene, mesh)
    behind = {name: value for name, value in first.scene.state_dict().items() if name.startswith("background.")}
    run.scene.load_state_dict(behind, strict=False)
    return run


def folder_of(path: Path) -> RunFolder:
    """Where the second stage of the run in a folder is."""
    return RunFolder(path / "refine")


def begun(path: Path) -> RefineConfig | None:
    """What the second stage of the run in a folder was told, if it began where the run ends now. Raises UserError."""
    stage, steps = folder_of(path), generate.config_of(path).steps
    if not (stage.checkpoint / checkpoint.HEAD).exists():
        return None
    try:
        surface = generate.config_of(stage.path).scene.field
    except UserError as error:
        raise UserError(f"{error}; or begin anew with `dreamfusion refine {path} --again`") from error
    return surface.told if isinstance(surface, MeshConfig) and surface.after == steps else None


def open_stage(
    path: Path,
    device: str,
    told: RefineConfig | None = None,
    prior_now: str | None = None,
    parts: OpenParts | None = None,
    say: ProgressCallback = silent,
) -> Job:
    """The second stage of the run in a folder: the one that was begun, at its last checkpoint, or else a new one.

    One that is done and was told something else is begun anew; `told` None is what it was told, or `told_by`.
    The caller owns the folder. Raises UserError for a run that is not finished or shows nothing, and where what was
    begun was told something else.
    """
    before = begun(path)
    if before is None or (told not in (None, before) and finished(path)):
        return begin(path, device, told, prior_now, parts, say)
    if told not in (None, before):
        raise UserError(
            f"{path} is being refined with other options: give the same, go on with `dreamfusion resume {path}`, or"
            " begin anew with --again"
        )
    job = generate.resume_run(folder_of(path).path, device, prior_now=prior_now, parts=parts)
    return replace(job, of=RunFolder(path))


def shown(path: Path, device: str) -> tuple[RunFolder, Run]:
    """A run's folder, and what its files show: the run, or its second stage if that is finished. Raises UserError."""
    if begun(path) is not None and finished(path):
        return RunFolder(path), generate.open_run(folder_of(path).path, device)[1]
    return generate.open_run(path, device)


def begin(
    path: Path,
    device: str,
    told: RefineConfig | None = None,
    prior_now: str | None = None,
    parts: OpenParts | None = None,
    say: ProgressCallback = silent,
) -> Job:
    """A new second stage of the run in a folder, in place of one that there is. Raises UserError as `open_stage`."""
    _, first = generate.open_run(path, device)
    if isinstance(first.scene, MeshScene):
        raise UserError(f"{path} is a mesh that learned already: refine a run whose --field is grid, mlp or fourier")
    if first.step < first.config.steps:
        done = f"{first.step} of {first.config.steps} steps"
        raise UserError(f"{path} has done {done}: finish it first, with `dreamfusion resume {path}`")
    if prior_now is not None:
        first.config = provenance.moved(first.config, prior_now)
    told = told or told_by(first.acting)
    prior, prompts = (parts or generate.open_parts)(first.config, first.device)
    run = second_run(first, told, first_mesh(first, told, say))
    stage, part = folder_of(path), RunFolder(path / ".part-refine")
    shutil.rmtree(part.path, ignore_errors=True)
    try:
        with explain_unwritable(stage.path):
            checkpoint.save(run, RunFolder.create(part.path, to_json(run.config)).checkpoint)
            if stage.path.exists():  # it goes once the new one is on the disk
                shutil.rmtree(stage.path)
            part.path.rename(stage.path)
    finally:
        shutil.rmtree(part.path, ignore_errors=True)
    return Job(run, prior, prompts, stage, RunFolder(path))


def finished(path: Path) -> bool:
    """Whether all steps of the second stage that was begun are done."""
    lines = folder_of(path).read_metrics()
    return bool(lines) and lines[-1]["step"] >= generate.config_of(folder_of(path).path).steps
