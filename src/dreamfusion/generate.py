"""One run in its folder: how it begins, or goes on, and the files that it leaves. Doors drive it; it prints nothing."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dreamfusion import build, checkpoint, provenance, runtime, video, viewer
from dreamfusion.build import device_of
from dreamfusion.config import Config, DistillationObjective, JointFieldConfig, MeshConfig, OutputConfig
from dreamfusion.config.check import validate
from dreamfusion.config.serialise import from_file, to_json
from dreamfusion.contrastive import ContrastiveModel, open_contrastive
from dreamfusion.diffusion.priors import Prior, embeddings, open_prior, open_prompt_encoder
from dreamfusion.diffusion.priors.locate import locate
from dreamfusion.diffusion.prompts import PromptTable
from dreamfusion.distributed import SINGLE_PROCESS, ProcessGroup, require_divisible
from dreamfusion.errors import NoSurface, UserError
from dreamfusion.facts import facts_of
from dreamfusion.files import permitted, replacing, require_reachable, write_json
from dreamfusion.healing import write_healings
from dreamfusion.loop import Run, optimise, prompt_table, start
from dreamfusion.mesh import MeshOptions, Report, TextureOptions, export, make_mesh, require_formats
from dreamfusion.mesh.refined import RefinedReport, refined_report, taken_from
from dreamfusion.mesh.triangles import ball_standing
from dreamfusion.objectives import Guide, Words
from dreamfusion.objectives.target import target_of
from dreamfusion.own_parts import PRIOR, OwnParts, Unpack, require_given
from dreamfusion.progress import ProgressCallback, silent
from dreamfusion.runs import RunFolder
from dreamfusion.surface import MeshScene

_OWN_FACES = 10_000  # of the mesh that a run ends with, as somebody waits for it; `dreamfusion mesh` makes finer ones
_PIXEL = 1.92  # about: over the size of a view, the length of a pixel at the object in radii

OpenParts = Callable[[Config, torch.device], tuple[Guide, Words]]
"""How a run's prior is opened, and its prompt read with it: as `open_parts` does, or from what is in memory already"""


@dataclass(frozen=True)
class Job:
    """A run, the prior or contrastive model that judges it, and the folder in which it leaves its files."""

    run: Run
    prior: Guide
    prompts: Words
    folder: RunFolder
    of: RunFolder | None = None
    """the run whose second stage it is, or the scene whose joint stage; there its files for people go"""

    @property
    def products(self) -> RunFolder:
        """Where the files for people go."""
        return self.of or self.folder


def prepare_process(config: Config, device: str = "") -> None:
    """Make this process ready for a run, by default on the configuration's device. Changes all of torch.

    Raises UserError for a device that is not there.
    """
    where = device_of(device or config.device)
    runtime.configure_torch(build.threads(config, where).each, repeatable=where.type == "cpu")


def create_run(
    config: Config,
    path: Path,
    group: ProcessGroup = SINGLE_PROCESS,
    prior: Guide | None = None,
    parts: OpenParts | None = None,
    say: ProgressCallback = silent,
    **own: Unpack[OwnParts],
) -> Job:
    """A new run in a new folder. Everything that can be wrong with the configuration is said before the folder is made.

    A `prior` and `own` parts of the caller take the place of configured ones; the configuration then names them.
    `parts` takes the place of `open_parts`. `say` is told what of the prompt is understood otherwise than typed. Raises
    UserError.
    """
    validate(config)
    if isinstance(config.scene.field, MeshConfig):
        raise UserError("a mesh begins as the surface of a finished run: make one, then `dreamfusion refine RUN`")
    if isinstance(config.scene.field, JointFieldConfig):
        raise UserError("a joint stage begins with the things of a scene: `dreamfusion scene SENTENCE --joint STEPS`")
    if config.memory.embeddings:  # to be found again from any folder
        memory = replace(config.memory, embeddings=os.path.abspath(os.path.expanduser(config.memory.embeddings)))
        config = replace(config, memory=memory)
    if prior is not None:
        config = provenance.with_own_prior(config, prior.name)
    run = start(config, device_of(config.device), group, **own)
    _require_repeatable(run.config, group)
    prior, prompts = parts(run.config, run.device) if parts else open_parts(run.config, run.device, prior, say)
    run.config = provenance.with_captions(provenance.with_provenance(run.config), prompts)
    folder = RunFolder.create(path, to_json(run.config))
    checkpoint.save(run, folder.checkpoint)
    return Job(run, prior, prompts, folder)


def resume_run(
    path: Path,
    device: str,
    steps: int | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    prior_now: str | Guide | None = None,
    parts: OpenParts | None = None,
    **own: Unpack[OwnParts],
) -> Job:
    """An interrupted run, at its last checkpoint; `steps` is a new total, `prior_now` where its prior is now.

    A run that was made with Python objects needs them again: its own prior as `prior_now`, other parts as `create_run`
    takes them, which says what `parts` is. Raises UserError, and then nothing is changed.
    """
    folder, run = open_run(path, device, **own)
    require_divisible(run.config, run.distillation.law, group)
    _require_repeatable(run.config, group)
    run.group = group
    if steps is not None:
        run.config = replace(run.config, steps=steps)
        validate(run.config)
    if run.config.steps < run.step:
        raise UserError(f"{path} has already done {run.step} steps: --steps must be more")
    folder.read_metrics()  # what is wrong with them is said before a prior is opened, which may take minutes
    if isinstance(prior_now, str):
        run.config = provenance.moved(run.config, prior_now)
    own_prior = None if isinstance(prior_now, str) else prior_now
    prior, prompts = parts(run.config, run.device) if parts else open_parts(run.config, run.device, own_prior)
    folder.rewind_metrics(run.step)
    write_healings(run.healings, folder.healing)  # which a kill may have prevented
    if steps is not None or isinstance(prior_now, str):
        checkpoint.save(run, folder.checkpoint)  # before the config, which counts for both: this may not fit on a disk
        write_json(folder.config, to_json(run.config))
    return Job(run, prior, prompts, folder)


def _require_repeatable(config: Config, group: ProcessGroup) -> None:
    """Raise UserError if a run is to begin again that cannot."""
    if not config.heal and config.candidates == 1:
        return
    if group.size > 1:
        raise UserError("--heal and --candidates take one process: leave them away, or torchrun")
    if own := [name for name in config.custom if name != PRIOR]:
        raise UserError(f"--heal and --candidates make parts anew, but the {own[0]} is an object of its caller's")


def run_worker(run: Run) -> None:
    """Do all steps of a run whose files another process writes. Raises UserError and Diverged, like that one."""
    require_divisible(run.config, run.distillation.law, run.group)
    for _ in optimise(run, *open_parts(run.config, run.device), run.config.steps):
        pass


def config_of(path: Path) -> Config:
    """What the run in a folder was told. Raises UserError."""
    folder = RunFolder.open(path)
    config = from_file(Config, folder.read_config(), folder.config)
    try:
        validate(config)
    except UserError as error:
        raise UserError(f"{folder.config}: {error}") from error
    return config


@permitted()
def open_run(path: Path, device: str, **own: Unpack[OwnParts]) -> tuple[RunFolder, Run]:
    """The folder and the last checkpoint of a run, without its prior, with the parts that it was made with.

    Raises UserError.
    """
    folder, config = RunFolder.open(path), config_of(path)
    require_reachable(folder.checkpoint / checkpoint.HEAD)
    if not (folder.checkpoint / checkpoint.HEAD).exists() and not folder.read_metrics():
        return folder, start(config, device_of(device), **own)  # killed before the first checkpoint was whole
    return folder, checkpoint.load(folder.checkpoint, device_of(device), config, **own)


def finish(
    run: Run,
    folder: RunFolder,
    say: ProgressCallback,
    stopped: Callable[[], bool] = lambda: False,
    formats: Iterable[str] = (),
) -> list[Path]:
    """Write the files that a run is for, and return them, the page last; `formats` of the mesh beside `mesh.glb`.

    `stopped` is asked before each product; if it says yes, the files so far are returned. Raises UserError for an
    empty scene, after the pictures.
    """
    output, made = run.config.output, list[Path]()
    products: dict[str, Callable[[], list[Path]]] = {
        "turntable": lambda: write_video(run, folder, output, say),
        "mesh": lambda: _own_mesh(run, folder, say, formats),
        "page": lambda: write_page(run, folder),
    }
    for name, make in products.items():
        if stopped():
            break
        say(name)
        made += make()
    return made


def own_mesh_options(config: Config) -> MeshOptions:
    """How the mesh is made with which a run ends."""
    texture = TextureOptions(config.output.texture_size)
    return MeshOptions(config.output.mesh_resolution, config.size, mesh_blur(config), faces=_OWN_FACES, texture=texture)


def mesh_blur(config: Config) -> float:
    """Of the density before its surface is taken, in radii: at most a pixel of the views."""
    return min(MeshOptions.blur, _PIXEL / config.size)


def _own_mesh(run: Run, folder: RunFolder, say: ProgressCallback, formats: Iterable[str]) -> list[Path]:
    try:
        return write_mesh(run, folder, own_mesh_options(run.config), formats, say=say)[0]
    except UserError as error:
        if isinstance(error, NoSurface):  # what an earlier state of the run left shows something that is no more
            for path in (folder.index, folder.mesh_report, folder.mesh, *folder.mesh_copies):
                path.unlink(missing_ok=True)
        raise type(error)(f"no mesh and no page were made: {error} (the pictures are in {folder.media})") from error


def write_page(run: Run, folder: RunFolder) -> list[Path]:
    """Renew `index.html`, or make it if all its parts are there; returns the files written: it or none."""
    pictures = folder.turntable_webp.exists() and folder.sheet.exists()
    if not folder.mesh.exists() or not (pictures or folder.index.exists()):
        return []
    viewer.write_page(folder, run.config.prompt, facts_of(run, folder))
    return [folder.index]


def write_video(run: Run, folder: RunFolder, output: OutputConfig, say: ProgressCallback = silent) -> list[Path]:
    """The turntable as mp4 and webp, the contact sheet, and the last preview; returns the first three."""
    look, scene = run.recipe.eval_render, run.scene
    say(f"{output.frames} frames of the turntable")
    frames = video.turntable_frames(scene, look, output.frames, video.PreviewCamera(size=output.frame_size))
    say("turntable.mp4 and turntable.webp")
    video.write_mp4(frames, folder.turntable_mp4)
    video.write_webp(frames, folder.turntable_webp)
    say("contact sheet")
    video.write_png(video.contact_sheet(scene, look, video.PreviewCamera(size=output.sheet_size)), folder.sheet)
    video.write_png(video.preview(scene, look), folder.preview)
    return [folder.turntable_mp4, folder.turntable_webp, folder.sheet]


def write_mesh(
    run: Run,
    folder: RunFolder,
    options: MeshOptions,
    formats: Iterable[str] = (),
    say: ProgressCallback = silent,
) -> tuple[list[Path], Report | RefinedReport]:
    """The run's mesh with its report, and beside it the same in other formats; returns the files written.

    Other formats of an earlier mesh are removed once the new one is there.
    """
    others = [folder.mesh.with_suffix(f".{name}") for name in formats if name != "glb"]
    files, report = export_mesh(run, [folder.mesh, *others], options, say)
    write_json(folder.mesh_report, report.record())
    for path in set(folder.mesh_copies) - set(files):
        path.unlink(missing_ok=True)
    return [*files, folder.mesh_report], report


def export_mesh(
    run: Run,
    paths: Sequence[Path],
    options: MeshOptions,
    say: ProgressCallback = silent,
    more: Mapping[str, object] = {},
) -> tuple[list[Path], Report | RefinedReport]:
    """One mesh in the formats that the suffixes say; returns the files written. Raises UserError before any is.

    `options` say how it is made of a field, and how large it is; the scene of a second stage is a mesh. Beside where it
    comes from, the file holds where the ball of the scene is in it, and `more`.
    """
    require_formats(paths)
    centre = np.zeros(3, np.float32)
    if isinstance(run.scene, MeshScene):
        mesh = taken_from(run.scene)
        report = refined_report(mesh, options.body.height_mm, options.body.material)
    else:
        mesh, report = make_mesh(run.scene, run.recipe.eval_render, options, say)
        if run.scene.centre is not None:  # as pictures are taken about it
            centre = -run.scene.centre.cpu().numpy()
            mesh = replace(mesh, vertices=mesh.vertices + centre)
    say(f"writing {', '.join(path.name for path in paths)}")
    extras = provenance.metadata(run.config, run.step) | {"ball": ball_standing(mesh, centre, run.scene.radius), **more}
    height_mm = options.body.height_mm
    return [file for path in paths for file in export(mesh, path, extras, height_mm)], report


def open_parts(
    config: Config, device: torch.device, given: Guide | None = None, say: ProgressCallback = silent
) -> tuple[Guide, Words]:
    """The prompt's embeddings, and then the prior: its text encoders have left the memory when its denoiser comes.

    With another objective than score distillation, its contrastive model, and the caption as that sees it. `given`: the
    caller's own prior or model; `say`: as in `prompt_table`. Raises UserError, also for a prior that does not go with
    the rest of the configuration.
    """
    require_given(config, (*config.custom, PRIOR) if given is not None else tuple(set(config.custom) - {PRIOR}))
    if not isinstance(config.objective, DistillationObjective):
        model = open_contrastive(config.objective.model, device) if given is None else given
        assert isinstance(model, ContrastiveModel)
        return model, target_of(config.caption(config.prompt), model)
    if given is not None:
        assert isinstance(given, Prior)
        return given, prompt_table(config, given, say)
    options, saved = build.prior_options(config, device), config.memory.embeddings
    prompts = prompt_table(config, open_prompt_encoder(config.prior, options, Path(saved) if saved else None), say)
    prior = open_prior(config.prior, options)
    provenance.require_prior(config)
    return prior, prompts


def save_embeddings(config: Config, prompts: PromptTable, path: Path) -> None:
    """Write what the prior's text encoders made of the prompt, for `MemoryConfig.embeddings`. Raises UserError."""
    folder = locate(config.prior, texts=not config.memory.embeddings, half=config.half)
    with replacing(path) as part:
        embeddings.save(prompts.captions, prompts.embeddings, folder, part)
