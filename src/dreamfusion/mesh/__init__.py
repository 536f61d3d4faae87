"""From a density field to a textured mesh in a file: `export(bake(paint(mesh, scene), scene), path, extras)`.

`make_mesh` does all of it but the file, and says how well the result agrees with the renderings of the scene.
"""

from dreamfusion.mesh.agreement import Agreement
from dreamfusion.mesh.asset import BodyOptions, MeshOptions, Report, make_mesh, mesh_of
from dreamfusion.mesh.colour import linear_from_srgb, paint, srgb_from_linear
from dreamfusion.mesh.export import export, require_formats
from dreamfusion.mesh.extract import simplified, surface
from dreamfusion.mesh.gltf import glb_bytes
from dreamfusion.mesh.reshape import thickened, with_flat_base
from dreamfusion.mesh.sample import density_grid
from dreamfusion.mesh.solid import Solid, solid
from dreamfusion.mesh.texture import TextureOptions, bake
from dreamfusion.mesh.triangles import Mesh

__all__ = [
    "Agreement",
    "BodyOptions",
    "Mesh",
    "MeshOptions",
    "Report",
    "Solid",
    "TextureOptions",
    "bake",
    "density_grid",
    "export",
    "glb_bytes",
    "linear_from_srgb",
    "make_mesh",
    "mesh_of",
    "paint",
    "require_formats",
    "simplified",
    "solid",
    "srgb_from_linear",
    "surface",
    "thickened",
    "with_flat_base",
]
