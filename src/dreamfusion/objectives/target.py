"""A caption as a contrastive model sees it, and how near pictures are to it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from dreamfusion.contrastive import ContrastiveModel
from dreamfusion.errors import UserError


@dataclass(frozen=True, eq=False)
class Target:
    """What pictures are to be near to."""

    caption: str
    embedding: Float[Tensor, "1 d"]
    """a unit vector"""


def target_of(caption: str, model: ContrastiveModel) -> Target:
    """The caption, embedded. Raises UserError as `embed_text`."""
    return Target(caption, model.embed_text([caption]))


def similarity(pictures: Float[Tensor, "n h w 3"], model: ContrastiveModel, target: Target) -> Float[Tensor, ""]:
    """Mean cosine of the pictures' and the caption's embeddings, in [-1, 1].

    Raises UserError if no gradient would come back from there.
    """
    cosine = (model.embed_images(pictures) * target.embedding).sum(-1).mean()
    if not cosine.requires_grad:
        whose = "contrastive model" if pictures.requires_grad else "field"
        raise UserError(f"nothing would train the scene: the {whose} returns tensors without their graph")
    return cosine
