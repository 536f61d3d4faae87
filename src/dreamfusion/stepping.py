"""The steps of a run in its folder: logged, saved and previewed on the way, and taken back where they go wrong."""

import shutil
import time
from collections.abc import Generator
from dataclasses import replace

from dreamfusion import candidates, checkpoint, faces, video
from dreamfusion.config import JointFieldConfig, MeshConfig, SphereFieldConfig
from dreamfusion.diffusion.prompts import PromptTable
from dreamfusion.files import explain_unwritable
from dreamfusion.generate import Job
from dreamfusion.healing import Healing, healing_of, write_healings
from dreamfusion.health import NOT_FINITE, SECOND_FRONT, Finding, Memory
from dreamfusion.loop import Diverged, Metrics, Run, optimise, start
from dreamfusion.progress import ProgressCallback
from dreamfusion.runs import RunFolder

PATIENCE = 10
"""times the time that a preview takes pass before the next one, however often they are asked for"""


def train(job: Job, say: ProgressCallback) -> Generator[Metrics, None, None]:
    """Do the steps that are left: log each, save checkpoints and previews on the way, and the state at the end.

    A run that goes wrong is taken back and changed, as often as it may be. Close the iterator to stop early; that saves
    too. An error does not: the last good checkpoint stays. Raises Diverged.
    """
    run, healing = job.run, None
    try:
        if run.step == 0 and not run.healings and run.config.candidates > 1:
            yield from candidates.choose(run, job.prior, job.prompts, job.folder, say)
            _save(run, job.folder)
        while (healing := (yield from _until_ill(job, healing, say))) is not None:
            say(f"going back: {healing}")
            _go_back(run, job.folder, healing)
    except GeneratorExit:
        if _may_heal(run):
            _set_aside(job.folder)
        checkpoint.save(run, job.folder.checkpoint)
        raise
    _save(run, job.folder)


def _until_ill(job: Job, healed: Healing | None, say: ProgressCallback) -> Generator[Metrics, None, Healing | None]:
    """Steps to the end, or to a finding about which something can be done, which is returned; `healed`: just before."""
    run, folder, memory = job.run, job.folder, _memory(job.run, job.folder)
    words = job.prompts.steered(run.acting.perp_neg) if isinstance(job.prompts, PromptTable) else job.prompts
    next_preview = time.monotonic() + run.config.preview_seconds
    try:
        for metrics in optimise(run, job.prior, words, run.config.steps):
            say("optimising")
            if memory.asks(SECOND_FRONT) and (front := faces.front(run, job.prior, words)) is not None:
                metrics = replace(metrics, vitals={**metrics.vitals, "front": front})
            metrics = replace(metrics, findings=memory.judged(metrics.record(), run.progress), healing=healed)
            folder.log(metrics.record())
            if metrics.findings and (remedy := _healing(run, folder, metrics.findings[0])) is not None:
                return remedy
            if run.step % run.config.checkpoint_steps == 0:
                _save(run, folder)
            begun = time.monotonic()
            if run.config.preview_seconds > 0 and begun > next_preview:
                say("preview")
                video.write_png(video.preview(run.scene, run.recipe.eval_render), job.products.preview)
                taken = time.monotonic() - begun
                next_preview = begun + taken + max(run.config.preview_seconds, PATIENCE * taken)
            yield metrics
            healed = None
    except Diverged:
        if (remedy := _healing(run, folder, NOT_FINITE)) is None:
            raise
        return remedy
    return None


def _memory(run: Run, folder: RunFolder) -> Memory:
    """What findings are judged by; most of them say nothing of meshes, and of what begins with finished things."""
    other = isinstance(run.config.scene.field, MeshConfig | SphereFieldConfig | JointFieldConfig)
    return Memory("" if other else run.config.preset, folder.read_metrics())


def _may_heal(run: Run) -> bool:
    return len(run.healings) < run.config.heal


def _healing(run: Run, folder: RunFolder, finding: Finding) -> Healing | None:
    """What to do about a finding, if anything can and may be done."""
    if not _may_heal(run):
        return None
    saved = checkpoint.step_of(folder.regular_checkpoint)
    return healing_of(finding, run.step, saved, run.config, run.healings)


def _save(run: Run, folder: RunFolder) -> None:
    """A checkpoint at a step that does not depend on interruptions."""
    shutil.rmtree(folder.set_aside, ignore_errors=True)
    checkpoint.save(run, folder.checkpoint)


def _set_aside(folder: RunFolder) -> None:
    """Keep such a checkpoint beside that of an interruption: from there a run is healed as if there had been none."""
    if not folder.set_aside.exists():
        part = folder.path / ".part-set-aside"
        shutil.rmtree(part, ignore_errors=True)
        with explain_unwritable(folder.set_aside):
            part.mkdir()
            for file in folder.checkpoint.iterdir():
                shutil.copyfile(file, part / file.name)
            part.rename(folder.set_aside)


def _go_back(run: Run, folder: RunFolder, healing: Healing) -> None:
    """Begin again at the last checkpoint, or anew, with what the healing changes; all of it is written down."""
    if healing.back_to:
        run.become(checkpoint.load(folder.regular_checkpoint, run.device, run.config, (healing,)))
    else:
        run.become(start(run.config, run.device, healings=(*run.healings, healing)))
    _save(run, folder)
    folder.rewind_metrics(run.step)
    write_healings(run.healings, folder.healing)
