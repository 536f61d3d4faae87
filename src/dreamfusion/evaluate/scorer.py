"""What measures pictures against captions: the judge of this package, or a CLIP that the user has."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Scorer(Protocol):
    """Says how well captions fit pictures."""

    name: str

    def score(self, images: Float[Tensor, "b h w 3"], captions: Sequence[str]) -> Float[Tensor, "b c"]:
        """One number per picture (in [0, 1], any size) and caption, larger for a better fit.

        Numbers are compared within the row of one picture only. Raises UserError for a caption that it cannot judge.
        """
        ...


def open_scorer(name: str, device: torch.device | str = "cpu") -> Scorer:
    """ "judge" (comes with the package), or a `transformers` CLIP or SigLIP: a folder, or a hub id (owner/name).

    Raises UserError if there is none of that name.
    """
    if name == "judge":
        from dreamfusion.evaluate.judge.judge import open_judge

        return open_judge(device)
    from dreamfusion.evaluate.clip import open_clip

    return open_clip(name, device)
