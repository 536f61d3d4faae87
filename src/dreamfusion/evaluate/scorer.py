"""What measures pictures against captions: the judge of this package, or a contrastive model."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.contrastive import TOYBOX, ContrastiveModel, open_contrastive
from dreamfusion.errors import UserError
from dreamfusion.files import permitted
from dreamfusion.places import find
from dreamfusion.video import to_bytes

CHUNK = 64
"""pictures at a time; bounds memory"""


@runtime_checkable
class Scorer(Protocol):
    """Says how well captions fit pictures."""

    name: str

    def score(self, images: Float[Tensor, "b h w 3"], captions: Sequence[str]) -> Float[Tensor, "b c"]:
        """One number per picture (in [0, 1], any size) and caption, larger for a better fit.

        Numbers are compared within the row of one picture only. Raises UserError for a caption that it cannot judge.
        """
        ...


class CosineScorer:
    """Cosine similarity of the embeddings of a contrastive model."""

    def __init__(self, model: ContrastiveModel):
        self.name, self.model = model.name, model

    @torch.no_grad()
    def score(self, images: Float[Tensor, "b h w 3"], captions: Sequence[str]) -> Float[Tensor, "b c"]:
        """In [-1, 1], on the CPU; pictures are rounded to 8 bits first, as files hold them."""
        chunks = (torch.from_numpy(to_bytes(chunk)).to(self.model.device) / 255 for chunk in images.split(CHUNK))
        seen = torch.cat([self.model.embed_images(chunk) for chunk in chunks])
        return (seen @ self.model.embed_text(captions).T).cpu()


@permitted()
def open_scorer(name: str, device: torch.device | str = "cpu") -> Scorer:
    """ "judge" or "toybox-clip" (come with the package), a `transformers` CLIP or SigLIP folder, or a hub id.

    Raises UserError if there is none of that name.
    """
    if name == "judge":
        from dreamfusion.evaluate.judge.judge import open_judge

        return open_judge(device)
    if name != TOYBOX and find(name) is None:
        raise UserError(
            f'there is no scorer {name!r}: give "judge", "{TOYBOX}", a CLIP or SigLIP folder, or a hub id (owner/name)'
        )
    return CosineScorer(open_contrastive(name, device))
