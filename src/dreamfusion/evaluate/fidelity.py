"""How near a result is to the thing that its prompt means: colours, outline and normals in the evaluation views."""

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from statistics import fmean

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamfusion.evaluate.evaluation_views import BACKDROP, KINDS, Views
from dreamfusion.geometry import normalise


@dataclass(frozen=True)
class Fidelity:
    """Means over the eight evaluation views."""

    object_psnr_db: float
    """of the unlit colours, over the pixels of the two silhouettes"""
    silhouette_iou: float
    normal_error_deg: float
    """mean angle between the normals, over the pixels of both silhouettes; 90 where nothing is in both"""


@dataclass(frozen=True)
class Likeness:
    """How near a result is to the thing that was meant, and how near it could be."""

    own: Fidelity
    perfect: Fidelity
    """what the perfect prior reaches on the same prompt"""
    nothing: Fidelity
    """what the bare backdrop reaches"""

    @property
    def share(self) -> dict[str, float]:
        """By measure, of the way from the bare backdrop to what the perfect prior reaches."""
        own, perfect, nothing = asdict(self.own), asdict(self.perfect), asdict(self.nothing)
        return {name: (own[name] - nothing[name]) / (perfect[name] - nothing[name]) for name in own}


def likeness(shown: Views | None, true: Views, perfect: Fidelity) -> Likeness:
    """Measure a result, whose views are None if it came to nothing."""
    nothing = nothing_like(true)
    return Likeness(compared(shown or nothing, true), perfect, compared(nothing, true))


def mean_likeness(several: Sequence[Likeness]) -> Likeness:
    """Over results; its share is that of the means."""

    def mean(each: Sequence[Fidelity]) -> Fidelity:
        return Fidelity(*map(fmean, zip(*map(astuple, each), strict=True)))

    return Likeness(*(mean([getattr(one, part) for one in several]) for part in ("own", "perfect", "nothing")))


def compared(shown: Views, true: Views) -> Fidelity:
    """How far views of a result are from the true ones."""
    from dreamfusion.mesh.agreement import OPAQUE, overlap, psnr  # with it come scipy and skimage

    ours, theirs = (views.opacity > OPAQUE for views in (shown, true))
    ours_unlit, theirs_unlit = (views.pictures[KINDS.index("albedo")] for views in (shown, true))
    return Fidelity(
        object_psnr_db=psnr(ours_unlit - theirs_unlit, ours | theirs),
        silhouette_iou=overlap(ours, theirs),
        normal_error_deg=_angle(shown.normal, true.normal, ours & theirs),
    )


def nothing_like(true: Views) -> Views:
    """The bare backdrop: what a run shows that came to nothing."""
    bare = torch.full_like(true.pictures, BACKDROP)
    return Views(bare, torch.zeros_like(true.normal), torch.zeros_like(true.opacity))


def _angle(one: Float[Tensor, "b h w 3"], other: Float[Tensor, "b h w 3"], where: Bool[Tensor, "b h w"]) -> float:
    """Mean angle in degrees at some pixels of each view, mean over the views."""
    cosine = (normalise(one) * normalise(other)).sum(-1).clamp(-1, 1)
    angle = torch.rad2deg(torch.acos(cosine)) * where
    pixels = where.sum((1, 2))
    return float(torch.where(pixels > 0, angle.sum((1, 2)) / pixels.clamp(min=1), 90.0).mean())
