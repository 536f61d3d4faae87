"""Score distillation (DreamFusion, section 2) and its relatives: gradients from a frozen diffusion model.

`docs/reference/derivations.md` derives them; every law is one small file or less.
"""

from dreamfusion.diffusion.distill.distillation import Distillation, clip_per_image_norm, surrogate
from dreamfusion.diffusion.distill.dsd import Dsd
from dreamfusion.diffusion.distill.esd import Esd
from dreamfusion.diffusion.distill.ism import Ism
from dreamfusion.diffusion.distill.law import Law, LearnedLaw, StatefulLaw
from dreamfusion.diffusion.distill.laws import Csd, Nfsd, Sds
from dreamfusion.diffusion.distill.noised import NoisedBatch
from dreamfusion.diffusion.distill.timesteps import DreamTime, TimestepSampler, UniformTimesteps
from dreamfusion.diffusion.distill.vsd import Vsd
from dreamfusion.diffusion.distill.weighting import AlphaSigma, SigmaSquared, Uniform, Weighting

__all__ = [
    "AlphaSigma",
    "Csd",
    "Distillation",
    "DreamTime",
    "Dsd",
    "Esd",
    "Ism",
    "Law",
    "LearnedLaw",
    "Nfsd",
    "NoisedBatch",
    "Sds",
    "SigmaSquared",
    "StatefulLaw",
    "TimestepSampler",
    "Uniform",
    "UniformTimesteps",
    "Vsd",
    "Weighting",
    "clip_per_image_norm",
    "surrogate",
]
