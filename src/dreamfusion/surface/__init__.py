"""A scene that is a surface: a closed mesh with a texture, drawn by a differentiable rasteriser in plain torch."""

from dreamfusion.surface.limit_scene import LimitScene
from dreamfusion.surface.rasterise import Fragments, cover, first_hits
from dreamfusion.surface.scene import MeshScene, Shape, colours_at

__all__ = ["Fragments", "LimitScene", "MeshScene", "Shape", "colours_at", "cover", "first_hits"]
