"""The closed surface where a scene's density crosses a level, and fewer triangles for it."""

import fast_simplification
import numpy as np
from jaxtyping import Bool, Int
from manifold3d import Error, Manifold
from manifold3d import Mesh as Triangles
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes

from dreamfusion.errors import NoSurface
from dreamfusion.mesh.sample import DensityGrid
from dreamfusion.mesh.triangles import Mesh, signed_volumes, solid_angles

_SMALLEST_PART = 0.02
_NOTHING = "empty scene: no density above {:.3g}: train longer, or give a lower --level"


def surface(grid: DensityGrid, level: float) -> Mesh:
    """The closed surface where the density crosses `level` (per unit length), as it is seen from outside.

    Floaters go, and so do cavities with all that is in them. Beside the lattice, memory for one more of its size is
    needed. Raises NoSurface where nothing is denser than the level.
    """
    # Density grows by orders of magnitude within a cell, so its logarithm is what linear interpolation suits.
    logarithm = np.maximum(grid.density, level * 1e-2)
    np.log(logarithm, out=logarithm)
    if logarithm.max() <= np.float32(np.log(level)):
        raise NoSurface(_NOTHING.format(level))
    corners, faces, _, _ = marching_cubes(logarithm, np.log(level), gradient_direction="ascent", allow_degenerate=False)
    del logarithm
    if len(faces) == 0:
        raise NoSurface(_NOTHING.format(level))
    found = Mesh((corners * grid.spacing + grid.origin).astype(np.float32), faces.astype(np.int64))
    return _without_enclosed_parts(without_small_parts(found))


def simplified(mesh: Mesh, faces: int) -> Mesh:
    """The mesh with about `faces` triangles, more if it needs more: closed, two faces at every edge, without colours.

    Edges are collapsed in the order of the quadric error (Garland and Heckbert 1997). Where that makes surfaces touch,
    the vertices that they share are doubled. Raises NoSurface if nothing is left.
    """
    vertices, triangles = mesh.vertices, mesh.faces.astype(np.int32)
    if len(triangles) > faces:
        vertices, triangles = fast_simplification.simplify(vertices, triangles, target_count=faces)[:2]
    solid = manifold(Mesh(vertices.astype(np.float32), triangles.astype(np.int64)))
    if solid.is_empty():
        raise NoSurface(f"no closed surface is left with {faces} faces: give more --faces, or another --level")
    return without_small_parts(mesh_of(solid))


def manifold(mesh: Mesh) -> Manifold:
    """The mesh as a solid; an empty one unless every edge joins two faces that are wound alike."""
    solid = Manifold(Triangles(np.ascontiguousarray(mesh.vertices), mesh.faces.astype(np.uint32)))
    return solid if solid.status() == Error.NoError else Manifold()


def mesh_of(solid: Manifold) -> Mesh:
    """A solid's surface, without colours."""
    found = solid.to_mesh()
    return Mesh(np.array(found.vert_properties[:, :3]), np.array(found.tri_verts).astype(np.int64))


def without_small_parts(mesh: Mesh, smallest: float = _SMALLEST_PART) -> Mesh:
    """Keep the connected parts that enclose at least `smallest` of the largest one's volume.

    So the walls of cavities, which are invisible, go too: their enclosed volume is negative.
    """
    part = _part_of_face(mesh)
    volume = np.bincount(part, signed_volumes(mesh))
    return _with_faces(mesh, (volume >= smallest * volume.max())[part])


def _without_enclosed_parts(mesh: Mesh) -> Mesh:
    """Keep the connected parts that are in no other one; none may touch another."""
    part = _part_of_face(mesh)
    names, first = np.unique(part, return_index=True)
    free = np.ones(len(names), bool)
    for name, place in zip(names, mesh.vertices[mesh.faces[first, 0]], strict=True):
        others = Mesh(mesh.vertices, mesh.faces[part != name])
        free[name] = solid_angles(others, place).sum() < 2 * np.pi  # 4 pi from inside, else 0
    return _with_faces(mesh, free[part])


def _part_of_face(mesh: Mesh) -> Int[np.ndarray, " f"]:
    """The number of the connected part that each face is in."""
    edges = (np.ones(2 * len(mesh.faces)), (mesh.faces[:, :2].ravel(), mesh.faces[:, 1:].ravel()))
    graph = sparse.coo_array(edges, shape=(len(mesh.vertices), len(mesh.vertices)))
    return connected_components(graph, directed=False)[1][mesh.faces[:, 0]]


def _with_faces(mesh: Mesh, kept: Bool[np.ndarray, " f"]) -> Mesh:
    """Some of the faces, with their vertices alone."""
    used, faces = np.unique(mesh.faces[kept], return_inverse=True)
    return Mesh(mesh.vertices[used], faces.reshape(-1, 3))
