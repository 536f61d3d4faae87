"""The configuration of score distillation: the law, and what all laws share. Imports nothing slow, as `config`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval
from tyro.conf import arg

from dreamfusion.config.bounds import Amount, Fraction
from dreamfusion.schedules import Constant, Schedule


@dataclass(frozen=True)
class SdsLaw:
    """SDS: score distillation sampling, the paper's."""


@dataclass(frozen=True)
class CsdLaw:
    """CSD: classifier score distillation, the guidance term alone."""


@dataclass(frozen=True)
class NfsdLaw:
    """NFSD: noise-free score distillation; needs a --negative prompt."""

    clean_below: Fraction = 0.2
    """timestep from which on the negative prompt is used, as a fraction of all"""


@dataclass(frozen=True)
class IsmLaw:
    """ISM: interval score matching."""

    inversions: Annotated[int, Interval(ge=1, le=1000)] = 4
    """DDIM inversion steps from the picture to the lower of the two noise levels"""
    gap: Annotated[float, Interval(ge=0.001, le=0.999)] = 0.05
    """distance of the two noise levels, as a fraction of the timesteps"""
    start: Annotated[float, Interval(ge=0, le=0.999)] = 0.1
    """noise level at which the inversion starts, likewise; 0: the paper's, which fails with the embedded prior"""


@dataclass(frozen=True)
class VsdLaw:
    """VSD: score of the renderings from a LoRA copy of the prior."""

    rank: Annotated[int, Interval(ge=1, le=4096)] = 4
    """rank of the LoRA"""
    rate: Amount = 1e-3
    """learning rate of the LoRA"""


@dataclass(frozen=True)
class EsdLaw(VsdLaw):
    """ESD: entropic score distillation, VSD with guidance on the LoRA's estimate."""

    scale: Annotated[float, Interval(ge=0, le=10)] = 0.5
    """guidance scale of the LoRA's estimate towards its camera; 1: VSD, 0: the camera is always hidden from it"""
    hidden: Fraction = 0.1
    """share of what the LoRA learns that is learned with the camera hidden from it"""


@dataclass(frozen=True)
class DsdLaw:
    """DSD: diverse score distillation, noise along the path of the run's own seed."""

    start: Annotated[float, Interval(ge=0.001, le=1)] = 0.98
    """noise level at which the path begins, as a fraction of the timesteps"""
    steps: Annotated[int, Interval(ge=1, le=1000)] = 4
    """DDIM steps from there to the noise level of the picture"""
    gap: Annotated[float, Interval(ge=0, le=0.999)] = 0.05
    """how far above that level the path ends, as a fraction of the timesteps"""


LawConfig = SdsLaw | CsdLaw | NfsdLaw | IsmLaw | VsdLaw | EsdLaw | DsdLaw


@dataclass(frozen=True)
class DistillConfig:
    """Score distillation."""

    law: LawConfig = SdsLaw()
    """law of distillation, chosen with --distill"""
    guidance_scale: Annotated[float, Interval(ge=0, le=1000), arg(aliases=["--guidance-scale"])] = 101.0
    """classifier-free guidance scale, the paper's omega + 1; 1: no guidance"""
    timesteps: Literal["uniform", "dreamtime"] = "uniform"
    """uniformly random, or DreamTime: decreasing over the run"""
    t_min: Annotated[Schedule, Interval(ge=0, le=1)] = Constant(0.02)
    """smallest timestep, as a fraction of the prior's"""
    t_max: Annotated[Schedule, Interval(ge=0, le=1)] = Constant(0.98)
    """largest timestep, likewise"""
    weighting: Literal["sigma2", "uniform", "alpha-sigma"] = "sigma2"
    """w(t), the weight of a noise level"""
    noise_samples: Annotated[int, Interval(ge=1, le=1024)] = 1
    """noise samples per view, averaged"""
    grad_clip: Amount = 0.0
    """largest Euclidean norm of the gradient per view; 0: no limit"""
    guidance_rescale: Fraction = 0.0
    """guidance rescale factor, 0..1 (arXiv 2305.08891): 1: contrast of the unguided estimate; unused by csd"""
