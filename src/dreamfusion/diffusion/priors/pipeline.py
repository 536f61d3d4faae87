"""A diffusers pipeline as a prior: words, a space and a denoiser, each of its own kind, put together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.diffusion.priors.card import Described
from dreamfusion.diffusion.priors.denoisers import Denoiser
from dreamfusion.diffusion.priors.folder import LOADING_ERRORS, reason
from dreamfusion.diffusion.priors.noise_schedule import NoiseSchedule, Prediction
from dreamfusion.diffusion.priors.protocol import ViewCondition
from dreamfusion.diffusion.priors.spaces import LatentSpace, PixelSpace
from dreamfusion.diffusion.priors.text_encoders import Embed, TextEncoders
from dreamfusion.errors import UserError
from dreamfusion.runtime import side_by_side


@dataclass(frozen=True, eq=False)
class PipelineEncoder(Described):
    """A `PromptEncoder` that loads a folder's text encoders when needed, and frees them."""

    encoders: TextEncoders
    read: Embed

    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
        """See `PromptEncoder.embed`; in the dtype of the text encoders.

        Raises UserError for prompts that are too long, and for files that were damaged so that they opened.
        """
        try:
            return self.read(self.encoders, prompts)
        except (UserError, PermissionError, torch.OutOfMemoryError):
            raise
        except LOADING_ERRORS as error:
            raise UserError(
                f"the text encoders of {self.encoders.folder.path} fail at work ({reason(error)}): restore the folder"
            ) from error


@dataclass(frozen=True, eq=False)
class PipelinePrior(PipelineEncoder):
    """A `LinearEncodingPrior`."""

    space: PixelSpace | LatentSpace
    denoiser: Denoiser
    dtype: torch.dtype
    """of the denoiser"""
    prediction: Prediction
    schedule: NoiseSchedule
    side: int = 1
    """parts of a batch that are evaluated at the same time"""

    @property
    def image_size(self) -> int:
        return self.space.size

    @property
    def network(self) -> Any:
        """What can be adapted: the denoiser."""
        return self.denoiser.network

    def encode(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b c u v"]:
        """See `Prior.encode`: square pictures of any size."""
        return self.space.encode(image)

    def encode_linear(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b c u v"]:
        """See `LinearEncodingPrior.encode_linear`."""
        return self.space.encode_linear(image)

    def decode(self, x: Float[Tensor, "b c u v"]) -> Float[Tensor, "b h w 3"]:
        """Back to pictures in [0, 1], for people."""
        return self.space.decode(x)

    def predict_noise(
        self, noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"], text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b c u v"]:
        """See `Prior.predict_noise`; the network runs in its own dtype, the rest in that of `noisy`."""
        if self.side == 1 or len(noisy) < self.side:
            return self._predicted(noisy, t, text, known)
        bounds = [len(noisy) * part // self.side for part in range(self.side + 1)]
        parts = [slice(*ends) for ends in pairwise(bounds)]
        calls = [partial(self._predicted, noisy[own], t[own], text[own], known.rows(own)) for own in parts]
        return torch.cat(side_by_side(calls))

    def _predicted(
        self, noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"], text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b c u v"]:
        # Flow matching networks count time by the noise level, the others by the timestep.
        flow = self.prediction is Prediction.FLOW
        time = self.schedule.steps * self.schedule.sigma(t) if flow else t
        output = self.denoiser(noisy.to(self.dtype), time, text.to(self.dtype), known)
        # Channels beyond the input's are a learned variance, which distillation has no use for.
        return self.schedule.epsilon(self.prediction, output[:, : noisy.shape[1]].to(noisy), noisy, t)
