"""From one prompt to the conditioning of each view: a caption with view words, and the other inputs."""

from copy import copy
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.diffusion.priors import Conditioning, ConditionSet, PromptEncoder, ViewCondition, allowed_conditions
from dreamfusion.errors import UserError
from dreamfusion.lights import Light


@dataclass(frozen=True)
class PromptOptions:
    """How a prompt is put to a prior."""

    negative: str = ""
    """takes the place of the empty caption in guidance"""
    view_dependent: bool = True
    """whether view words are appended to captions"""
    conditions: ConditionSet = "all"
    """inputs of the prior besides the caption"""
    variety: int = 0
    """which of the things that the prompt fits (`ViewCondition.variety`)"""
    blend_views: bool = False
    """blend the captions of neighbouring views instead of taking the nearest one, whatever the prior's habit is"""
    perp_neg: float = 0.0
    """factor on the weights with which other views' captions are steered away from (`ViewWords.perp_neg`); 0: never"""
    viewless: bool = False
    """whether the caption without view words is asked for as well (`Conditioning.viewless`)"""


PLAIN = PromptOptions()


class PromptTable:
    """The embeddings of a prompt with all view words of the prior, computed once; a call picks among them.

    It keeps nothing of the reader, whose text encoders may leave the memory.
    """

    def __init__(self, reader: PromptEncoder, prompt: str, options: PromptOptions = PLAIN) -> None:
        """Embed all captions of `prompt` without gradient. Raises UserError if it is empty."""
        if not prompt.strip():
            raise UserError('the prompt is empty: say what to make, for example "a hamburger"')
        blended = options.blend_views or reader.view_words.interpolate
        self.view_words = replace(reader.view_words, interpolate=blended)
        self.prompt, self.options = prompt, options
        self.conditions = allowed_conditions(reader.conditions, options.conditions)
        views = self.view_words.words if options.view_dependent else ("",)
        surfaces = ("", self.view_words.textureless) if self.view_words.textureless else ("",)
        captions = [_caption(prompt, view, surface) for surface, view in product(surfaces, views)]
        asked = options.viewless and options.view_dependent
        viewless = [_caption(prompt, "", surface) for surface in surfaces if asked]
        self.captions = (*captions, "", *viewless, *([options.negative] if options.negative else []))
        # In one call, so that the prior pads all captions to one length.
        with torch.no_grad():
            self.embeddings: Float[Tensor, "p l d"] = reader.embed(self.captions)
        count = len(captions)
        self.table, self.null_text = self.embeddings[:count], self.embeddings[count]
        self.viewless = self.embeddings[count + 1 :][: len(viewless)] if viewless else None
        self.negative = self.embeddings[-1] if options.negative else None

    def steered(self, perp_neg: float) -> "PromptTable":
        """The same captions, with another factor of Perp-Neg."""
        other = copy(self)
        other.options = replace(self.options, perp_neg=perp_neg)
        return other

    def __call__(self, cameras: Cameras, light: Light, background: Float[Tensor, "b 3"] | None = None) -> Conditioning:
        """What to tell the prior about each view. `background` is the colour behind it in [0, 1], where it is plain."""
        text = self._embedded(self.table, self._by_word(cameras), light)
        perp_neg, weight = self._perp_neg(cameras, light, text)
        variety = cameras.fov_y.new_full((len(text),), self.options.variety, dtype=torch.long)
        known = ViewCondition(cameras.pose, background, light, variety).only(self.conditions)
        return Conditioning(
            text=text,
            null_text=self.null_text.expand_as(text),
            known=known,
            perp_neg_text=perp_neg,
            perp_neg_weight=weight,
            negative=None if self.negative is None else self.negative.expand_as(text),
            viewless=None if self.viewless is None else self._embedded(self.viewless, _one_word(cameras), light),
        )

    def _by_word(self, cameras: Cameras) -> Float[Tensor, "b w"]:
        """Share of every view word in every view; each row sums to one."""
        if self.options.view_dependent:
            return self.view_words.weights(cameras.azimuth, cameras.elevation)
        return _one_word(cameras)

    def _perp_neg(
        self, cameras: Cameras, light: Light, text: Float[Tensor, "b l d"]
    ) -> tuple[Float[Tensor, "b k l d"], Float[Tensor, "b k"]]:
        if not self.options.perp_neg:
            return text.new_zeros(len(text), 0, *self.null_text.shape), text.new_zeros(len(text), 0)
        words, weight = self.view_words.perp_neg(cameras.azimuth, cameras.elevation)
        captions = [self._embedded(self.table, by_word, light) for by_word in words.unbind(1)]
        return torch.stack(captions, dim=1), self.options.perp_neg * weight.to(text)

    def _embedded(
        self, table: Float[Tensor, "c l d"], by_word: Float[Tensor, "b w"], light: Light
    ) -> Float[Tensor, "b l d"]:
        """The caption of every view: view words by their shares, and the surface as the light shows it."""
        if self.view_words.textureless:
            white = light.textureless.to(by_word)[:, None]
            by_word = torch.cat([(1 - white) * by_word, white * by_word], dim=-1)
        return torch.einsum("bc,cld->bld", by_word.to(table), table)


def _one_word(cameras: Cameras) -> Float[Tensor, "b 1"]:
    return torch.ones_like(cameras.fov_y)[:, None]


def _caption(prompt: str, view: str, surface: str) -> str:
    return ", ".join(part for part in (prompt.strip(), view, surface) if part)
