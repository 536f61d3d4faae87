"""From a scene to a finished mesh, and its agreement with the renderings."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dreamfusion.files import rounded
from dreamfusion.mesh.agreement import Agreement, agreement, overlap, sides, silhouettes, views_of
from dreamfusion.mesh.colour import paint
from dreamfusion.mesh.extract import simplified, surface
from dreamfusion.mesh.fit import fitted
from dreamfusion.mesh.level import COARSE, LevelCandidate, best_level, level_curve
from dreamfusion.mesh.reshape import changed, thickened, with_flat_base
from dreamfusion.mesh.sample import BLUR, density_grid
from dreamfusion.mesh.solid import Solid, solid
from dreamfusion.mesh.texture import TextureOptions, bake
from dreamfusion.mesh.triangles import Mesh, closed
from dreamfusion.nerf.render import RenderOptions
from dreamfusion.nerf.scene import Scene
from dreamfusion.progress import ProgressCallback, silent

_LARGEST_FIT = 256
"""pixels per side of the pictures that a mesh is fitted to"""
FACES_A_MINUTE = 60_000
"""which xatlas makes an atlas of, about (32,000 took 17 s and 68,000 took 45 s on a busy core)"""


@dataclass(frozen=True)
class BodyOptions:
    """What the mesh is to be as a real thing."""

    height_mm: float = 100.0
    material: str = "pla"
    """a key of `solid.DENSITY`"""
    stand: bool = False
    """give it a flat base on which it stands (`reshape.with_flat_base`)"""
    wall_mm: float = 0.0
    """thicken and join what is thinner (`reshape.thickened`); 0: leave it"""


@dataclass(frozen=True)
class MeshOptions:
    """How a mesh is made."""

    resolution: int = 112
    """points of the density's lattice per diameter of the scene's ball"""
    picture_size: int = 64
    """pixels per side of the pictures by which the level is chosen and the mesh is judged"""
    blur: float = BLUR
    """of the density before its surface is taken, in radii of the ball"""
    level: float | None = None
    """density of the surface; found from renderings if not given"""
    faces: int = 20_000
    """wanted; a shape that needs more keeps more"""
    texture: TextureOptions = TextureOptions()  # noqa: RUF009  # frozen
    fit: bool = True
    """let shape and texture learn from renderings for some steps, unless the body is changed"""
    body: BodyOptions = BodyOptions()


@dataclass(frozen=True)
class Report:
    """What a mesh is like."""

    level: float
    """density of the surface, per unit length"""
    curve: tuple[LevelCandidate, ...]
    """the levels tried; none if it was set by hand"""
    faces_found: int
    """before the simplification"""
    faces: int
    vertices: int
    """without the doubles that texture seams need in most formats"""
    watertight: bool
    """whether every edge joins two faces, wound alike, also where vertices at one place count as one, as in `.stl`"""
    simplification_iou: float
    """overlap of the silhouettes before and after the simplification"""
    agreement: Agreement
    """with the volume rendering, from sides that had no part in choosing the level"""
    solid: Solid
    """what it would be as a real thing"""
    before: Solid | None
    """the same before it was made to stand, or to be printable; None if it was not"""
    changed: float
    """what that added and took away, as a share of the volume before"""

    def __str__(self) -> str:
        found = self.agreement
        return "\n".join(
            [
                f"surface at density {self.level:.3g}, {self.faces} triangles, "
                + ("closed and manifold" if self.watertight else "closed, but parts touch: NOT manifold as .stl"),
                "agreement with the rendering, from other sides than those that chose the level:",
                f"  silhouettes {found.silhouette_iou:.3f} (intersection over union), "
                f"depth error {found.depth_error:.3f} radii",
                f"  colours {found.albedo_psnr_db:.1f} dB, in soft light {found.shaded_psnr_db:.1f} dB (PSNR); "
                f"without the backdrop {found.albedo_object_psnr_db:.1f} and {found.shaded_object_psnr_db:.1f} dB",
                *([] if self.before is None else [f"before it was changed, by {self.changed:.1%} of its volume:"]),
                *([] if self.before is None else [str(self.before), "now:"]),
                str(self.solid),
            ]
        )

    def record(self) -> dict[str, Any]:
        """For a JSON file."""
        return rounded(asdict(self))


@dataclass(frozen=True, eq=False)
class Made:
    """A mesh, and how it came to be."""

    mesh: Mesh
    """baked and painted"""
    plain: Mesh
    """neither that, nor reshaped or fitted"""
    like: Mesh | None
    """the scene's surface, if the mesh was reshaped"""
    found: Mesh
    """before the simplification"""
    level: float
    curve: tuple[LevelCandidate, ...]


def make_mesh(
    scene: Scene,
    look: RenderOptions,
    options: MeshOptions = MeshOptions(),
    say: ProgressCallback = silent,
) -> tuple[Mesh, Report]:
    """The surface of a scene, simplified, painted and textured. `look`: settings of the renderings.

    `say` is told what is being done. Raises UserError for scenes without a surface: empty ones, and fog.
    """
    made = mesh_of(scene, look, options, say)
    say("comparison with renderings")
    cameras = sides(scene, options.picture_size, turn=0.5)
    body, before = options.body, made.plain if made.like is not None else None
    report = Report(
        level=made.level,
        curve=made.curve,
        faces_found=len(made.found.faces),
        faces=len(made.mesh.faces),
        vertices=len(made.mesh.vertices),
        watertight=closed(made.mesh),
        simplification_iou=overlap(silhouettes(made.found, cameras), silhouettes(made.plain, cameras)),
        agreement=agreement(made.mesh, scene, views_of(scene, cameras, look), look),
        solid=solid(made.mesh, body.height_mm, body.material),
        before=None if before is None else solid(before, body.height_mm, body.material),
        changed=0.0 if before is None else changed(before, made.mesh),
    )
    return made.mesh, report


def mesh_of(
    scene: Scene, look: RenderOptions, options: MeshOptions = MeshOptions(), say: ProgressCallback = silent
) -> Made:
    """As `make_mesh`, without the report."""
    if options.level is None:
        say("renderings to find the surface by")
    curve = _curve(scene, look, options) if options.level is None else ()
    level = best_level(curve) if options.level is None else options.level
    say(f"surface at resolution {options.resolution}")
    found = surface(density_grid(scene, options.resolution, options.blur), level)
    say(f"{len(found.faces)} triangles to {options.faces}")
    plain = simplified(found, options.faces)
    mesh = _reshaped(plain, options, say)
    like = None if mesh is plain else found
    say(f"texture of {len(mesh.faces)} triangles{_patience(len(mesh.faces))}")
    mesh = bake(paint(mesh, scene, like), scene, TextureOptions(options.texture.size), like)
    if options.fit and like is None:
        say("shape and texture as the renderings have them")
        mesh = fitted(mesh, scene, look, min(2 * options.picture_size, _LARGEST_FIT))
    return Made(_with_extras(mesh, scene, options.texture, like), plain, like, found, level, curve)


def _with_extras(mesh: Mesh, scene: Scene, wanted: TextureOptions, like: Mesh | None) -> Mesh:
    """The normal map, and the texture with light in it, if they are wanted."""
    if not (wanted.normal_map or wanted.bake_light):
        return mesh
    baked = bake(mesh, scene, wanted, like)
    return baked if wanted.bake_light else replace(mesh, normal_map=baked.normal_map)


def _reshaped(mesh: Mesh, options: MeshOptions, say: ProgressCallback) -> Mesh:
    """The mesh as it was asked for; the same object if nothing was."""
    body = options.body
    wall = body.wall_mm / body.height_mm * float(np.ptp(mesh.vertices[:, 1]))
    if wall:
        say(f"walls of at least {body.wall_mm:g} mm")
        mesh = simplified(thickened(mesh, wall), options.faces)
    if body.stand:
        say("flat base")
        mesh = with_flat_base(mesh, wall)
    return mesh


def _curve(scene: Scene, look: RenderOptions, options: MeshOptions) -> tuple[LevelCandidate, ...]:
    views = views_of(scene, sides(scene, options.picture_size), look)
    return level_curve(density_grid(scene, min(COARSE, options.resolution), options.blur), views, scene.radius)


def _patience(faces: int) -> str:
    """A warning for counts of triangles whose atlas takes minutes."""
    return f": some {faces / FACES_A_MINUTE:.0f} minutes" if faces > 1.5 * FACES_A_MINUTE else ""
