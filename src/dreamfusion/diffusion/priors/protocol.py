"""The interface of a text-to-image diffusion model: the `Prior` protocol and the records that go through it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.config import ConditionSet
from dreamfusion.diffusion.priors.noise_schedule import NoiseSchedule
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.lights import Light
from dreamfusion.records import mapped
from dreamfusion.words import WordList


@dataclass(frozen=True, eq=False)
class ViewCondition:
    """What is known of pictures besides their caption, or None. A prior uses what its `conditions` name, no more."""

    pose: Float[Tensor, "b 4 4"] | None = None
    """world_from_camera"""
    background: Float[Tensor, "b 3"] | None = None
    """a plain colour in [0, 1]"""
    light: Light | None = None
    variety: Int[Tensor, " b"] | None = None
    """which of the things that the caption fits, by any number >= 0; the same number means the same thing"""

    def only(self, names: Collection[str]) -> "ViewCondition":
        """The fields of these names; the others are hidden."""
        return ViewCondition(**{name: getattr(self, name) for name in names})

    def rows(self, own: slice) -> "ViewCondition":
        """Those of some of the pictures."""
        return mapped(self, lambda tensor: tensor[own])

    def repeated(self, times: int) -> "ViewCondition":
        """The whole batch, `times` times in a row."""
        return mapped(self, lambda tensor: torch.cat([tensor] * times))


def allowed_conditions(able: frozenset[str], wanted: ConditionSet) -> frozenset[str]:
    """The conditions (fields of `ViewCondition`) that are passed to a prior, of those that it can use."""
    hidden = {"all": set[str](), "no-camera": {"pose"}, "no-variety": {"variety"}, "none": able}
    return able - hidden[wanted]


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What a batch of pictures should show, as guidance needs it."""

    text: Float[Tensor, "b l d"]
    """embeddings as the prior made them: they may be blended and stacked, and are otherwise its own affair"""
    null_text: Float[Tensor, "b l d"]
    """the empty caption"""
    known: ViewCondition
    perp_neg_text: Float[Tensor, "b k l d"]
    """captions to steer relative to, besides `empty` (Perp-Neg); k = 0 is plain classifier-free guidance"""
    perp_neg_weight: Float[Tensor, "b k"]
    """of each `against`: negative steers away from it, positive towards it"""
    negative: Float[Tensor, "b l d"] | None = None
    """a negative prompt, which takes the place of the empty caption in guidance; None: there is none"""
    viewless: Float[Tensor, "b l d"] | None = None
    """the caption without view words, for laws that hide the camera (`Esd`); None: `text` has none, or nobody asks"""

    def repeated(self, times: int) -> "Conditioning":
        """The whole batch, `times` times in a row."""
        return mapped(self, lambda tensor: torch.cat([tensor] * times))


@runtime_checkable
class PromptEncoder(Protocol):
    """Embeds captions, and names the prior's other inputs. It can be made before the networks are loaded."""

    @property
    def name(self) -> str: ...

    @property
    def view_words(self) -> ViewWords: ...

    @property
    def conditions(self) -> frozenset[str]:
        """Which fields of `ViewCondition` it uses: a subset of "pose", "background", "light", "variety"."""
        ...

    @property
    def vocabulary(self) -> frozenset[str] | None:
        """Vocabulary, lower case; None if it takes any text."""
        ...

    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
        """Text embeddings, all padded to one length; the empty string is the empty caption of guidance.

        Raises UserError if a prompt is longer than the model reads.
        """
        ...


@runtime_checkable
class WordListedEncoder(PromptEncoder, Protocol):
    """One that may know what people type beside the words it learned."""

    @property
    def words(self) -> WordList | None:
        """None if it is given what was typed."""
        ...


@runtime_checkable
class Prior(PromptEncoder, Protocol):
    """A frozen text-to-image diffusion model. It speaks epsilon, whatever its network predicts."""

    @property
    def schedule(self) -> NoiseSchedule: ...

    @property
    def image_size(self) -> int:
        """Pixels per side of the (square) pictures that it was trained on."""
        ...

    def encode(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b c u v"]:
        """Pictures in [0, 1] to diffusion space; differentiable."""
        ...

    def predict_noise(
        self, noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"], text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b c u v"]:
        """The noise in `noisy` at the timesteps t. Networks are frozen; gradients flow to what was added to them."""
        ...


@runtime_checkable
class LinearEncodingPrior(Prior, Protocol):
    """A prior with a cheaper way into its diffusion space, good enough for a first sketch."""

    def encode_linear(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b c u v"]:
        """About what `encode` makes of the pictures; differentiable."""
        ...


def encoded(prior: Prior, image: Float[Tensor, "b h w 3"], linear: bool) -> Float[Tensor, "b c u v"]:
    """Pictures in [0, 1] to the prior's diffusion space; with `linear`, the cheaper way, if the prior has one."""
    return prior.encode_linear(image) if linear and isinstance(prior, LinearEncodingPrior) else prior.encode(image)
