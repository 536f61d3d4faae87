"""Vectors, spherical coordinates, camera poses, balls and boxes.

World axes: right-handed, y up, the object faces +z. Azimuth 0 is the direction +z (the front) and grows towards +x;
elevation is the angle above the horizontal plane. All angles are radians. Camera axes are OpenGL's: x to the right of
the picture, y to its top, the view goes along -z.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

FLOOR = 1e-10
"""Vectors shorter than this have no direction: far below any length that is meant, and its square is a float32."""


def normalise(v: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """Unit vectors along `v`.

    Vectors shorter than `FLOOR` come out shorter than 1, the zero vector as zero; gradients are finite everywhere.
    """
    floor = max(FLOOR**2, torch.finfo(v.dtype).tiny)
    return v * v.square().sum(-1, keepdim=True).clamp_min(floor).rsqrt()


def spherical(
    azimuth: Float[Tensor, " b"], elevation: Float[Tensor, " b"], distance: Float[Tensor, " b"]
) -> Float[Tensor, "b 3"]:
    """Points at `distance` from the origin. Azimuth 0 is +z, 90 degrees is +x; elevation 90 degrees is +y."""
    level = distance * elevation.cos()
    return torch.stack([level * azimuth.sin(), distance * elevation.sin(), level * azimuth.cos()], dim=-1)


def angles_of(position: Float[Tensor, "b 3"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Azimuth in [-pi, pi) and elevation in [-pi/2, pi/2] of points; on the vertical axis the azimuth is arbitrary."""
    x, y, z = position.unbind(-1)
    azimuth = torch.atan2(x, z)
    azimuth = torch.where(azimuth >= math.pi, azimuth - 2 * math.pi, azimuth)
    return azimuth, torch.atan2(y, torch.hypot(x, z))


def look_at(
    eye: Float[Tensor, "b 3"], target: Float[Tensor, "b 3"], up: Float[Tensor, "b 3"]
) -> Float[Tensor, "b 4 4"]:
    """Poses `world_from_camera` of cameras at `eye` that look at `target`, with `up` towards the top of the picture.

    `up` need be neither a unit vector nor perpendicular to the view. If it is parallel to a vertical view, the picture
    is turned as it would be for a camera that came over from the front (azimuth 0): looking down, its top is -z. Raises
    ValueError if `eye` and `target` coincide or `up` is parallel to a view that is not vertical.
    """
    forward = normalise(target - eye)
    from_front = forward[:, [1]] * forward.new_tensor([0.0, 0.0, 1.0])
    across = torch.linalg.cross(forward, normalise(up))
    degenerate = across.norm(dim=-1, keepdim=True) < 1e-6
    across = torch.where(degenerate, torch.linalg.cross(forward, from_front), across)
    if (across.norm(dim=-1) < 1e-6).any():
        raise ValueError("look_at needs eye and target apart, and an up vector that is not parallel to the view")
    right = normalise(across)
    axes = torch.stack([right, torch.linalg.cross(right, forward), -forward, eye], dim=-1)
    return torch.cat([axes, axes.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(eye), 1, 4)], dim=1)


def rotation_xyz(angles: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """Rotations about the x, then the y, then the z axis of the world, each by its angle; they turn column vectors."""
    turned = torch.eye(3, dtype=angles.dtype, device=angles.device).repeat(len(angles), 1, 1)
    for axis in range(3):
        cos, sin = angles[:, axis].cos(), angles[:, axis].sin()
        about = torch.zeros_like(turned)
        one, other = (axis + 1) % 3, (axis + 2) % 3
        about[:, axis, axis] = 1
        about[:, one, one], about[:, one, other] = cos, -sin
        about[:, other, one], about[:, other, other] = sin, cos
        turned = about @ turned
    return turned


def intersect_ball(
    origin: Float[Tensor, "n 3"], direction: Float[Tensor, "n 3"], radius: float
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Distances at which rays enter and leave the ball of `radius` about the origin: near <= far, both >= 0.

    `direction` must be unit vectors. A ray that misses, or has the ball behind it, gets near == far. A ray that starts
    inside has near == 0.
    """
    closest = -(origin * direction).sum(-1)
    # From the foot point, since |origin|^2 - closest^2 cancels for cameras far away.
    missed_by = (origin + closest[:, None] * direction).square().sum(-1)
    half = (radius**2 - missed_by).clamp_min(0.0).sqrt()
    return (closest - half).clamp_min(0.0), (closest + half).clamp_min(0.0)


def intersect_box(
    origin: Float[Tensor, "n 3"],
    direction: Float[Tensor, "n 3"],
    low: Float[Tensor, " 3"],
    high: Float[Tensor, " 3"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Distances, both >= 0, at which rays enter and leave the box between two corners; near >= far for those that miss.

    A ray that starts inside has near == 0.
    """
    # Directions along a face: the distances to it become so large that they do not matter.
    tiny = torch.finfo(direction.dtype).tiny
    inverse = 1 / torch.where(direction.abs() < tiny, tiny, direction)
    first, second = (low - origin) * inverse, (high - origin) * inverse
    near, far = torch.minimum(first, second).amax(-1), torch.maximum(first, second).amin(-1)
    return near.clamp_min(0.0), far.clamp_min(0.0)
