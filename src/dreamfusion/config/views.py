"""The configuration of the training views. Angles are degrees, as in all of `config`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from dreamfusion.config.bounds import RANGE, Amount, Angle, Distance, Fraction, Span


@dataclass(frozen=True)
class CameraConfig:
    """Cameras of the training views, drawn uniformly from ranges (low high)."""

    elevation_deg: Span = (-10.0, 90.0)
    """elevation above the horizon, degrees"""
    elevation_uniform_in_angle: Fraction = 0.5
    """probability of an elevation uniform in angle, which favours the pole, instead of uniform on the sphere"""
    azimuth_deg: Span = (0.0, 360.0)
    """azimuth, degrees; 0: the front"""
    distance: Distance = (1.0, 1.5)
    """distance from the centre, world units"""
    fov_deg: Annotated[tuple[Angle, Angle], RANGE] = (40.65, 71.08)
    """vertical field of view, degrees"""
    position_jitter: float = 0.1
    """half width of the uniform jitter of the position, per axis, world units"""
    look_at_jitter: Amount = 0.2
    """spread of the normal jitter of the point looked at, per axis, world units (see jitter-is)"""
    up_jitter: Amount = 0.02
    """spread of the normal jitter of the up vector, per axis (see jitter-is)"""
    jitter_is: Literal["deviation", "variance"] = "deviation"
    """whether the two spreads are standard deviations or variances: the paper's N(0, 0.2 I) can be read as both"""
    elevation_falloff: Annotated[float, Interval(ge=1, le=100)] = 1.0
    """b of the law Beta(1, b) in which elevations uniform in angle lie between their ends; 1: uniform"""
    fov_uniform_in_angle: bool = False
    """draw the field of view uniformly in the angle instead of the focal length"""
    shift: Amount = 0.0
    """half width of the uniform shift of the camera with what it looks at, along x and along y, world units"""
    stratified: bool = False
    """stratify the azimuth: one view in each of as many equal sectors as there are views"""


@dataclass(frozen=True)
class LightConfig:
    """Lights of the training views."""

    albedo_until: Fraction = 1000 / 15000
    """fraction of the run that renders albedo only"""
    shaded: Fraction = 0.75
    """probability of a shaded view after that"""
    textureless: Fraction = 0.5
    """probability that a shaded view is textureless (albedo 1)"""
    ambient: float = 0.1
    """ambient intensity of a shaded view, as a factor on the albedo"""
    diffuse: float = 0.9
    """intensity of the point light of a shaded view, as a factor on the albedo"""
    textureless_until: Fraction = 1.0
    """fraction of the run after which no view is textureless"""
    grey: Fraction = 1.0
    """albedo of textureless views"""
    distance: Distance = (0.8, 1.5)
    """distance of the point light from the centre, world units (low high)"""
    spread: float = 1.0
    """standard deviation, per axis, of the light's direction point about the camera's position, world units"""
