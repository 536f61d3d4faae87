"""R-Precision (Park et al. 2021; DreamFusion, appendix A.3): is a picture's own caption the one that fits it best?"""

import math
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

Z_95 = 1.959964
"""quantile of the normal distribution for an interval of 95 %"""


@dataclass(frozen=True)
class Share:
    """A share in [0, 1] with Wilson's 95 % interval."""

    value: float
    low: float
    high: float
    count: int
    """of the independent trials behind it"""


def retrieved(scores: Float[Tensor, "p v c"], own: Int[Tensor, " p"]) -> Bool[Tensor, "p v"]:
    """Whether each of v pictures of p prompts scores higher with its own caption than with every other one.

    `own` is the place of the prompt's caption among the c. Ties, and scores that are no numbers, count against us.
    """
    mine = scores.gather(2, own[:, None, None].expand(-1, scores.shape[1], 1))
    # Not "none is as high": a comparison with NaN is false.
    beaten = mine > scores
    return beaten.sum(-1) == scores.shape[-1] - 1


def wilson(value: float, count: int) -> Share:
    """The 95 % interval of a share seen in `count` independent trials (Wilson 1927); `value` need not be a multiple of
    1 / count. Without trials nothing is known.
    """
    if count == 0:
        return Share(math.nan, 0.0, 1.0, 0)
    z2 = Z_95**2 / count
    middle = (value + z2 / 2) / (1 + z2)
    half = Z_95 / (1 + z2) * math.sqrt(value * (1 - value) / count + z2 / (4 * count))
    return Share(value, min(max(0.0, middle - half), value), max(min(1.0, middle + half), value), count)
