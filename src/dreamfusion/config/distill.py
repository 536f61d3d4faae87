"""What a run is told about distillation: the law, and what all laws share. Imports nothing slow, as `config`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from dreamfusion.schedules import Constant, Schedule


@dataclass(frozen=True)
class SdsLaw:
    """Score distillation sampling: the paper's."""


@dataclass(frozen=True)
class CsdLaw:
    """Classifier score distillation: guidance alone."""


@dataclass(frozen=True)
class NfsdLaw:
    """Noise-free score distillation; wants a --negative prompt."""

    clean_below: float = 0.2
    """noise level from which on the negative prompt counts, as a fraction of the timesteps"""


@dataclass(frozen=True)
class IsmLaw:
    """Interval score matching."""

    inversions: int = 4
    """DDIM steps from the picture up to the noise level that is compared with"""
    gap: float = 0.05
    """between the two noise levels, as a fraction of the timesteps"""
    start: float = 0.1
    """noise level at which the path begins, likewise; 0 is the paper's, which the embedded prior cannot follow"""


@dataclass(frozen=True)
class VsdLaw:
    """Variational score distillation, with a low-rank adapter of the prior that learns beside the scene."""

    rank: int = 4
    """of the adapter"""
    rate: float = 1e-3
    """learning rate of the adapter"""


LawConfig = SdsLaw | CsdLaw | NfsdLaw | IsmLaw | VsdLaw


@dataclass(frozen=True)
class DistillConfig:
    """How the prior pulls at the scene."""

    law: LawConfig = SdsLaw()
    """chosen with --distill"""
    guidance_scale: Annotated[float, arg(aliases=["--guidance-scale"])] = 101.0
    """1 follows the caption, more exaggerates it; the paper's omega + 1"""
    timesteps: Literal["uniform", "dreamtime"] = "uniform"
    """at random, or falling over the run as DreamTime has it"""
    t_min: Schedule = Constant(0.02)
    """least noise, as a fraction of the prior's timesteps"""
    t_max: Schedule = Constant(0.98)
    """most noise"""
    weighting: Literal["sigma2", "uniform", "alpha-sigma"] = "sigma2"
    """what each noise level counts"""
    noise_samples: int = 1
    """noisy copies per picture"""
    grad_clip: float = 0.0
    """longest gradient per picture; 0 for no limit"""
    guidance_rescale: float = 0.0
    """share of guidance's extra contrast that is taken back, 0..1; csd takes none back"""
