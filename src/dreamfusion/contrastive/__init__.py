"""Contrastive image-text models: captions and pictures as unit vectors of one space, with gradients to the pictures.

Importing this is cheap: `transformers` loads with its models.
"""

from dreamfusion.contrastive.model import ContrastiveModel
from dreamfusion.contrastive.opening import TOYBOX, open_contrastive

__all__ = ["TOYBOX", "ContrastiveModel", "open_contrastive"]
