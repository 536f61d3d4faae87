"""From a scene to a finished mesh, and its agreement with the renderings."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from dreamfusion.mesh.agreement import Agreement, agreement, overlap, sides, silhouettes, views_of
from dreamfusion.mesh.colour import paint
from dreamfusion.mesh.extract import simplified, surface
from dreamfusion.mesh.fit import fitted
from dreamfusion.mesh.level import COARSE, LevelCandidate, best_level, level_curve
from dreamfusion.mesh.sample import BLUR, density_grid
from dreamfusion.mesh.texture import TextureOptions, bake
from dreamfusion.mesh.triangles import Mesh, closed
from dreamfusion.nerf.render import RenderOptions
from dreamfusion.nerf.scene import Scene
from dreamfusion.progress import ProgressCallback, silent

FACES_A_MINUTE = 60_000
"""which xatlas makes an atlas of, about (32,000 took 17 s and 68,000 took 45 s on a busy core)"""


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
    """let shape and texture learn from renderings for some steps"""


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
            ]
        )

    def record(self) -> dict[str, Any]:
        """For a JSON file."""
        return _rounded(asdict(self))


@dataclass(frozen=True, eq=False)
class Made:
    """A mesh, and how it came to be."""

    mesh: Mesh
    """baked and painted"""
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
    report = Report(
        level=made.level,
        curve=made.curve,
        faces_found=len(made.found.faces),
        faces=len(made.mesh.faces),
        vertices=len(made.mesh.vertices),
        watertight=closed(made.mesh),
        simplification_iou=overlap(silhouettes(made.found, cameras), silhouettes(made.mesh, cameras)),
        agreement=agreement(made.mesh, scene, views_of(scene, cameras, look), look),
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
    mesh = simplified(found, options.faces)
    say(f"texture of {len(mesh.faces)} triangles{_patience(len(mesh.faces))}")
    mesh = bake(paint(mesh, scene), scene, TextureOptions(options.texture.size))
    if options.fit:
        say("shape and texture as the renderings have them")
        mesh = fitted(mesh, scene, look, 2 * options.picture_size)
    return Made(_with_extras(mesh, scene, options.texture), found, level, curve)


def _with_extras(mesh: Mesh, scene: Scene, wanted: TextureOptions) -> Mesh:
    """The normal map, and the texture with light in it, if they are wanted."""
    if not (wanted.normal_map or wanted.bake_light):
        return mesh
    baked = bake(mesh, scene, wanted)
    return baked if wanted.bake_light else replace(mesh, normal_map=baked.normal_map)


def _curve(scene: Scene, look: RenderOptions, options: MeshOptions) -> tuple[LevelCandidate, ...]:
    views = views_of(scene, sides(scene, options.picture_size), look)
    return level_curve(density_grid(scene, min(COARSE, options.resolution), options.blur), views, scene.radius)


def _patience(faces: int) -> str:
    """A warning for counts of triangles whose atlas takes minutes."""
    return f": some {faces / FACES_A_MINUTE:.0f} minutes" if faces > 1.5 * FACES_A_MINUTE else ""


def _rounded(value: Any) -> Any:
    """Numbers with the digits that mean something."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
