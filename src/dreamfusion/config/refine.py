"""What the second stage is told. Imports nothing slow, as `config`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from dreamfusion.config.bounds import Amount, Count, Fraction


@dataclass(frozen=True)
class RefineConfig:
    """The second stage: the surface of a finished run as a mesh, seen larger than the run saw it."""

    steps: Annotated[int, Interval(ge=1, le=10**9)] = 200
    """optimisation steps"""
    size: Annotated[int, Interval(ge=8, le=1024)] = 256
    """size of the training views, pixels per side"""
    views: Count = 1
    """training views per step"""
    texture_only: bool = False
    """leave the shape as it is: quicker"""
    faces: Annotated[int, Ge(100)] = 20_000
    """target number of triangles"""
    texture_size: Annotated[int, Interval(ge=64, le=4096)] = 512
    """size of the texture, pixels per side"""
    resolution: Annotated[int, Interval(ge=8, le=1024)] = 128
    """grid points per diameter of the scene's sphere at which the density is sampled for the first mesh"""
    blur: Annotated[float, Interval(ge=0, le=0.2)] = 0.015
    """standard deviation of that density's blur, in radii of the sphere"""
    t_min: Fraction = 0.02
    """smallest timestep, as a fraction of the prior's; by default that at the end of the run"""
    t_max: Fraction = 0.5
    """largest timestep, likewise"""
    guidance_scale: Annotated[float, Interval(ge=0, le=1000)] = 101.0
    """classifier-free guidance scale; by default the run's"""
    vertex_rate: Amount = 2e-3
    """learning rate of the vertices, world units"""
    texture_rate: Amount = 0.01
    """learning rate of the texture"""
    laplacian: Amount = 3000.0
    """weight of the roughness of the vertices' displacements"""
    bending: Amount = 300.0
    """weight of the angles between neighbouring triangles"""
    stability: Amount = 0.0
    """weight of standing: how far the centre of mass is from well inside the base; 0: off"""
