"""Score distillation (DreamFusion, section 2) and its relatives: a frozen diffusion model says how renderings change.

`docs/derivations.md` derives them; every law is one small file or less.
"""

from dreamfusion.distill.distillation import Distillation, Law, shortened, surrogate
from dreamfusion.distill.draw import Draw
from dreamfusion.distill.interval import Ism
from dreamfusion.distill.laws import Csd, Nfsd, Sds
from dreamfusion.distill.levels import DreamTime, Levels, UniformLevels
from dreamfusion.distill.variational import Vsd
from dreamfusion.distill.weighting import AlphaSigma, SigmaSquared, Uniform, Weighting

__all__ = [
    "AlphaSigma",
    "Csd",
    "Distillation",
    "Draw",
    "DreamTime",
    "Ism",
    "Law",
    "Levels",
    "Nfsd",
    "Sds",
    "SigmaSquared",
    "Uniform",
    "UniformLevels",
    "Vsd",
    "Weighting",
    "shortened",
    "surrogate",
]
