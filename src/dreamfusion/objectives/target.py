"""A caption as a contrastive model sees it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dreamfusion.contrastive.model import ContrastiveModel


@dataclass(frozen=True, eq=False)
class Target:
    """What pictures are to be near to."""

    caption: str
    embedding: Float[Tensor, "1 d"]
    """a unit vector"""


def target(caption: str, model: ContrastiveModel) -> Target:
    """The caption, embedded."""
    return Target(caption, model.embed_text([caption]))
