"""The scene of CLIP-Mesh: a sphere's limit surface with a texture and a normal map, all of which learn."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from dreamfusion.config import MeshConfig, RefineConfig, SphereFieldConfig
from dreamfusion.geometry import normalise
from dreamfusion.nerf.background import Background
from dreamfusion.surface.limit import limit_matrix
from dreamfusion.surface.scene import MeshScene, Shape, colours_at
from dreamfusion.surface.sphere import sphere

_WINDOW, _SPREAD = 5, 3.0
"""Texels of the window, and standard deviation, of the blur through which both maps are seen [code]"""


class LimitScene(MeshScene):
    """The vertices that learn are those of the control mesh; what is seen is the limit surface at them.

    It begins as a sphere in random colours, without bumps.
    """

    limit: Tensor

    def __init__(self, config: SphereFieldConfig, background: Background, radius: float, generator: Generator) -> None:
        ball = sphere(config.parts, config.size)
        told = RefineConfig(texture_size=config.texture_size)
        super().__init__(MeshConfig(len(ball.vertices), len(ball.faces), told=told), background, radius)
        side = config.texture_size
        self.take(ball, torch.rand(side, side, 3, generator=generator))
        self.register_buffer("limit", limit_matrix(self.edge_vertices, len(ball.vertices)), persistent=False)
        self.bumps = nn.Parameter(torch.zeros(1, 2, side, side))

    @property
    def control(self) -> Float[Tensor, "v 3"]:
        """The vertices of the control mesh."""
        return self.start + self.offset

    @property
    def shape(self) -> Shape:
        """See `MeshScene`."""
        return Shape(torch.sparse.mm(self.limit, self.control), self.faces, self.uv)

    @property
    def texture(self) -> Float[Tensor, "1 3 s s"]:
        """See `MeshScene`."""
        return blurred(super().texture)

    @property
    def normal_map(self) -> Float[Tensor, "1 3 s s"]:
        """Unit normals in the axes of growing u, growing v and outward."""
        slopes = blurred(self.bumps)
        return F.normalize(torch.cat([slopes, torch.ones_like(slopes[:, :1])], 1), dim=1)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Scene`."""
        groups = super().parameter_groups()
        return groups | {"grid": [*groups["grid"], self.bumps]}

    def bent(
        self, shape: Shape, face: Int[Tensor, " m"], uv: Float[Tensor, "m 2"], normal: Float[Tensor, "m 3"]
    ) -> Float[Tensor, "m 3"]:
        """See `MeshScene`."""
        along_u = along_texture(shape).index_select(0, face)
        tangent = normalise(along_u - (along_u * normal).sum(-1, keepdim=True) * normal)
        axes = torch.stack([tangent, torch.linalg.cross(normal, tangent), normal], 1)
        return (colours_at(self.normal_map, uv)[..., None] * axes).sum(1)


def along_texture(shape: Shape) -> Float[Tensor, "f 3"]:
    """The direction in space in which u grows, for each face; textures must not be mirrored. Of any length."""
    a, b, c = shape.vertices.index_select(0, shape.faces.view(-1)).view(-1, 3, 3).unbind(1)
    first, second = shape.uv[:, 1] - shape.uv[:, 0], shape.uv[:, 2] - shape.uv[:, 0]
    return second[:, 1:] * (b - a) - first[:, 1:] * (c - a)


def blurred(layers: Float[Tensor, "1 c s s"]) -> Float[Tensor, "1 c s s"]:
    """Through a small Gaussian window; the border goes on."""
    offset = torch.arange(_WINDOW, device=layers.device, dtype=layers.dtype) - _WINDOW // 2
    window = torch.exp(-0.5 * (offset / _SPREAD).square())
    window, channels = window / window.sum(), layers.shape[1]
    padded = F.pad(layers, (_WINDOW // 2,) * 4, mode="replicate")
    down = F.conv2d(padded, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(down, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
