"""The closed surface where a scene's density crosses a level, and fewer triangles for it."""

import fast_simplification
import numpy as np
from manifold3d import Error, Manifold
from manifold3d import Mesh as Triangles
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes

from dreamfusion.errors import UserError
from dreamfusion.mesh.sample import Lattice
from dreamfusion.mesh.triangles import Mesh, signed_volumes

_SMALLEST_PART = 0.02


def surface(grid: Lattice, level: float) -> Mesh:
    """The closed surface where the density crosses `level` (per unit length), without floaters, cavities and colours.

    Raises UserError where nothing is denser than the level.
    """
    if not (grid.density > level).any():
        raise UserError(f"empty scene: no density above {level:.3g}: train longer, or give a lower --level")
    # Density grows by orders of magnitude within a cell, so its logarithm is what linear interpolation suits.
    logarithm = np.log(np.maximum(grid.density, level * 1e-2))
    corners, faces, _, _ = marching_cubes(logarithm, np.log(level), gradient_direction="ascent", allow_degenerate=False)
    return without_small_parts(Mesh((corners * grid.spacing + grid.origin).astype(np.float32), faces.astype(np.int64)))


def simplified(mesh: Mesh, faces: int) -> Mesh:
    """The mesh with at most some `faces` triangles: closed, two faces at every edge, without colours.

    Edges are collapsed in the order of the quadric error (Garland and Heckbert 1997). Where that makes surfaces touch,
    the vertices that they share are doubled. Raises UserError if nothing is left.
    """
    vertices, triangles = mesh.vertices, mesh.faces.astype(np.int32)
    if len(triangles) > faces:
        vertices, triangles = fast_simplification.simplify(vertices, triangles, target_count=faces)[:2]
    solid = manifold(Mesh(vertices.astype(np.float32), triangles.astype(np.int64)))
    if solid.is_empty():
        raise UserError(f"no closed surface is left with {faces} faces: give more --faces, or another --level")
    result = solid.to_mesh()
    whole = Mesh(np.array(result.vert_properties[:, :3]), np.array(result.tri_verts).astype(np.int64))
    return without_small_parts(whole)


def manifold(mesh: Mesh) -> Manifold:
    """The mesh as a solid; an empty one unless every edge joins two faces that are wound alike."""
    solid = Manifold(Triangles(np.ascontiguousarray(mesh.vertices), mesh.faces.astype(np.uint32)))
    return solid if solid.status() == Error.NoError else Manifold()


def without_small_parts(mesh: Mesh, smallest: float = _SMALLEST_PART) -> Mesh:
    """Keep the connected parts that enclose at least `smallest` of the largest one's volume.

    So the walls of cavities go too, which nobody sees: the volume in them is negative.
    """
    edges = (np.ones(2 * len(mesh.faces)), (mesh.faces[:, :2].ravel(), mesh.faces[:, 1:].ravel()))
    graph = sparse.coo_array(edges, shape=(len(mesh.vertices), len(mesh.vertices)))
    count, part_of_vertex = connected_components(graph, directed=False)
    part_of_face = part_of_vertex[mesh.faces[:, 0]]
    volume = np.bincount(part_of_face, signed_volumes(mesh), minlength=count)
    kept = volume >= smallest * volume.max()
    used, faces = np.unique(mesh.faces[kept[part_of_face]], return_inverse=True)
    return Mesh(mesh.vertices[used], faces.reshape(-1, 3))
