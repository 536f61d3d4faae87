"""One run in its folder, from wherever it is to its end, in a process that has made others before and will make more.

Whoever makes many runs calls this: the workers of a batch, those of an evaluation, the studio's.

    kept = KeptPrior()                         # once a process
    with owned(path):                          # `claims`: raises `InUse` where another process is at the run
        job = open_job(config, path, kept)     # a new run, or one that was begun, at its last checkpoint
        if not work_off(job, watch):
            ...                                # it was asked to stop: all is saved, the same calls go on
"""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from dreamfusion import build, generate, provenance, stepping
from dreamfusion.batch.watch import Watch
from dreamfusion.config import Config, DistillationObjective
from dreamfusion.contrastive import ContrastiveModel, open_contrastive
from dreamfusion.diffusion.priors import Prior, PromptEncoder, open_prior, open_prompt_encoder
from dreamfusion.generate import Job
from dreamfusion.loop import prompt_table
from dreamfusion.objectives import Guide, Words
from dreamfusion.objectives.target import target_of
from dreamfusion.own_parts import require_given
from dreamfusion.runs import RunFolder


class KeptPrior:
    """Opens the parts of runs (`generate.OpenParts`), and keeps the last prior for the next run that asks for the same.

    So do its text encoders stay, unless `texts` is False: then each prompt has them loaded again. Weights that a run
    insists on are compared when they are loaded.
    """

    def __init__(self, texts: bool = True) -> None:
        self._texts = texts
        self._asked: object = None
        self._opened: tuple[PromptEncoder, Prior] | ContrastiveModel | None = None

    def __call__(self, config: Config, device: torch.device) -> tuple[Guide, Words]:
        """Raises UserError as `generate.open_parts`."""
        require_given(config, ())
        if not isinstance(config.objective, DistillationObjective):
            model = self._contrastive(config.objective.model, device)
            return model, target_of(config.caption(config.prompt), model)
        options = replace(build.prior_options(config, device), keep_texts=self._texts)
        asked = (config.prior, config.prior_sha256, config.memory.embeddings, config.half, options)
        if not isinstance(self._opened, tuple) or asked != self._asked:
            self._opened = None  # before the next one comes, which may need its memory
            saved = Path(config.memory.embeddings) if config.memory.embeddings else None
            reader, prior = open_prompt_encoder(config.prior, options, saved), open_prior(config.prior, options)
            provenance.require_prior(config)
            self._asked, self._opened = asked, (reader, prior)
        reader, prior = self._opened
        return prior, prompt_table(config, reader)

    def _contrastive(self, name: str, device: torch.device) -> ContrastiveModel:
        if not isinstance(self._opened, ContrastiveModel) or (name, device) != self._asked:
            self._opened = None
            self._asked, self._opened = (name, device), open_contrastive(name, device)
        return self._opened


def open_job(config: Config, path: Path, kept: KeptPrior) -> Job:
    """The run of a folder: a new one of this configuration, or the one that was begun there, at its last checkpoint.

    The caller owns the folder (`claims.owned`). Changes all of torch in this process. Raises UserError, and then leaves
    a folder that was new empty.
    """
    begun = RunFolder(path).config.exists()
    generate.prepare_process(generate.config_of(path) if begun else config, config.device)
    if begun:
        return generate.resume_run(path, config.device, parts=kept)
    return generate.create_run(config, path, parts=kept)


def work_off(job: Job, watch: Watch, files: bool = True) -> bool:
    """Do what is left of a run: its steps, and `files`, as `generate.finish` writes them; False if it was to stop.

    Then it is saved. Raises UserError: Diverged, for a full disk, for an empty scene after its pictures.
    """
    with closing(stepping.train(job, watch.say)) as steps:
        for metrics in steps:
            watch.stepped(metrics)
            if watch.stopped():
                break
    if job.run.step < job.run.config.steps:
        return False
    return not files or job.products.index in generate.finish(job.run, job.products, watch.say, watch.stopped)
