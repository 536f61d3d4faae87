"""Cameras: where a picture is taken from. The axes are those of `geometry`; angles are radians."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.config import CameraConfig, Span
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

    def about(self, centre: Float[Tensor, " 3"] | None) -> "Cameras":
        """The same views of what is about `centre`, if there is one, as these have of what is about the origin."""
        if centre is None:
            return self
        pose = self.pose.clone()
        pose[:, :3, 3] += centre
        return replace(self, pose=pose)

    def to(self, device: torch.device | str) -> "Cameras":
        return mapped(self, lambda tensor: tensor.to(device))

    def resized(self, size: int) -> "Cameras":
        """The same views in pictures of height `size`; the width keeps its ratio to the height."""
        return replace(self, height=size, width=round(size * self.width / self.height))


@dataclass(frozen=True)
class OrbitSampler:
    """Random cameras around the origin.

    The defaults are the paper's (DreamFusion, section 3.2 and appendix A.2) for its scene of radius 1.4. Every view is
    drawn for itself. A call takes the same number of random values whatever the ranges are, so that runs with different
    ranges stay comparable.
    """

    config: CameraConfig = CameraConfig()

    def __call__(self, count: int, size: int, generator: Generator) -> Cameras:
        """`count` cameras for square pictures of `size` pixels, on the generator's device."""
        u = torch.rand(8, count, generator=generator, device=generator.device)
        bell = torch.randn(2, count, 3, generator=generator, device=generator.device)
        config, deviation = self.config, math.sqrt if self.config.jitter_is == "variance" else float
        jitter = config.position_jitter * (2 * u[5:8].T - 1)
        eye = spherical(self._azimuth(u[2]), self._elevation(u[0], u[1]), _between(config.distance, u[3])) + jitter
        up = eye.new_tensor([0.0, 1.0, 0.0]) + deviation(config.up_jitter) * bell[1]
        pose = look_at(eye, deviation(config.look_at_jitter) * bell[0], up)
        if config.shift:  # drawn last, so that it changes nothing else
            aside = 2 * torch.rand(count, 2, generator=generator, device=generator.device) - 1
            pose[:, :2, 3] += config.shift * aside
        return Cameras(pose, self._fov_y(u[4]), size, size)

    def _elevation(self, choice: Float[Tensor, " b"], u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        # The area of a sphere below an elevation is linear in its sine.
        low, high = limits = _radians(self.config.elevation_deg)
        by_area = _between((math.sin(low), math.sin(high)), u).clamp(-1.0, 1.0).asin()
        falloff = self.config.elevation_falloff
        share = u if falloff == 1 else 1 - (1 - u) ** (1 / falloff)
        return torch.where(choice < self.config.elevation_uniform_in_angle, _between(limits, share), by_area)

    def _azimuth(self, u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        sector = torch.arange(len(u), device=u.device)
        return _between(_radians(self.config.azimuth_deg), (sector + u) / len(u) if self.config.stratified else u)

    def _fov_y(self, u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        if self.config.fov_uniform_in_angle:
            return _between(_radians(self.config.fov_deg), u)
        # Uniform in focal length: the paper's is 0.7 to 1.35 picture heights.
        wide, narrow = (0.5 / math.tan(0.5 * fov) for fov in reversed(_radians(self.config.fov_deg)))
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


def _radians(span: Span) -> Span:
    return math.radians(span[0]), math.radians(span[1])


def _between(limits: tuple[float, float], u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    return limits[0] + (limits[1] - limits[0]) * u
