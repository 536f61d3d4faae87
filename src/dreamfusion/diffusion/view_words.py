"""View words of captions ("front view" ...). They belong to the prior: it was trained on them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.errors import UserError


@dataclass(frozen=True)
class ViewWords:
    """Words by direction. The defaults are the paper's (DreamFusion, section 3.2), with one word for both sides."""

    front: str = "front view"
    left: str = "side view"
    """azimuth 90 degrees: the object's own left side"""
    back: str = "back view"
    right: str = "side view"
    overhead: str = "overhead view"
    overhead_above: float = math.radians(60.0)
    """elevation in radians, in [0, pi/2]; pi/2 means never"""
    textureless: str = ""
    """word for renders without texture; empty if the prior has none"""
    interpolate: bool = False
    """blend neighbouring views instead of taking the nearest one, which the paper found to work well"""

    def __post_init__(self) -> None:
        if not 0 <= self.overhead_above <= math.pi / 2:
            raise UserError("overhead_above must lie between 0 and 90 degrees")

    @property
    def words(self) -> tuple[str, ...]:
        """The distinct view words, in the order of the columns of `weights`."""
        return tuple(dict.fromkeys(self._by_view))

    @property
    def _by_view(self) -> tuple[str, ...]:
        return (self.front, self.left, self.back, self.right, self.overhead)

    def weights(self, azimuth: Float[Tensor, " b"], elevation: Float[Tensor, " b"]) -> Float[Tensor, "b w"]:
        """Weight of each of `words` for views from these angles (radians).

        The front is centred on azimuth 0. Weights are >= 0, sum to one in each row and are periodic in the azimuth.
        Without `interpolate` each row has a single 1; with it rows are continuous in the direction, the poles included.
        """
        quarter = _quarter(azimuth)
        around = _blended(quarter) if self.interpolate else _nearest(quarter)
        above = self._overhead(elevation)[:, None]
        return self._by_word(torch.cat([(1 - above) * around, above], dim=-1))

    def perp_neg(
        self, azimuth: Float[Tensor, " b"], elevation: Float[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b 2 w"], Float[Tensor, "b 2"]]:
        """What Perp-Neg steers away from: the front and the nearer side, each as a row of `words`, and their weights.

        Weights are <= 0, continuous and even in the azimuth, 0 where the view is that very one, and 0 from overhead.
        They are the shifted exponentials of Armandpour et al. 2023 (arXiv 2304.04968, section 4), with the numbers of
        threestudio: only the front, which priors prefer, is steered against from behind as well.
        """
        quarter = _quarter(azimuth)
        front, left, _, right = _blended(quarter).unbind(-1)
        side, on_left, behind = left + right, (quarter <= 2).to(front), ((quarter - 2).abs() < 1).to(front)
        one, none = torch.ones_like(front), torch.zeros_like(front)
        captions = [
            torch.stack([one, none, none, none, none], dim=-1),
            torch.stack([none, on_left, none, 1 - on_left, none], dim=-1),
        ]
        of_front = 4 * _decay(front) + behind * _decay(side)
        of_side = (4 - 3 * behind) * _decay(side)
        weight = -torch.stack([of_front, of_side], dim=-1) * (1 - self._overhead(elevation)[:, None])
        return self._by_word(torch.stack(captions, dim=1)), weight

    def _by_word(self, by_view: Float[Tensor, "*b v"]) -> Float[Tensor, "*b w"]:
        words = self.words
        word_of_view = [[float(word == view) for word in words] for view in self._by_view]
        return by_view @ by_view.new_tensor(word_of_view)

    def _overhead(self, elevation: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        if not self.interpolate:
            return (elevation > self.overhead_above).to(elevation)
        # Half at the threshold and all at the pole, where the azimuth jumps and so may not count.
        band = max(math.pi / 2 - self.overhead_above, 1e-6)
        return (0.5 + 0.5 * (elevation - self.overhead_above) / band).clamp(0.0, 1.0)


def _quarter(azimuth: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """0 front, 1 left, 2 back, 3 right, 4 front again."""
    return azimuth.remainder(2 * math.pi) / (math.pi / 2)


def _decay(share: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """From 0.39 where a word has no share in a view to 0 where it has all."""
    return torch.exp(-0.5 * share) - math.exp(-0.5)


def _blended(quarter: Float[Tensor, " b"]) -> Float[Tensor, "b 4"]:
    offset = (quarter[:, None] - torch.arange(4, device=quarter.device) + 2).remainder(4) - 2
    return (1 - offset.abs()).clamp_min(0.0)


def _nearest(quarter: Float[Tensor, " b"]) -> Float[Tensor, "b 4"]:
    side = (quarter + 0.5).floor().remainder(4)
    return (side[:, None] == torch.arange(4, device=quarter.device)).to(quarter)
