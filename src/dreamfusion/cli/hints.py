"""What people should know of the prior that they chose, and its files tell."""

from dreamfusion.config import Config, DistillationObjective
from dreamfusion.diffusion.priors.folder import load_component
from dreamfusion.diffusion.priors.locate import locate
from dreamfusion.diffusion.priors.schedulers import for_few_steps


def hints(config: Config) -> list[str]:
    """Sentences without a full stop; none for most. Raises UserError for a prior that is none."""
    if not isinstance(config.objective, DistillationObjective):
        return []
    scheduler = load_component(locate(config.prior, texts=False, half=config.half), "scheduler")
    if config.distill.guidance_scale > 1 and for_few_steps(scheduler):
        return [
            "the prior's scheduler is set for a model distilled to few steps; such models were trained without"
            f" guidance: --guidance-scale 1 in place of {config.distill.guidance_scale:g} may serve it better"
        ]
    return []
