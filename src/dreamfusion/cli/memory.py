"""The memory of a run: estimated before it, measured after it. Both for people; no file of the run depends on them."""

import sys

import torch

from dreamfusion.build import prior_options
from dreamfusion.config import Config
from dreamfusion.config.distill import VsdLaw
from dreamfusion.diffusion.priors.locate import locate
from dreamfusion.diffusion.priors.memory_plan import plan

GB = 1e9


def estimated(config: Config, device: torch.device) -> str:
    """What the prior will need, in words. Raises UserError for a prior that is none, or does not take the options."""
    options = prior_options(config, device)
    captions = 4 if config.perp_neg else 2
    copies = captions * config.distill.noise_samples
    needs = plan(locate(config.prior, options.texts, config.half), options, config.views, copies)
    text = f"{needs.text / GB:.2f} GB while the prompt is read, then " if needs.text else ""
    parts = f"weights {needs.weights / GB:.2f}, encoding {needs.encode / GB:.2f}, denoising {needs.denoise / GB:.2f}"
    rest = (
        "what vsd keeps for its own way back, and the 3D half"
        if isinstance(config.distill.law, VsdLaw)
        else "the 3D half"
    )
    return f"{text}{(needs.weights + needs.encode + needs.denoise) / GB:.2f} GB ({parts}), and {rest}"


def measured(device: torch.device) -> str | None:
    """The most that this process has held so far on the device that computes, in words; None if nobody says."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_reserved(device) / GB:.2f} GB on {device}"
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes elsewhere
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GB:.2f} GB of main memory, libraries included"
