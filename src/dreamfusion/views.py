"""The words that say in a caption from where an object is seen. They belong to the prior: it was trained on them."""

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
    """seen at azimuth 90 degrees: the object's own left side"""
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
        """How much each of `words` says about views from these angles (radians).

        The front is centred on azimuth 0. Weights are >= 0, sum to one in each row and are periodic in the azimuth.
        Without `interpolate` each row has a single 1; with it rows are continuous in the direction, the poles included.
        """
        quarter = azimuth.remainder(2 * math.pi) / (math.pi / 2)  # 0 front, 1 left, 2 back, 3 right, 4 front again
        around = _blended(quarter) if self.interpolate else _nearest(quarter)
        above = self._overhead(elevation)[:, None]
        by_view = torch.cat([(1 - above) * around, above], dim=-1)
        words = self.words
        word_of_view = [[float(word == view) for word in words] for view in self._by_view]
        return by_view @ by_view.new_tensor(word_of_view)

    def _overhead(self, elevation: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        if not self.interpolate:
            return (elevation > self.overhead_above).to(elevation)
        # Half at the threshold and all at the pole, where the azimuth jumps and so may not count.
        band = max(math.pi / 2 - self.overhead_above, 1e-6)
        return (0.5 + 0.5 * (elevation - self.overhead_above) / band).clamp(0.0, 1.0)


def _blended(quarter: Float[Tensor, " b"]) -> Float[Tensor, "b 4"]:
    offset = (quarter[:, None] - torch.arange(4, device=quarter.device) + 2).remainder(4) - 2
    return (1 - offset.abs()).clamp_min(0.0)


def _nearest(quarter: Float[Tensor, " b"]) -> Float[Tensor, "b 4"]:
    side = (quarter + 0.5).floor().remainder(4)
    return (side[:, None] == torch.arange(4, device=quarter.device)).to(quarter)
