"""Which triangle covers which pixel: of a texture, or of the pictures that cameras take of a mesh.

Triangles of a mesh are hardly larger than a pixel, so every triangle is tried on every pixel of its own little box, all
of them at once.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreamfusion.cameras import Cameras

_PIECE = 1 << 21  # candidates at a time: bounds the memory


@dataclass(frozen=True, eq=False)
class Fragments:
    """Pixels whose centres lie in triangles."""

    pixel: Int[Tensor, " m"]
    """number of the pixel, row by row from the top"""
    face: Int[Tensor, " m"]
    weights: Float[Tensor, "m 3"]
    """of the triangle's corners, at the pixel's centre; >= 0, they sum to 1"""

    def __getitem__(self, keep: Bool[Tensor, " m"] | Int[Tensor, " k"]) -> "Fragments":
        return Fragments(self.pixel[keep], self.face[keep], self.weights[keep])

    def blend(self, values: Float[Tensor, "f 3 c"]) -> Float[Tensor, "m c"]:
        """Values given at the corners of the faces, interpolated."""
        return (self.weights[..., None] * values[self.face]).sum(1)


def cover(corners: Float[Tensor, "f 3 2"], height: int, width: int) -> Fragments:
    """All pairs of triangle and pixel, by face. Corners are in pixels: x to the right, y down, from the top left.

    Triangles may be wound either way; those without an area cover nothing.
    """
    sizes = corners.new_tensor([width, height])
    low = (corners.amin(1) - 0.5).ceil().clamp(min=0)
    count = ((corners.amax(1) - 0.5).floor().minimum(sizes - 1) - low + 1).clamp(min=0).long()
    total = count.prod(-1)
    parts = []
    for faces in _pieces(total):
        face = faces.repeat_interleave(total[faces])
        place = torch.arange(len(face), device=face.device) - (total[faces].cumsum(0) - total[faces])[face - faces[0]]
        column, row = place % count[face, 0] + low[face, 0].long(), place // count[face, 0] + low[face, 1].long()
        weights = _barycentric(corners[face], torch.stack([column, row], -1) + 0.5)
        fragments = Fragments(row * width + column, face, weights)
        parts.append(fragments[(weights >= 0).all(-1)])
    return _joined(parts)


def on_picture(vertices: Float[Tensor, "v 3"], cameras: Cameras) -> tuple[Float[Tensor, "b v 2"], Float[Tensor, "b v"]]:
    """Where points are in the pictures, in pixels as `cover` has them, and their depths along the view axis."""
    x, y, z = ((vertices - cameras.position[:, None]) @ cameras.pose[:, :3, :3]).unbind(-1)
    scale = (0.5 * cameras.height / torch.tan(0.5 * cameras.fov_y))[:, None]
    return torch.stack([0.5 * cameras.width + scale * x / -z, 0.5 * cameras.height - scale * y / -z], -1), -z


def facing(corners: Float[Tensor, "*n 3 2"]) -> Bool[Tensor, "*n"]:
    """Whether triangles on a picture show their outside: y grows down there."""
    return _cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]) < 0


@torch.no_grad()
def first_hits(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], cameras: Cameras
) -> tuple[Fragments, Float[Tensor, " m"]]:
    """What the cameras see of a closed mesh that lies before them: one fragment for each pixel that shows it.

    Pixels are numbered view by view; they ascend. Also the distances from the camera, along the pixels' rays.
    """
    parts, distances = [], []
    for view in range(len(cameras)):
        seen, distance = _nearest(vertices, faces, cameras[view : view + 1])
        parts.append(Fragments(seen.pixel + view * cameras.height * cameras.width, seen.face, seen.weights))
        distances.append(distance)
    return _joined(parts), torch.cat(distances)


def _nearest(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], camera: Cameras
) -> tuple[Fragments, Float[Tensor, " m"]]:
    """The nearest fragments in one view, by pixel, and their distances."""
    (place,), (z,) = on_picture(vertices, camera)
    corners = place[faces]
    outside = facing(corners).nonzero()[:, 0]
    flat = cover(corners[outside], camera.height, camera.width)
    # Weights in the picture count by nearness: 1 / depth is linear there, depth is not.
    nearness = flat.weights / z[faces[outside[flat.face]]]
    depth = 1 / nearness.sum(-1)
    fragments = Fragments(flat.pixel, outside[flat.face], nearness * depth[:, None])
    order = depth.argsort(stable=True)
    order = order[fragments.pixel[order].argsort(stable=True)]
    pixel = fragments.pixel[order]
    front = order[torch.cat([pixel.new_ones(1, dtype=torch.bool), pixel[1:] != pixel[:-1]])[: len(pixel)]]
    seen = fragments[front]
    return seen, (seen.blend(vertices[faces]) - camera.position).norm(dim=-1)


def _pieces(total: Int[Tensor, " f"]) -> list[Int[Tensor, " n"]]:
    """Runs of faces with some `_PIECE` candidates each."""
    number = (total.cumsum(0) - 1).clamp(min=0) // _PIECE
    edges = (number.diff() > 0).nonzero()[:, 0] + 1
    return [part for part in torch.arange(len(total), device=total.device).tensor_split(edges.cpu()) if len(part)]


def _barycentric(corners: Float[Tensor, "m 3 2"], place: Float[Tensor, "m 2"]) -> Float[Tensor, "m 3"]:
    """Signed areas opposite each corner, as shares of the whole; negative somewhere for places outside."""
    sides = corners - place[:, None]
    areas = torch.stack([_cross(sides[:, (i + 1) % 3], sides[:, (i + 2) % 3]) for i in range(3)], -1)
    whole = areas.sum(-1, keepdim=True)
    return torch.where(whole == 0, -1.0, areas / torch.where(whole == 0, 1.0, whole))


def _cross(a: Float[Tensor, "*n 2"], b: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _joined(parts: list[Fragments]) -> Fragments:
    return Fragments(
        torch.cat([part.pixel for part in parts]),
        torch.cat([part.face for part in parts]),
        torch.cat([part.weights for part in parts]),
    )
