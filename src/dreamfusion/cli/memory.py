"""The memory of a run: estimated before it, measured after it. Both for people; no file of the run depends on them."""

from dataclasses import dataclass

import torch

from dreamfusion import memory
from dreamfusion.build import prior_options
from dreamfusion.config import Config
from dreamfusion.config.distill import VsdLaw
from dreamfusion.diffusion.priors.locate import locate
from dreamfusion.diffusion.priors.memory_plan import MemoryPlan, plan
from dreamfusion.errors import UserError
from dreamfusion.nerf.memory_plan import RECKONED
from dreamfusion.nerf.memory_plan import plan as scene_plan

GB = 1e9


@dataclass(frozen=True)
class Needs:
    """Bytes on the device that computes, of both halves; libraries and what a driver takes for itself come on top."""

    prior: MemoryPlan
    scene: int
    """of the 3D half at the dearest stage of the run (`nerf.memory_plan`)"""

    @property
    def step(self) -> int:
        """At any time of a step: the pictures' way back waits while the prior works."""
        return self.prior.step + self.scene

    @property
    def peak(self) -> int:
        """At any time of the run."""
        return max(self.prior.text, self.step)


def planned(config: Config, device: torch.device) -> Needs:
    """What a run will need. Raises UserError for a prior that is none, or does not take the options."""
    options = prior_options(config, device)
    captions = 4 if config.perp_neg else 2
    copies = captions * config.distill.noise_samples
    prior = plan(locate(config.prior, options.texts, config.half), options, config.views, copies)
    return Needs(prior, scene_plan(config).peak)


def in_words(needs: Needs, config: Config) -> str:
    """What a run will need, for a sentence."""
    prior = needs.prior
    text = f"{prior.text / GB:.2f} GB while the prompt is read, then " if prior.text else ""
    work = prior.denoise + prior.workspace
    parts = (
        f"weights {prior.weights / GB:.2f}, encoding {prior.encode / GB:.2f}, denoising {work / GB:.2f},"
        f" 3D half {needs.scene / GB:.2f}"
    )
    rest = ", and what vsd keeps for its own way back" if isinstance(config.distill.law, VsdLaw) else ""
    rest += "" if isinstance(config.scene.field, RECKONED) else ", and what the field keeps of its samples"
    return f"{text}{needs.step / GB:.2f} GB ({parts}){rest}"


def require_room(needs: Needs, device: torch.device) -> None:
    """Raise UserError if that is more than the device has to give now."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory.available()
    if free is None or needs.peak <= free:
        return
    text = needs.prior.text
    if text > free:
        raise UserError(
            f"a text encoder of the prior needs {text / GB:.1f} GB, and {device} has {free / GB:.1f} GB free:"
            " give --half, or read the prompt on another machine with --save-embeddings and give --embeddings"
        )
    raise UserError(
        f"a step needs {needs.step / GB:.1f} GB, {needs.scene / GB:.1f} of them for the 3D half, and {device} has"
        f" {free / GB:.1f} GB free: give --half, --memory.vae-slicing, a smaller --memory.size or --size, fewer"
        " --views, on a GPU --memory.offload, or a smaller prior"
    )


def measured(device: torch.device) -> str | None:
    """The most that this process has held so far on the device that computes, in words; None if nobody says."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_reserved(device) / GB:.2f} GB on {device}"
    held = memory.most_held()
    return None if held is None else f"{held / GB:.2f} GB of main memory, libraries included"
