"""A perfect prior: what it sees in any noisy picture is the true rendering of a mesh, from the camera that it is told.

It knows nothing of diffusion but the schedule, and its answer does not depend on the noisy picture. It takes the place
of a prior in benchmarks, to tell what the 3D half loses from what the prior does. Nothing of `dreamfusion` imports it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.config import Config, LearnedBackground
from dreamfusion.diffusion.priors import NoiseSchedule, ViewCondition
from dreamfusion.diffusion.priors.spaces import PixelSpace
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.embedded.denoiser import VARIETIES
from dreamfusion.embedded.noise import cosine_alphas
from dreamfusion.embedded.world import COLOURS
from dreamfusion.errors import UserError
from dreamfusion.evaluate.evaluation_views import BACKDROP, Views
from dreamfusion.geometry import normalise
from dreamfusion.lights import Light
from dreamfusion.mesh import Mesh
from dreamfusion.nerf.rays import cast
from training.meshes import ColouredMesh, MeshRenderer, load
from training.nouns import Noun, learned, nouns
from training.prior.data import meant_by, shade
from training.prior.views import random_cameras

SUPERSAMPLE = 2
PAINTED = 8 / 255
"""darker pixels do not count as painted, as in `dataset.Pictures`"""
LUMA_VIEWS = 24


@dataclass(frozen=True)
class Maps:
    """What is seen of a thing. Colours are multiplied by the coverage."""

    albedo: Float[Tensor, "b h w 3"]
    normal: Float[Tensor, "b h w 3"]
    """in the world; mean over the covered part of the pixel"""
    alpha: Float[Tensor, "b h w 1"]

    def shown(self, light: Light, background: Float[Tensor, "b 3"]) -> Float[Tensor, "b h w 3"]:
        """Pictures in [0, 1]; lamps are far away, as in the pictures that the embedded prior learns from."""
        lit = shade(self.albedo, self.normal, self.alpha, light)
        return lit + (1 - self.alpha) * background[:, None, None]


class Thing:
    """A mesh, in its own colours or with another main colour, rendered on demand."""

    def __init__(self, renderer: MeshRenderer, colour: str | None = None):
        """`colour` is one of the embedded prior's words; light and dark places of the main colour stay."""
        self.renderer = renderer
        self.paint = None if colour is None else torch.tensor(COLOURS[colour])
        self.luma = 1.0 if colour is None else self._mean_luma()

    def maps(self, cameras: Cameras) -> Maps:
        """Buffers of all views, four rays a pixel."""
        paint, rest, normal, alpha = self._buffers(cameras)
        if self.paint is not None:
            paint = (self.paint * paint.mean(-1, keepdim=True) / max(self.luma, 0.05)).clamp(max=1)
        return Maps(paint + rest, normal, alpha)

    def views(self, ring: Cameras) -> Views:
        """Unlit, from the eight sides, as results are measured."""
        maps = self.maps(ring)
        unlit = maps.albedo + (1 - maps.alpha) * BACKDROP
        return Views(unlit[None], normalise(maps.normal), maps.alpha[..., 0])

    def _buffers(self, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Paint, rest, normal and coverage as `dataset.Pictures` reads them."""
        fine, seen = cameras.resized(cameras.height * SUPERSAMPLE), []
        for view in range(len(cameras)):
            rays = cast(fine[view : view + 1])
            origin, direction = rays.origin.double().numpy(), rays.direction.double().numpy()
            seen.append(self.renderer.buffers(origin, direction, cameras.height, SUPERSAMPLE))
        paint, rest, normal, alpha = (
            torch.stack([torch.from_numpy(getattr(buffers, name)) for buffers in seen]).float()
            for name in ("paint", "rest", "normal", "alpha")
        )
        return paint / 255, rest / 255, normal / 127 - 1, alpha[..., None] / 255

    def _mean_luma(self) -> float:
        """Mean brightness of the painted pixels over some views."""
        cameras = random_cameras(LUMA_VIEWS, torch.Generator().manual_seed(0))
        painted = self._buffers(cameras)[0].mean(-1)
        return float(painted.sum() / (painted > PAINTED).sum().clamp(min=1))


def meant(prompt: str, variety: int, assets: Path) -> Thing:
    """The thing that a prompt ("a taco", "a red chair") and a variety mean. UserError for one that means none."""
    colour, index = understood(prompt, variety)
    row = learned(nouns())[index]
    path = assets / "meshes" / row.file
    if not path.exists():
        raise UserError(f"{path} is missing: --assets must name a folder with meshes/")
    return Thing(MeshRenderer(load(path, row.yaw_deg)), colour)


def thing_of(mesh: Mesh) -> Thing:
    """A finished mesh as a thing, seen as a viewer without light shows it; its normals are those of the faces."""
    assert mesh.uv is not None  # `make_mesh` bakes
    assert mesh.texture is not None
    material = np.zeros(len(mesh.faces), dtype=np.int64)
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    return Thing(MeshRenderer(ColouredMesh(corners, mesh.uv, material, (mesh.texture / 255.0,))))


def understood(prompt: str, variety: int) -> tuple[str | None, int]:
    """The colour word of a prompt, and its mesh: an index into `learned(nouns())`. UserError if it means none."""
    words = prompt.lower().split()
    words = words[1:] if words and words[0] in ("a", "an", "the") else words
    colour = words.pop(0) if len(words) > 1 and words[0] in COLOURS else None
    return colour, meant_row(learned(nouns()), " ".join(words), variety)


def meant_row(table: Sequence[Noun], noun: str, variety: int) -> int:
    """Where in the table the noun's mesh is that the prior learned under this number."""
    fitting = (
        index
        for index, numbers in enumerate(meant_by(table))
        if table[index].noun == noun and variety % VARIETIES in numbers
    )
    row = next(fitting, None)
    if row is None:
        raise UserError(f"no mesh is called {noun!r}: `dreamfusion prior info` lists the nouns")
    return row


@dataclass(frozen=True)
class Oracle:
    """A `Prior` whose estimate of x0 is the rendering of `thing`, as large as the picture that it is asked about.

    The empty caption means the thing as well, so guidance changes nothing.
    """

    thing: Thing
    image_size: int
    fov_y: float
    """of all cameras, in radians: it is told poses alone"""
    schedule: NoiseSchedule
    name = "oracle"
    view_words = ViewWords()
    conditions = frozenset({"pose", "background", "light"})
    vocabulary = None

    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
        """Nothing: words are not needed."""
        return torch.zeros(len(prompts), 1, 1)

    def encode(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 s s"]:
        """See `Prior.encode`; pictures keep their size."""
        return PixelSpace(image.shape[1]).encode(image)

    def predict_noise(
        self, noisy: Float[Tensor, "b 3 s s"], t: Int[Tensor, " b"], text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b 3 s s"]:
        """See `Prior.predict_noise`."""
        return self.schedule.eps_from_x0(self.x0(known, noisy.shape[-1]), noisy, t)

    def x0(self, known: ViewCondition, size: int) -> Float[Tensor, "b 3 s s"]:
        """The true renderings, pixels per side; guidance asks for each view several times, which costs one."""
        assert known.pose is not None  # as a run that `oracle` takes tells all three
        assert known.background is not None
        assert known.light is not None
        views, again = torch.unique(known.pose.flatten(1), dim=0, return_inverse=True)
        first = torch.stack([(again == view).nonzero()[0, 0] for view in range(len(views))])
        fov = torch.full((len(first),), self.fov_y)
        cameras = Cameras(known.pose[first], fov, size, size)
        maps = self.thing.maps(cameras)
        seen = Maps(maps.albedo[again], maps.normal[again], maps.alpha[again])
        return self.encode(seen.shown(known.light, known.background))


def schedule() -> NoiseSchedule:
    """The embedded prior's."""
    return NoiseSchedule.variance_preserving(cosine_alphas(1000))


def oracle(thing: Thing, config: Config) -> Oracle:
    """The perfect prior for a run. Raises UserError for a run that does not tell it all that it has to know."""
    low, high = config.camera.fov_deg
    if low != high:
        raise UserError("the oracle is told poses, no fields of view: give one, as in --camera.fov-deg 40 40")
    if config.conditions != "all":
        raise UserError("the oracle has to be told the camera, the background and the light: give --conditions all")
    if isinstance(config.scene.background, LearnedBackground):
        raise UserError("the oracle has to be told the background: give --background random")
    return Oracle(thing, config.size, math.radians(low), schedule())
