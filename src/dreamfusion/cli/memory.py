"""The memory of a run: estimated before it, measured after it. Both for people; no file of the run depends on them."""

import torch

from dreamfusion import memory
from dreamfusion.build import prior_options
from dreamfusion.config import Config
from dreamfusion.config.distill import VsdLaw
from dreamfusion.diffusion.priors.locate import locate
from dreamfusion.diffusion.priors.memory_plan import MemoryPlan, plan
from dreamfusion.errors import UserError

GB = 1e9


def planned(config: Config, device: torch.device) -> MemoryPlan:
    """What the prior will need. Raises UserError for a prior that is none, or does not take the options."""
    options = prior_options(config, device)
    captions = 4 if config.perp_neg else 2
    copies = captions * config.distill.noise_samples
    return plan(locate(config.prior, options.texts, config.half), options, config.views, copies)


def in_words(needs: MemoryPlan, config: Config) -> str:
    """What the prior will need, for a sentence."""
    text = f"{needs.text / GB:.2f} GB while the prompt is read, then " if needs.text else ""
    work = needs.denoise + needs.workspace
    parts = f"weights {needs.weights / GB:.2f}, encoding {needs.encode / GB:.2f}, denoising {work / GB:.2f}"
    rest = (
        "what vsd keeps for its own way back, and the 3D half"
        if isinstance(config.distill.law, VsdLaw)
        else "the 3D half"
    )
    return f"{text}{needs.step / GB:.2f} GB ({parts}), and {rest}"


def require_room(needs: MemoryPlan, device: torch.device) -> None:
    """Raise UserError if that is more than the device has to give now."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory.available()
    if free is None or needs.peak <= free:
        return
    if needs.text > free:
        raise UserError(
            f"a text encoder of the prior needs {needs.text / GB:.1f} GB, and {device} has {free / GB:.1f} GB free:"
            " give --half, or read the prompt on another machine with --save-embeddings and give --embeddings"
        )
    raise UserError(
        f"a step needs {needs.step / GB:.1f} GB for the prior, and {device} has {free / GB:.1f} GB free: give --half,"
        " --memory.vae-slicing, a smaller --memory.size or fewer --views, on a GPU --memory.offload, or a smaller prior"
    )


def measured(device: torch.device) -> str | None:
    """The most that this process has held so far on the device that computes, in words; None if nobody says."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_reserved(device) / GB:.2f} GB on {device}"
    held = memory.most_held()
    return None if held is None else f"{held / GB:.2f} GB of main memory, libraries included"
