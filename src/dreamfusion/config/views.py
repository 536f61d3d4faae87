"""What a run is told about its training views. Angles are degrees, as in all of `config`."""

from dataclasses import dataclass
from typing import Literal

from dreamfusion.config.scene import Span


@dataclass(frozen=True)
class CameraConfig:
    """Where training views are taken from; every value is drawn from its range."""

    elevation_deg: Span = (-10.0, 90.0)
    """above the horizon"""
    elevation_uniform_in_angle: float = 0.5
    """probability of drawing the angle evenly, which favours the pole, instead of the area"""
    azimuth_deg: Span = (0.0, 360.0)
    """0 is the front"""
    distance: Span = (1.0, 1.5)
    """from the middle"""
    fov_deg: Span = (40.65, 71.08)
    """vertical field of view"""
    position_jitter: float = 0.1
    """half width of the box about the position"""
    look_at_jitter: float = 0.2
    """standard deviation of the point looked at"""
    up_jitter: float = 0.02
    """standard deviation of the up vector"""
    jitter_is: Literal["deviation", "variance"] = "deviation"
    """what the two numbers above are; the paper's N(0, 0.2 I) can be read as both, and ports read deviations"""
    stratified: bool = False
    """one view in each sector of the azimuth"""


@dataclass(frozen=True)
class LightConfig:
    """How training views are lit."""

    albedo_until: float = 1000 / 15000
    """fraction of the run that shows plain colour only"""
    shaded: float = 0.75
    """probability of a lit view after that"""
    textureless: float = 0.5
    """probability that a lit view shows the shape without colour"""
    ambient: float = 0.1
    """light from everywhere in a lit view"""
    diffuse: float = 0.9
    """light from the lamp in a lit view"""
    distance: Span = (0.8, 1.5)
    """of the lamp from the middle"""
    spread: float = 1.0
    """how far the lamp strays from the camera"""
