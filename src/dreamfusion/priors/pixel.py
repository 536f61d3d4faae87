"""Diffusion models that work on pixels: DeepFloyd IF's first stage, and the embedded prior, a folder of that kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dreamfusion.errors import UserError
from dreamfusion.priors.card import Card, read_card
from dreamfusion.priors.folder import PipelineFolder, load_component, load_network
from dreamfusion.priors.protocol import Known
from dreamfusion.priors.schedule import NoiseSchedule, Prediction
from dreamfusion.priors.text import TextEncoder
from dreamfusion.views import ViewWords

# T5 reads any length, but IF's first stage was trained with this one.
IF_LENGTH = 77


@dataclass(frozen=True, eq=False)
class PixelPrior:
    """A `Prior` whose diffusion space is the picture itself, "b 3 s s" in [-1, 1]."""

    card: Card
    text_encoder: TextEncoder
    unet: nn.Module
    """called as diffusers calls it: (noisy, t, encoder_hidden_states=text), and with the card's conditions by name"""
    prediction: Prediction
    schedule: NoiseSchedule

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def image_size(self) -> int:
        return self.card.image_size

    @property
    def view_words(self) -> ViewWords:
        return self.card.view_words

    @property
    def conditions(self) -> frozenset[str]:
        return self.card.conditions

    @property
    def vocabulary(self) -> frozenset[str] | None:
        return self.card.vocabulary

    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
        """See `Prior.embed`; in the dtype of the text encoder."""
        return self.text_encoder(prompts)

    def encode(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 s s"]:
        """Square pictures in [0, 1] to [-1, 1], resampled (linear, antialiased) only if they have another size."""
        if image.shape[1] != image.shape[2]:
            raise ValueError(f"pictures for the prior must be square, not {image.shape[1]} x {image.shape[2]}")
        x = image.permute(0, 3, 1, 2)
        if x.shape[-1] != self.image_size:
            x = F.interpolate(x, size=(self.image_size, self.image_size), mode="bilinear", antialias=True)
        return 2 * x - 1

    @property
    def network(self) -> nn.Module:
        """What can be adapted: the denoiser."""
        return self.unet

    def predict_noise(
        self, noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"], text: Float[Tensor, "b l d"], known: Known
    ) -> Float[Tensor, "b c u v"]:
        """See `Prior.predict_noise`; the network runs in its own dtype, the rest in that of `noisy`."""
        dtype = next(self.unet.parameters()).dtype
        told = {name: getattr(known, name) for name in self.conditions}
        output = self.unet(noisy.to(dtype), t, encoder_hidden_states=text.to(dtype), **told)
        # diffusers' networks wrap their output in a record; channels beyond the input's are IF's learned variance.
        predicted = getattr(output, "sample", output)[:, : noisy.shape[1]].to(noisy)
        return self.schedule.epsilon(self.prediction, predicted, noisy, t)


def open_pixel(folder: PipelineFolder, device: torch.device, dtype: torch.dtype) -> PixelPrior:
    """Open a pixel-space pipeline folder. Raises UserError if a part is missing, damaged or of an unsupported kind."""
    scheduler = load_component(folder, "scheduler")
    prediction, schedule = _read_prediction(folder, scheduler), _read_schedule(folder, scheduler)
    unet = load_network(folder, "unet", device, dtype)
    card = read_card(folder.path, unet.config.sample_size)
    tokenizer = load_component(folder, "tokenizer")
    length = min(IF_LENGTH, tokenizer.model_max_length)
    encoder = TextEncoder(tokenizer, load_network(folder, "text_encoder", device, dtype), length, card.zero_padding)
    return PixelPrior(card, encoder, unet, prediction, schedule.to(device))


def _read_prediction(folder: PipelineFolder, scheduler) -> Prediction:
    try:
        return Prediction(scheduler.config.prediction_type)
    except (AttributeError, ValueError) as error:
        raise UserError(
            f"{folder.path / 'scheduler'}: predictions other than epsilon, sample and v_prediction are not supported"
        ) from error


def _read_schedule(folder: PipelineFolder, scheduler) -> NoiseSchedule:
    try:
        return NoiseSchedule(scheduler.alphas_cumprod)
    except (AttributeError, ValueError) as error:
        raise UserError(
            f"{folder.path / 'scheduler'} has no variance preserving noise schedule, which a prior needs"
        ) from error
