"""Where an object comes from: what a run writes down about its making, and insists on."""

from dataclasses import replace

from dreamfusion.config import Config, DistillationObjective, MeshConfig
from dreamfusion.diffusion.priors.folder import digest
from dreamfusion.diffusion.priors.kinds import kind_of
from dreamfusion.diffusion.priors.locate import locate, rooted
from dreamfusion.diffusion.prompts import PromptTable
from dreamfusion.errors import UserError
from dreamfusion.objectives import Words
from dreamfusion.own_parts import PRIOR, require_given
from dreamfusion.version import VERSION


def with_provenance(config: Config) -> Config:
    """The configuration with what a run writes down when it begins. Raises UserError as `prior_digest` does."""
    if PRIOR in config.custom or not isinstance(config.objective, DistillationObjective):
        return replace(config, version=VERSION)
    digest = config.prior_sha256 or prior_digest(config)  # who opened the prior has checked what is asked for
    return replace(config, prior=rooted(config.prior), prior_sha256=digest, version=VERSION)


def with_captions(config: Config, prompts: Words) -> Config:
    """The configuration with what the prior understood of its prompts, where that is not what was typed."""
    if not isinstance(prompts, PromptTable):
        return config
    pairs = ((config.prompt, prompts.prompt), (config.negative, prompts.options.negative))
    return replace(config, understood=tuple((typed, caption) for typed, caption in pairs if caption != typed))


def with_own_prior(config: Config, name: str) -> Config:
    """The configuration of a run that a Python object of this name judges: no folder, no weights to insist on."""
    custom = (*config.custom, *({PRIOR} - {*config.custom}))
    return replace(config, prior=name, prior_sha256="", custom=custom)


def prior_digest(config: Config) -> str:
    """SHA-256 of the denoiser of a configuration's prior. Raises UserError if there is no such prior."""
    folder = locate(config.prior, texts=not config.memory.embeddings, half=config.half)
    return digest(folder, kind_of(folder).network)


def moved(config: Config, prior: str) -> Config:
    """The configuration of a run whose prior is now called `prior`. Raises UserError unless it is the same one."""
    require_given(config, tuple(set(config.custom) - {PRIOR}))
    if not config.prior_sha256:
        raise UserError("the run does not say which weights its prior had: resume it with the prior that it names")
    there = replace(config, prior=rooted(prior))
    require_prior(there)
    return there


def require_prior(config: Config) -> None:
    """Raises UserError if the configuration insists on other weights than its prior has now."""
    if not config.prior_sha256 or (found := prior_digest(config)) == config.prior_sha256:
        return
    made_by = f" (dreamfusion {config.version} had it)" if config.version else ""
    raise UserError(
        f"the prior {config.prior} has other weights than asked for: SHA-256 {found[:12]}..., not"
        f" {config.prior_sha256[:12]}...{made_by}; restore them, or start a new run without --prior-sha256"
    )


def metadata(config: Config, steps: int) -> dict[str, object]:
    """What made the object, after so many steps, for its files."""
    mesh = config.scene.field
    refined = {}
    if isinstance(mesh, MeshConfig):
        learned = "texture alone" if mesh.told.texture_only else "shape and texture"
        refined, steps = {"refined": f"{learned}, {steps} steps at {config.size} pixels"}, mesh.after
    return {
        "prompt": config.prompt,
        "understood as": caption if (caption := config.caption(config.prompt)) != config.prompt else "",
        "negative": config.negative,
        "seed": config.seed,
        "steps": steps,
        **refined,
        "preset": config.preset,
        **_judged_by(config),
        "dreamfusion": config.version,
    }


def _judged_by(config: Config) -> dict[str, object]:
    if not isinstance(config.objective, DistillationObjective):
        return {"objective": type(config.objective).__name__.removesuffix("Objective"), "model": config.objective.model}
    return {
        "guidance scale": config.distill.guidance_scale,
        "prior": config.prior,
        "prior sha256": config.prior_sha256,
    }
