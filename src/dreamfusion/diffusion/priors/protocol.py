"""The interface of a text-to-image diffusion model: the `Prior` protocol and the records that go through it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.config import ConditionSet
from dreamfusion.diffusion.priors.noise_schedule import NoiseSchedule
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.lights import Light


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
        return ViewCondition(
            pose=None if self.pose is None else self.pose[own],
            background=None if self.background is None else self.background[own],
            light=None if self.light is None else self.light[own],
            variety=None if self.variety is None else self.variety[own],
        )

    def repeated(self, times: int) -> "ViewCondition":
        """The whole batch, `times` times in a row."""
        return ViewCondition(
            pose=None if self.pose is None else _tiled(self.pose, times),
            background=None if self.background is None else _tiled(self.background, times),
            light=None if self.light is None else _tiled_light(self.light, times),
            variety=None if self.variety is None else _tiled(self.variety, times),
        )


def allowed_conditions(able: frozenset[str], wanted: ConditionSet) -> frozenset[str]:
    """The conditions (fields of `ViewCondition`) that are passed to a prior, of those that it can use."""
    return {"all": able, "no-camera": able - {"pose"}, "none": frozenset[str]()}[wanted]


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
    views_per_object: int = 1
    """pictures in a row that show one object and must have the same noise level (`Cameras.together`)"""
    negative: Float[Tensor, "b l d"] | None = None
    """a negative prompt, which takes the place of the empty caption in guidance; None: there is none"""

    def repeated(self, times: int) -> "Conditioning":
        """The whole batch, `times` times in a row."""
        return replace(
            self,
            text=_tiled(self.text, times),
            null_text=_tiled(self.null_text, times),
            known=self.known.repeated(times),
            perp_neg_text=_tiled(self.perp_neg_text, times),
            perp_neg_weight=_tiled(self.perp_neg_weight, times),
            negative=None if self.negative is None else _tiled(self.negative, times),
        )


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
        """All words it knows, lower case; None if it takes any text."""
        ...

    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
        """Text embeddings, all padded to one length; the empty string is the empty caption of guidance.

        Raises UserError if a prompt is longer than the model reads.
        """
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


@runtime_checkable
class MultiViewPrior(Prior, Protocol):
    """A prior that looks at several views of one object at once, in the order of `Cameras.around`."""

    @property
    def views_per_object(self) -> int:
        """How many; 1 is a prior like any other."""
        ...


def _tiled(tensor: Tensor, times: int) -> Tensor:
    return torch.cat([tensor] * times)


def _tiled_light(light: Light, times: int) -> Light:
    return Light(
        position=_tiled(light.position, times),
        ambient=_tiled(light.ambient, times),
        diffuse=_tiled(light.diffuse, times),
        textureless=_tiled(light.textureless, times),
    )
