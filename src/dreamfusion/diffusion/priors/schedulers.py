"""The noise schedule of a pipeline folder's scheduler; nothing else of the scheduler is used."""

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dreamfusion.diffusion.priors.folder import LOADING_ERRORS, PipelineFolder
from dreamfusion.diffusion.priors.noise_schedule import NoiseSchedule, Prediction
from dreamfusion.errors import UserError


def prediction_of(folder: PipelineFolder, scheduler: Any) -> Prediction:
    """What the network predicts. Raises UserError for anything that is not known here."""
    try:
        return Prediction(scheduler.config.prediction_type)
    except (AttributeError, ValueError) as error:
        raise UserError(
            f"{folder.path / 'scheduler'}: predictions other than epsilon, sample and v_prediction are not supported"
        ) from error


def variance_preserving_schedule(folder: PipelineFolder, scheduler: Any) -> NoiseSchedule:
    """That of DDPM and its kin. Raises UserError if the scheduler has none."""
    try:
        return NoiseSchedule.variance_preserving(scheduler.alphas_cumprod)
    except LOADING_ERRORS as error:
        raise UserError(
            f"{folder.path / 'scheduler'} has no variance preserving noise schedule, which this kind of prior needs"
        ) from error


def for_few_steps(scheduler: Any) -> bool:
    """Whether it is set as those that are published with models distilled to few steps (SD-Turbo, SDXL-Turbo).

    They count timesteps from the noisy end ("trailing"). So do models of v whose last step is pure noise, for another
    reason: their schedules are rescaled. LCM's and TCD's schedulers serve such models alone.
    """
    config = scheduler.config
    trailing = getattr(config, "timestep_spacing", None) == "trailing"
    of_v = getattr(config, "prediction_type", None) == Prediction.V.value
    return (trailing and not of_v) or type(scheduler).__name__ in ("LCMScheduler", "TCDScheduler")


def rectified_flow_schedule(folder: PipelineFolder, scheduler: Any, cells: int) -> NoiseSchedule:
    """The noise levels at which the scheduler would sample `cells` x `cells` latents in as many steps as it was trained
    with. Raises UserError if it is no flow matching scheduler.
    """
    try:
        config = scheduler.config
        sigmas = scheduler.sigmas[: config.num_train_timesteps].flip(0)
        if config.use_dynamic_shifting:
            sigmas = shifted(sigmas, dynamic_shift(config, cells))
        return NoiseSchedule.rectified_flow(sigmas)
    except LOADING_ERRORS as error:
        raise UserError(f"{folder.path / 'scheduler'} is no flow matching scheduler, which this prior needs") from error


def shifted(sigmas: Float[Tensor, " T"], shift: float) -> Float[Tensor, " T"]:
    """Noise levels moved towards the noise: s sigma / (1 + (s - 1) sigma) (docs/reference/derivations.md)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def dynamic_shift(config: Any, cells: int) -> float:
    """The shift for pictures of this size: its logarithm grows linearly with the number of 2 x 2 latent blocks."""
    tokens = (cells // 2) ** 2
    share = (tokens - config.base_image_seq_len) / (config.max_image_seq_len - config.base_image_seq_len)
    mu = config.base_shift + share * (config.max_shift - config.base_shift)
    return math.exp(mu) if config.time_shift_type == "exponential" else mu
