"""Frozen 2D diffusion models behind one protocol. Importing this is cheap: model libraries load with the prior."""

from pathlib import Path
from typing import TYPE_CHECKING

from dreamfusion.diffusion.priors.noise_schedule import NoiseSchedule, Prediction
from dreamfusion.diffusion.priors.options import PriorOptions
from dreamfusion.diffusion.priors.protocol import (
    Conditioning,
    ConditionSet,
    LinearEncodingPrior,
    Prior,
    PromptEncoder,
    ViewCondition,
    WordListedEncoder,
    allowed_conditions,
    encoded,
)
from dreamfusion.diffusion.priors.vocabulary import require_known, understood, understood_negative
from dreamfusion.vocabulary import unknown_words
from dreamfusion.words import Understood, WordList, words_of

if TYPE_CHECKING:
    from dreamfusion.diffusion.priors.pipeline import PipelinePrior

__all__ = [
    "ConditionSet",
    "Conditioning",
    "LinearEncodingPrior",
    "NoiseSchedule",
    "Prediction",
    "Prior",
    "PriorOptions",
    "PromptEncoder",
    "Understood",
    "ViewCondition",
    "WordList",
    "WordListedEncoder",
    "allowed_conditions",
    "encoded",
    "open_prior",
    "open_prompt_encoder",
    "require_known",
    "understood",
    "understood_negative",
    "unknown_words",
    "words_of",
]

AS_IT_IS = PriorOptions()


def open_prior(name: str, options: PriorOptions = AS_IT_IS) -> "PipelinePrior":
    """Open the prior that comes with the package ("embedded"), a diffusers pipeline folder, or a hub id.

    A hub id is owner/name, or owner/name@revision. Raises UserError if there is no such prior, if its files are
    damaged, or if its kind or an option is not supported.
    """
    from dreamfusion.diffusion.priors.opening import open_pipeline

    return open_pipeline(name, options)


def open_prompt_encoder(name: str, options: PriorOptions = AS_IT_IS, embeddings: Path | None = None) -> PromptEncoder:
    """What the same prior makes of captions, without its denoiser: text encoders are in memory only while they read.

    `embeddings`: a file of `embeddings.save`, from which captions are taken; no text encoder is needed then. Raises
    UserError as `open_prior` does, or if the file is damaged or of another prior.
    """
    from dreamfusion.diffusion.priors.opening import open_captions

    return open_captions(name, options, embeddings)
