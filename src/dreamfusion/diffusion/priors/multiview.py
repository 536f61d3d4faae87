"""Multi-view diffusion: one U-Net that draws several views of one object at once (MVDream, arXiv 2308.16512).

Its U-Net is Stable Diffusion 2.1's with two changes, both of which diffusers' `UNet2DConditionModel` can be told:
- every self-attention spans the tokens of all views of an object (section 3.1), here a wrapper about its processors;
- the camera, 16 numbers, goes through a small network whose output is added to the time embedding (section 3.2): a
  `class_embedding` of type "projection".
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dreamfusion.diffusion.priors.protocol import ViewCondition
from dreamfusion.diffusion.priors.text_encoders import CLIP_LENGTH
from dreamfusion.errors import UserError

VIEWS = 4
"""of one object, a quarter turn apart, one after the other in a batch"""


@dataclass(frozen=True, eq=False)
class MultiViewUNet:
    """Text by cross-attention, the camera beside the time. Its batches are made of groups of `VIEWS` pictures."""

    network: Any

    @property
    def text_shape(self) -> tuple[int, int]:
        """See `denoisers`."""
        return CLIP_LENGTH, self.network.config.cross_attention_dim

    def __call__(
        self, noisy: Float[Tensor, "b c u v"], time: Tensor, text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b k u v"]:
        """See `denoisers`. Raises UserError without a camera, or for pictures that do not come in groups."""
        if known.pose is None:
            raise UserError("a multi-view prior must be told the cameras: use --conditions all")
        if len(noisy) % VIEWS:
            raise UserError(f"a multi-view prior takes groups of {VIEWS} views: use --views {VIEWS}")
        camera = camera_numbers(known.pose).to(noisy)
        return self.network(noisy, time, encoder_hidden_states=text, class_labels=camera).sample


class JointAttention:
    """Wraps an attention processor so that the tokens of all views of an object attend to each other."""

    def __init__(self, single: Any) -> None:
        self.single = single

    def __call__(self, attn: nn.Module, hidden_states: Float[Tensor, "b n d"], **rest: Any) -> Float[Tensor, "b n d"]:
        """Called by diffusers in place of the wrapped processor."""
        tokens = hidden_states.unflatten(0, (-1, VIEWS)).flatten(1, 2)
        return self.single(attn, tokens, **rest).unflatten(1, (VIEWS, -1)).flatten(0, 1)


def join_views(unet: Any) -> None:
    """Make every self-attention of a U-Net (`attn1` in its blocks) span all views of an object."""
    processors = unet.attn_processors
    unet.set_attn_processor(
        {
            name: JointAttention(processor) if name.endswith("attn1.processor") else processor
            for name, processor in processors.items()
        }
    )


def camera_numbers(pose: Float[Tensor, "b 4 4"]) -> Float[Tensor, "b 16"]:
    """world_from_camera as MVDream was told it: its world has z up and y to the back, cameras are at distance 1."""
    z_up = pose.new_tensor([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    turned = z_up @ pose
    position = F.normalize(turned[:, :3, 3:], dim=1)
    return torch.cat([torch.cat([turned[:, :3, :3], position], dim=-1), turned[:, 3:]], dim=1).flatten(1)
