"""A texture for a mesh: an atlas of its surface, with what the field shows there in every texel."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import xatlas
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dreamfusion.geometry import normalise, spherical
from dreamfusion.lights import Light
from dreamfusion.mesh.colour import beside, look_at_surface
from dreamfusion.mesh.sample import device_of
from dreamfusion.mesh.triangles import Mesh, split, tangents, vertex_normals
from dreamfusion.nerf.fields import FieldOutput
from dreamfusion.nerf.scene import Scene
from dreamfusion.nerf.shading import lambert
from dreamfusion.surface import Fragments, cover

_PADDING = 4  # texels between charts, so that they do not bleed into each other in smaller copies of the texture
_FLAT = 1e-4  # volume of three unit axes below which rounding of 1e-7 shows in a picture of 256 levels


@dataclass(frozen=True)
class TextureOptions:
    """What is baked."""

    size: int = 1024
    """texels per side"""
    normal_map: bool = False
    """also bake the field's normals"""
    bake_light: bool = False
    """light the texture, for viewers without a light"""


def bake(mesh: Mesh, scene: Scene, options: TextureOptions = TextureOptions(), like: Mesh | None = None) -> Mesh:
    """The mesh with texture coordinates, if it has none, and a texture of what its surface shows along inward normals.

    The gaps between the charts are filled with the nearest texel's values, so that no seam shows. `like`: the scene's
    surface, for a mesh that was changed (`colour.beside`).
    """
    mesh = mesh if mesh.uv is not None else replace(mesh, uv=unwrapped(mesh, options.size))
    texels = _texels(mesh, options.size, device_of(scene))
    faces = torch.from_numpy(mesh.faces).to(texels.face.device)
    place, normal = (
        texels.blend(torch.from_numpy(part).to(faces.device)[faces]) for part in (mesh.vertices, vertex_normals(mesh))
    )
    place, normal = beside(place, normal, like, scene.radius)
    seen = look_at_surface(scene, place, -normalise(normal), options.normal_map or options.bake_light)
    colour = lambert(seen, place, _lamp(scene), torch.zeros_like(texels.face)) if options.bake_light else seen.albedo
    return replace(
        mesh,
        texture=_filled(texels, colour, options.size),
        normal_map=_normal_map(mesh, texels, seen, options.size) if options.normal_map else None,
        lit=options.bake_light,
    )


def unwrapped(mesh: Mesh, size: int) -> Float[np.ndarray, "f 3 2"]:
    """Texture coordinates, in [0, 1], of an atlas of charts that do not overlap in a texture of `size` texels."""
    atlas, packing = xatlas.Atlas(), xatlas.PackOptions()
    atlas.add_mesh(np.ascontiguousarray(mesh.vertices), mesh.faces.astype(np.uint32))
    packing.resolution, packing.padding = size, _PADDING
    atlas.generate(pack_options=packing)
    _, corners, uv = atlas[0]
    return np.asarray(uv, np.float32)[corners.astype(np.int64)]


def _texels(mesh: Mesh, size: int, device: torch.device) -> Fragments:
    """The texels that show a face."""
    assert mesh.uv is not None
    uv = torch.from_numpy(mesh.uv).to(device)
    return cover(torch.stack([uv[..., 0], 1 - uv[..., 1]], -1) * size, size, size)


def _lamp(scene: Scene) -> Light:
    """One light for all sides: from above, a little from the left and the front."""
    angles = torch.deg2rad(torch.tensor([[30.0], [55.0]]))
    one = torch.ones(1)
    position = spherical(angles[0], angles[1], 4 * scene.radius * one)
    return Light(position, 0.6 * one, 0.45 * one, torch.zeros(1, dtype=torch.bool)).to(device_of(scene))


def _normal_map(mesh: Mesh, texels: Fragments, seen: FieldOutput, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The field's normals in the axes that viewers interpolate between the vertices."""
    assert seen.normal is not None  # because it was asked for
    cut = split(mesh)
    corners = torch.from_numpy(cut.faces).to(texels.face.device)
    frame = np.column_stack([tangents(mesh, cut), vertex_normals(mesh)[cut.vertex]])
    along, sign, out = texels.blend(torch.from_numpy(frame).to(corners.device)[corners]).split([3, 1, 3], dim=-1)
    axes = torch.stack([along, sign * torch.linalg.cross(out, along), out], -1)
    return _filled(texels, 0.5 + 0.5 * to_tangent_space(axes, seen.normal), size)


def to_tangent_space(axes: Float[Tensor, "m 3 3"], normal: Float[Tensor, "m 3"]) -> Float[Tensor, "m 3"]:
    """Unit vectors with which the axes, the columns, add up to vectors along the normals.

    The third axis alone where the three do not span space (`_FLAT`), or where the normal is zero. By Cramer's rule: a
    linear solver's pivots, which differ between processors, decide nothing.
    """
    length = axes.norm(dim=-2)
    first, second, third = (axes / length[:, None]).unbind(-1)
    across = [torch.linalg.cross(*pair) for pair in ((second, third), (third, first), (first, second))]
    volume = (first * across[0]).sum(-1, keepdim=True)
    parts = normalise(torch.stack([(side * normal).sum(-1) for side in across], -1) * volume.sign() / length)
    there = (volume.abs() > _FLAT) & (parts.norm(dim=-1, keepdim=True) > 0.5)  # NaN is not
    return torch.where(there, parts, parts.new_tensor([0.0, 0.0, 1.0]))


def _filled(texels: Fragments, values: Float[Tensor, "m 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """A square picture of values in [0, 1]; texels that no face covers take the nearest one's."""
    picture = np.zeros((size * size, 3), np.uint8)
    covered = np.zeros(size * size, bool)
    pixel = texels.pixel.cpu().numpy()
    picture[pixel] = (values.clamp(0, 1) * 255).round().byte().cpu().numpy()
    covered[pixel] = True
    return spread(picture.reshape(size, size, 3), covered.reshape(size, size))


def spread(
    picture: UInt8[np.ndarray, "size size 3"], covered: Bool[np.ndarray, "size size"]
) -> UInt8[np.ndarray, "size size 3"]:
    """The texels that are not covered take the nearest one's colour that is."""
    from scipy.ndimage import distance_transform_edt  # here, as a run needs it only at its end

    rows, columns = np.asarray(distance_transform_edt(~covered, return_distances=False, return_indices=True))
    return picture[rows, columns]


def shown_texels(mesh: Mesh, size: int) -> Bool[np.ndarray, "size size"]:
    """The texels whose colours a face shows, also between two of them."""
    from scipy.ndimage import binary_dilation

    covered = np.zeros(size * size, bool)
    covered[_texels(mesh, size, torch.device("cpu")).pixel.numpy()] = True
    return binary_dilation(covered.reshape(size, size), np.ones((3, 3), bool))
