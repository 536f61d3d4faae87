"""What a run's pictures are judged by. Imports nothing slow, as `config`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from dreamfusion.config.bounds import Amount, Count, Span
from dreamfusion.schedules import Geometric, Schedule

CONTRASTIVE = "toybox-clip"
"""The contrastive model of this package"""


@dataclass(frozen=True)
class DistillationObjective:
    """Score distillation from the prior, as --distill says."""


@dataclass(frozen=True)
class DreamFieldsObjective:
    """Dream Fields: similarity to the caption, and empty space (Jain et al. 2022)."""

    model: str = CONTRASTIVE
    """contrastive model: toybox-clip, the folder of a CLIP or SigLIP model, or a hub id"""
    crops: Count = 8
    """random crops per view, each with a background of its own"""
    crop_size: Annotated[float, Interval(gt=0, le=1)] = 80 / 88
    """side of a crop, as a fraction of the view's"""
    transmittance: Amount = 0.5
    """weight of the mean transmittance, up to its target"""
    opacity: Annotated[Schedule, Interval(gt=0, le=1)] = Geometric(0.5, 0.1, 0.0, 500 / 10_000)
    """target of the mean opacity, scaled with the area that the object covers there"""
    checker_squares: Count = 8
    """squares per side of a chequered background"""
    blur: Span = (0.0, 10.0 / 224)
    """standard deviation of the backgrounds' blur, as a fraction of their side (low high)"""


@dataclass(frozen=True)
class ClipMeshObjective:
    """CLIP-Mesh: similarity of a mesh's pictures to the caption, and smoothness (Khalid et al. 2022)."""

    model: str = CONTRASTIVE
    """contrastive model: toybox-clip, the folder of a CLIP or SigLIP model, or a hub id"""
    laplacian: Amount = 30.0
    """weight of the control mesh's uniform Laplacian at first"""
    laplacian_least: Amount = 0.6
    """weight that it falls to"""
    laplacian_decay: Amount = 12.5
    """decades by which the difference falls, with the square of the run's progress"""


ObjectiveConfig = DistillationObjective | DreamFieldsObjective | ClipMeshObjective
