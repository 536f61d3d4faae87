"""The interface of a contrastive image-text model: the `ContrastiveModel` protocol."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class ContrastiveModel(Protocol):
    """A frozen pair of encoders into one space, in which a picture is near its caption (CLIP, SigLIP and their kind).

    It is opened onto a device, `open_contrastive(name, device)`, and takes pictures and gives embeddings there.
    """

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def image_size(self) -> int:
        """Pixels per side to which `embed_images` resizes."""
        ...

    @property
    def logit_scale(self) -> float:
        """By which cosines were multiplied in training, the inverse of the temperature."""
        ...

    def embed_text(self, captions: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit vectors of captions, without gradients; captions are cut to the length that the model reads.

        Raises UserError for a caption of which a model of few words understands none.
        """
        ...

    def embed_images(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        """Unit vectors of sRGB pictures in [0, 1] of any size; differentiable with respect to the pictures.

        The networks themselves are frozen: no gradients gather in them.
        """
        ...
