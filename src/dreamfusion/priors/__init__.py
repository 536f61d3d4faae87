"""Frozen 2D diffusion models behind one protocol. Importing this is cheap: model libraries load with the prior."""

import torch

from dreamfusion.priors.protocol import Conditioning, Known, Prior
from dreamfusion.priors.schedule import NoiseSchedule, Prediction
from dreamfusion.priors.vocabulary import require_known, unknown_words, words_of

__all__ = [
    "Conditioning",
    "Known",
    "NoiseSchedule",
    "Prediction",
    "Prior",
    "open_prior",
    "require_known",
    "unknown_words",
    "words_of",
]


def open_prior(name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Prior:
    """Open the prior that comes with the package ("embedded"), a diffusers pipeline folder, or a hub id (owner/name).

    `dtype` is that of the networks; use torch.float32 on a CPU, where half precision is many times slower.
    Raises UserError if there is no such prior, if its files are damaged, or if its kind is not supported.
    """
    from dreamfusion.priors.opening import open_pipeline

    return open_pipeline(name, torch.device(device), dtype)
