"""The Janus rate: share of side and back views in which the judge finds a front."""

from jaxtyping import Bool, Float
from torch import Tensor

from dreamfusion.evaluate.evaluation_views import VIEWS
from dreamfusion.evaluate.judge.judge import Judge
from dreamfusion.evaluate.judge.sides import SIDES

AWAY = slice(2, VIEWS - 1)
"""of the evaluation views, azimuths 90 to 270 degrees: no front is there (45 and 315 lie on the border)"""
ANGLES = len(range(VIEWS)[AWAY])


def fronts(judge: Judge, images: Float[Tensor, "p 8 h w 3"]) -> Bool[Tensor, "p 5"]:
    """Whether the judge takes each of the views from the side or the back for the front."""
    side = judge.opinion(images[:, AWAY].flatten(0, 1)).side.argmax(1)
    return (side == SIDES.index("front")).view(len(images), ANGLES)
