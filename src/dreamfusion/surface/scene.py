"""A scene whose matter is a closed mesh with a texture: its vertices and texels learn."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreamfusion.cameras import Cameras
from dreamfusion.config import MeshConfig, OccupancyConfig
from dreamfusion.geometry import normalise
from dreamfusion.lights import Light
from dreamfusion.nerf.background import Background
from dreamfusion.nerf.fields import FieldOutput
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.rays import Gaussians, cast
from dreamfusion.nerf.render import Picture
from dreamfusion.nerf.scene import Scene
from dreamfusion.nerf.shading import lambert
from dreamfusion.surface.edges import Crossings, Edges, antialiased, crossings, edges_of, seen_only
from dreamfusion.surface.rasterise import Fragments, first_hits, on_picture

_DARKEST = 1 / 510
"""Half a level of eight bits: so near to 0 and 1 do texels begin at most, where they can still learn"""


class Void(nn.Module):
    """The field about a mesh: there is nothing."""

    uses_covariance = False

    def density(self, at: Gaussians) -> Float[Tensor, " m"]:
        """See `Field`."""
        return at.mean.new_zeros(len(at))

    def evaluate(self, at: Gaussians) -> FieldOutput:
        """See `Field`."""
        return FieldOutput(self.density(at), torch.zeros_like(at.mean))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Field`."""
        return {}


@dataclass(frozen=True, eq=False)
class Shape:
    """A closed mesh as tensors."""

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    uv: Float[Tensor, "f 3 2"]
    """of the faces' corners in the texture, in [0, 1]; v = 0 is the bottom row"""


class MeshScene(Scene):
    """A mesh of the sizes that `config` says; `take` gives it its shape. It draws itself (`nerf.render.Drawn`)."""

    faces: Tensor
    uv: Tensor
    start: Tensor
    edge_vertices: Tensor
    edge_faces: Tensor

    def __init__(self, config: MeshConfig, background: Background, radius: float) -> None:
        super().__init__(Void(), background, Occupancy(OccupancyConfig(cells=8, every=0), radius), radius)
        edges = config.faces * 3 // 2
        self.register_buffer("faces", torch.zeros(config.faces, 3, dtype=torch.long))
        self.register_buffer("uv", torch.zeros(config.faces, 3, 2))
        self.register_buffer("start", torch.zeros(config.vertices, 3))
        self.register_buffer("edge_vertices", torch.zeros(edges, 2, dtype=torch.long))
        self.register_buffer("edge_faces", torch.zeros(edges, 2, dtype=torch.long))
        self.offset = nn.Parameter(torch.zeros(config.vertices, 3), requires_grad=not config.told.texture_only)
        self.texels = nn.Parameter(torch.zeros(1, 3, config.told.texture_size, config.told.texture_size))

    @torch.no_grad()
    def take(self, shape: Shape, texture: Float[Tensor, "s s 3"]) -> None:
        """Begin with a mesh and a texture, display values in [0, 1], the top row first.

        Raises ValueError unless the mesh is closed.
        """
        edges = edges_of(shape.faces)
        for own, given in (
            (self.faces, shape.faces),
            (self.uv, shape.uv),
            (self.start, shape.vertices),
            (self.edge_vertices, edges.vertices),
            (self.edge_faces, edges.faces),
            (self.texels, texture.movedim(-1, 0)[None].clamp(_DARKEST, 1 - _DARKEST).logit()),
        ):
            own.copy_(given)
        self.offset.zero_()

    @property
    def shape(self) -> Shape:
        """The mesh as it is now, differentiable."""
        return Shape(self.start + self.offset, self.faces, self.uv)

    @property
    def edges(self) -> Edges:
        """Of the mesh."""
        return Edges(self.edge_vertices, self.edge_faces)

    @property
    def texture(self) -> Float[Tensor, "1 3 s s"]:
        """Display values in [0, 1], the top row first."""
        return self.texels.sigmoid()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Scene`; "vertices" are those of a mesh that may move, and "grid" is the texture."""
        moving = {"vertices": [self.offset]} if self.offset.requires_grad else {}
        return super().parameter_groups() | moving | {"grid": [self.texels]}

    def draw(self, cameras: Cameras, light: Light, background: Float[Tensor, "b 3"] | None, normals: bool) -> Picture:
        """Pictures of the views, before plain colours or the scene's own background; differentiable.

        normals: whether they are wanted.
        """
        return self.draw_shape(self.shape, cameras, light, background, normals)

    def draw_shape(
        self, shape: Shape, cameras: Cameras, light: Light, background: Float[Tensor, "b 3"] | None, normals: bool
    ) -> Picture:
        """The same with the mesh in another shape."""
        size = cameras.height * cameras.width
        seen, distance = first_hits(shape.vertices, shape.faces, cameras)
        rays = cast(cameras)
        hit = rays.origin[seen.pixel] + distance[:, None] * rays.direction[seen.pixel]
        place, normal, weights = _surface_at(shape, seen, hit, rays.direction[seen.pixel])
        uv = (weights[..., None] * shape.uv[seen.face]).sum(1)
        normal = self.bent(shape, seen.face, uv, normal)
        at = FieldOutput(torch.ones_like(distance), colours_at(self.texture, uv), normal)
        view = torch.arange(len(cameras), device=place.device).repeat_interleave(size)
        behind = self.background.colour(rays.direction) if background is None else background[view]
        layers = [lambert(at, place, light, view[seen.pixel]), torch.ones_like(place[:, :1])]
        empty = [behind, torch.zeros_like(behind[:, :1])]
        if normals:
            layers, empty = [*layers, normal], [*empty, torch.zeros_like(behind)]
        flat = torch.cat(empty, -1).index_copy(0, seen.pixel, torch.cat(layers, -1))
        depth = distance.new_zeros(len(view)).index_copy(0, seen.pixel, distance)
        picture = antialiased(flat, self._outlines(shape, cameras, seen, place))
        picture = picture.view(len(cameras), cameras.height, cameras.width, -1)
        return Picture(
            picture[..., :3],
            picture[..., 3],
            depth.view(picture.shape[:-1]),
            picture[..., 4:] if normals else None,
        )

    def bent(
        self, shape: Shape, face: Int[Tensor, " m"], uv: Float[Tensor, "m 2"], normal: Float[Tensor, "m 3"]
    ) -> Float[Tensor, "m 3"]:
        """Normals as they are seen at places of faces, where the surface's are `normal`; a normal map bends them."""
        return normal

    def _outlines(self, shape: Shape, cameras: Cameras, seen: Fragments, place: Float[Tensor, "m 3"]) -> Crossings:
        """Where outlines are seen, in all pictures."""
        where, depth = on_picture(shape.vertices, cameras)
        size, parts = cameras.height * cameras.width, []
        back = cameras.pose[:, :3, 2]
        view = seen.pixel // size
        away = -((place.detach() - cameras.position[view]) * back[view]).sum(-1)
        depths = torch.full((len(cameras), size), torch.inf, dtype=away.dtype, device=away.device)
        depths.view(-1)[seen.pixel] = away
        for each in range(len(cameras)):
            found = crossings(self.edges, shape.faces, where[each], depth[each], (cameras.height, cameras.width))
            found = seen_only(found, depths[each])
            parts.append((found.first + each * size, found.second + each * size, found.share, found.side, found.depth))
        return Crossings(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _surface_at(
    shape: Shape, seen: Fragments, hit: Float[Tensor, "m 3"], direction: Float[Tensor, "m 3"]
) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m 3"], Float[Tensor, "m 3"]]:
    """Where rays meet the planes of faces, unit normals there, and the corners' weights, all differentiable.

    A corner's weight is the volume that the ray spans with the other two: det(d, p, q), for places relative to any of
    the ray, here to where it meets the face now, so that small faces far away lose no digits.
    """
    both = torch.cat([shape.vertices, vertex_normals(shape.vertices, shape.faces)], -1)
    corners = both.index_select(0, shape.faces[seen.face].view(-1)).view(-1, 3, 6)
    way = corners[..., :3] - hit[:, None]
    across = torch.linalg.cross(way.roll(-1, 1), way.roll(-2, 1))
    volume = (across * direction[:, None]).sum(-1)
    weights = volume / volume.sum(-1, keepdim=True)
    blended = (weights[..., None] * corners).sum(1)
    return blended[:, :3], normalise(blended[:, 3:]), weights


def colours_at(texture: Float[Tensor, "1 3 s s"], uv: Float[Tensor, "m 2"]) -> Float[Tensor, "m 3"]:
    """Of a texture, the top row first, at places in [0, 1] from the bottom left: between four texels each."""
    place = torch.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]], -1)
    return F.grid_sample(texture, place[None, None], padding_mode="border", align_corners=False)[0, :, 0].T


def face_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "f 3"]:
    """Outward, as long as twice the faces' areas."""
    a, b, c = vertices.index_select(0, faces.view(-1)).view(-1, 3, 3).unbind(1)
    return torch.linalg.cross(b - a, c - a)


def vertex_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Outward unit normals: the sum of the adjacent faces', weighted by area."""
    across = face_normals(vertices, faces).repeat_interleave(3, 0)
    return normalise(torch.zeros_like(vertices).index_add(0, faces.view(-1), across))
