"""From one prompt to what the prior is told about each view: a caption with view words, and what else is known."""

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.errors import UserError
from dreamfusion.lights import Light
from dreamfusion.priors import Conditioning, Known, Reader


class PromptTable:
    """The embeddings of a prompt with all view words of the prior, computed once; a call picks among them.

    It keeps nothing of the reader, whose text encoders may leave the memory.
    """

    def __init__(
        self, reader: Reader, prompt: str, negative: str = "", view_dependent: bool = True, use_conditions: bool = True
    ) -> None:
        """Embed all captions of `prompt` without gradient. Raises UserError if it is empty.

        `negative` takes the place of the empty caption in guidance. Without `view_dependent` the caption is the same
        from everywhere. Without `use_conditions` the prior hears of view, background and light through words only.
        """
        if not prompt.strip():
            raise UserError('the prompt is empty: say what to make, for example "a hamburger"')
        self.view_words = reader.view_words
        self.view_dependent = view_dependent
        self.conditions = reader.conditions if use_conditions else frozenset[str]()
        views = self.view_words.words if view_dependent else ("",)
        surfaces = ("", self.view_words.textureless) if self.view_words.textureless else ("",)
        captions = (_caption(prompt, view, surface) for surface, view in product(surfaces, views))
        self.captions = (*captions, negative)
        # In one call, so that the prior pads all captions to one length.
        with torch.no_grad():
            self.embeddings: Float[Tensor, "p l d"] = reader.embed(self.captions)
        self.table, self.empty = self.embeddings[:-1], self.embeddings[-1]

    def __call__(self, cameras: Cameras, light: Light, background: Float[Tensor, "b 3"] | None = None) -> Conditioning:
        """What to tell the prior about each view, for plain guidance (nothing to steer against).

        `background` is the colour behind the object in [0, 1], where it is plain.
        """
        text = torch.einsum("bc,cld->bld", self._weights(cameras, light).to(self.table), self.table)
        known = Known(
            pose=cameras.pose if "pose" in self.conditions else None,
            background=background if "background" in self.conditions else None,
            light=light if "light" in self.conditions else None,
        )
        return Conditioning(
            text=text,
            empty=self.empty.expand_as(text),
            known=known,
            against=text.new_zeros(len(text), 0, *self.empty.shape),
            weight=text.new_zeros(len(text), 0),
            together=cameras.together,
        )

    def _weights(self, cameras: Cameras, light: Light) -> Float[Tensor, "b c"]:
        """Share of every caption in every view; each row sums to one."""
        by_view = torch.ones_like(cameras.fov_y)[:, None]
        if self.view_dependent:
            by_view = self.view_words.weights(cameras.azimuth, cameras.elevation)
        if not self.view_words.textureless:
            return by_view
        white = light.white.to(by_view)[:, None]
        return torch.cat([(1 - white) * by_view, white * by_view], dim=-1)


def _caption(prompt: str, view: str, surface: str) -> str:
    return ", ".join(part for part in (prompt.strip(), view, surface) if part)
