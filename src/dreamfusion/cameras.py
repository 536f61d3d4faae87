"""Cameras: where a picture is taken from. The axes are those of `geometry`; angles are radians."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.errors import UserError
from dreamfusion.geometry import angles_of, look_at, spherical
from dreamfusion.records import mapped


@dataclass(frozen=True, eq=False)
class Cameras:
    """A batch of pinhole cameras: square pixels, principal point in the middle, one picture size in pixels for all."""

    pose: Float[Tensor, "b 4 4"]
    """world_from_camera, OpenGL axes"""
    fov_y: Float[Tensor, " b"]
    """full vertical field of view, between 0 and pi"""
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.pose)

    def __getitem__(self, views: slice) -> "Cameras":
        """A sub-range of the views."""
        return mapped(self, lambda tensor: tensor[views])

    @property
    def position(self) -> Float[Tensor, "b 3"]:
        return self.pose[:, :3, 3]

    @property
    def azimuth(self) -> Float[Tensor, " b"]:
        """Of the position about the origin, in [-pi, pi), whatever the camera looks at."""
        return angles_of(self.position)[0]

    @property
    def elevation(self) -> Float[Tensor, " b"]:
        """Of the position about the origin, in [-pi/2, pi/2], whatever the camera looks at."""
        return angles_of(self.position)[1]

    def to(self, device: torch.device | str) -> "Cameras":
        return mapped(self, lambda tensor: tensor.to(device))

    def resized(self, size: int) -> "Cameras":
        """The same views in pictures of height `size`; the width keeps its ratio to the height."""
        return replace(self, height=size, width=round(size * self.width / self.height))


@dataclass(frozen=True)
class OrbitSampler:
    """Random cameras around the origin.

    The defaults are the paper's (DreamFusion, section 3.2 and appendix A.2) for its scene of radius 1.4. Ranges are
    (low, high), uniform where nothing else is said. Every view is drawn for itself. A call takes the same number of
    random values whatever the ranges are, so that runs with different ranges stay comparable.
    """

    elevation: tuple[float, float] = (math.radians(-10.0), math.radians(90.0))
    elevation_uniform_in_angle: float = 0.5
    """probability of an elevation uniform in the angle, which favours the pole; else uniform in the sphere's area"""
    azimuth: tuple[float, float] = (0.0, 2 * math.pi)
    distance: tuple[float, float] = (1.0, 1.5)
    fov_y: tuple[float, float] = (2 * math.atan(0.5 / 1.35), 2 * math.atan(0.5 / 0.7))
    """uniform in focal length: the paper's is 0.7 to 1.35 picture heights"""
    position_jitter: float = 0.1
    """half width of the box in which the position moves"""
    look_at_jitter: float = 0.2
    """standard deviation, per axis, of the point looked at about the origin"""
    up_jitter: float = 0.02
    """standard deviation, per axis, of the up vector about +y"""
    stratified: bool = False
    """cut the azimuth range into as many equal sectors as there are views, one view in each"""

    def __post_init__(self) -> None:
        for name in ("elevation", "azimuth", "distance", "fov_y"):
            low, high = getattr(self, name)
            if not low <= high:
                raise UserError(f"the camera's {name} range must go from low to high, not from {low} to {high}")
        if self.distance[0] <= 0:
            raise UserError(f"the camera's distance must be positive, not {self.distance[0]}")
        if not 0 < self.fov_y[0] <= self.fov_y[1] < math.pi:
            raise UserError("the camera's field of view must lie between 0 and 180 degrees")
        if not 0 <= self.elevation_uniform_in_angle <= 1:
            raise UserError(
                f"elevation_uniform_in_angle is a probability between 0 and 1, not {self.elevation_uniform_in_angle}"
            )

    def __call__(self, count: int, size: int, generator: Generator) -> Cameras:
        """`count` cameras for square pictures of `size` pixels, on the generator's device."""
        u = torch.rand(8, count, generator=generator, device=generator.device)
        bell = torch.randn(2, count, 3, generator=generator, device=generator.device)
        jitter = self.position_jitter * (2 * u[5:8].T - 1)
        eye = spherical(self._azimuth(u[2]), self._elevation(u[0], u[1]), _between(self.distance, u[3])) + jitter
        up = eye.new_tensor([0.0, 1.0, 0.0]) + self.up_jitter * bell[1]
        return Cameras(look_at(eye, self.look_at_jitter * bell[0], up), self._fov_y(u[4]), size, size)

    def _elevation(self, choice: Float[Tensor, " b"], u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        # The area of a sphere below an elevation is linear in its sine.
        low, high = self.elevation
        by_area = _between((math.sin(low), math.sin(high)), u).clamp(-1.0, 1.0).asin()
        return torch.where(choice < self.elevation_uniform_in_angle, _between(self.elevation, u), by_area)

    def _azimuth(self, u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        sector = torch.arange(len(u), device=u.device)
        return _between(self.azimuth, (sector + u) / len(u) if self.stratified else u)

    def _fov_y(self, u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        wide, narrow = (0.5 / math.tan(0.5 * fov) for fov in reversed(self.fov_y))
        return 2 * torch.atan(0.5 / _between((wide, narrow), u))


def orbit(
    azimuth: Float[Tensor, " b"],
    elevation: Float[Tensor, " b"],
    distance: Float[Tensor, " b"],
    fov_y: Float[Tensor, " b"],
    size: int,
) -> Cameras:
    """Upright cameras that look at the origin, for square pictures; continuous in both angles, at the poles too."""
    eye = spherical(azimuth, elevation, distance)
    # The direction of growing elevation is perpendicular to the view everywhere; +y is parallel to it at the poles.
    up = spherical(azimuth, elevation + 0.5 * math.pi, torch.ones_like(distance))
    return Cameras(look_at(eye, torch.zeros_like(eye), up), fov_y, size, size)


def turntable(frames: int, elevation: float, distance: float, fov_y: float, size: int) -> Cameras:
    """Cameras once around at equal angles, from the front towards the object's left; no frame is doubled at the end."""
    azimuth = torch.arange(frames) * (2 * math.pi / frames)
    like = torch.ones_like(azimuth)
    return orbit(azimuth, elevation * like, distance * like, fov_y * like, size)


def evaluation_ring(views: int, elevation: float, distance: float, fov_y: float, size: int) -> Cameras:
    """The views over which scores are averaged; the paper's are several azimuths at 30 degrees (appendix A.3)."""
    return turntable(views, elevation, distance, fov_y, size)


def _between(limits: tuple[float, float], u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    return limits[0] + (limits[1] - limits[0]) * u
