"""From a density field to a coloured mesh in a file: `export(paint(extract(scene), scene), path, extras)`."""

from dreamfusion.mesh.colour import linear_from_srgb, paint, srgb_from_linear
from dreamfusion.mesh.export import export, glb_bytes
from dreamfusion.mesh.extract import Mesh, extract

__all__ = ["Mesh", "export", "extract", "glb_bytes", "linear_from_srgb", "paint", "srgb_from_linear"]
