"""The contrastive loss: symmetric InfoNCE (CLIP, arXiv 2103.00020, section 2.3) where several pairs may be right."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def info_nce(
    logits: Float[Tensor, "b n"], right: Bool[Tensor, "b n"], ignored: Bool[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """Mean over the rows of the mean of -log softmax at the row's right columns, of which every row has one.

    Columns that are neither right nor to be told apart are `ignored`: they do not stand in the denominator.
    """
    logs = logits.masked_fill(ignored & ~right, -torch.inf).log_softmax(1)
    return -(torch.where(right, logs, 0.0).sum(1) / right.sum(1)).mean()


def symmetric(logits: Float[Tensor, "b n"], same: Bool[Tensor, "b n"], wrong: Bool[Tensor, "b n"]) -> Float[Tensor, ""]:
    """The mean of both directions; the first b captions are those of the pictures, more of them only pictures meet.

    `same`: which captions read as the picture's own does; they are right. `wrong`: which are wrong about it. All others
    may be true as well, and are ignored.
    """
    b = len(logits)
    pictures = info_nce(logits, same, ~wrong)
    captions = info_nce(logits[:, :b].T, same[:, :b].T, ~wrong[:, :b].T)
    return (pictures + captions) / 2
