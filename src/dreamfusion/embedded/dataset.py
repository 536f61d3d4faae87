"""The embedded prior's training pictures: buffers of many views, shaded, recoloured and captioned at training time.

`build` renders the buffers once and keeps them on disk; `Pictures` turns them into endless batches.
"""

import csv
import hashlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import resources
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras, orbit
from dreamfusion.embedded.meshes import MeshRenderer, load
from dreamfusion.errors import UserError
from dreamfusion.lights import Light
from dreamfusion.rays import cast

SIZE, SUPERSAMPLE = 64, 2
DISTANCE, FOV_DEG, ELEVATION_DEG = 3.0, 40.0, (-10.0, 75.0)
OVERHEAD_ABOVE_DEG = 60.0
COLOURS = {
    "red": (0.80, 0.12, 0.10), "orange": (0.93, 0.50, 0.10), "yellow": (0.95, 0.82, 0.15), "green": (0.20, 0.60, 0.22),
    "blue": (0.15, 0.33, 0.80), "purple": (0.50, 0.22, 0.68), "pink": (0.95, 0.55, 0.70), "brown": (0.42, 0.26, 0.13),
    "black": (0.10, 0.10, 0.11), "white": (0.92, 0.92, 0.92), "gray": (0.52, 0.52, 0.53),
}  # fmt: skip
VIEW_WORDS = {
    "front": "front view", "left": "left side view", "right": "right side view", "back": "back view",
    "overhead": "overhead view", "textureless": "untextured",
}  # fmt: skip
FORMS = ("a {}", "a {}", "{}", "the {}", "a photo of a {}", "a 3d model of a {}")


@dataclass(frozen=True)
class Noun:
    """A word (or two), the mesh that teaches it, and the turn about y that makes the mesh face +z."""

    noun: str
    file: str
    yaw_deg: float


def nouns() -> list[Noun]:
    """The table `nouns.csv` beside this file."""
    text = resources.files("dreamfusion.embedded").joinpath("nouns.csv").read_text()
    return [Noun(row["noun"], row["file"], float(row["yaw_deg"])) for row in csv.DictReader(text.splitlines())]


def vocabulary() -> list[str]:
    """Every word that a training caption can hold."""
    forms = [form.format("an") for form in FORMS]
    texts = [*forms, *(n.noun for n in nouns()), *COLOURS, *VIEW_WORDS.values()]
    return sorted({word for text in texts for word in text.split()})


def held_out(colour: str, noun: str) -> bool:
    """Whether this pair is never trained on: a fixed 15 % of all (colour, noun) pairs, by a hash of the two words."""
    return hashlib.sha256(f"{colour} {noun}".encode()).digest()[0] < 0.15 * 256


@dataclass(frozen=True)
class Views:
    """Buffers of n views. Colours are multiplied by coverage; `paint` has the main colour, which can change."""

    noun: Tensor  # int " n", index into nouns()
    pose: Float[Tensor, "n 4 4"]
    paint: UInt8[Tensor, "n h w 3"]
    rest: UInt8[Tensor, "n h w 3"]
    normal: UInt8[Tensor, "n h w 3"]
    alpha: UInt8[Tensor, "n h w"]


def build(assets: Path, path: Path, views: int, seed: int, progress: Callable[[str], None]) -> None:
    """Render `views` random views of every noun's mesh under `assets` into one file at `path`, on all cores."""
    jobs = [(assets / "meshes" / noun.file, noun.yaw_deg, views, seed + index) for index, noun in enumerate(nouns())]
    if missing := [str(file) for file, *_ in jobs if not file.exists()]:
        raise UserError(f"{missing[0]} is missing; --assets must name a folder with meshes/ and manifest.csv")
    parts: list[dict[str, np.ndarray]] = []
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for index, part in enumerate(pool.map(_views, *zip(*jobs, strict=True))):
            progress(f"rendered {nouns()[index].noun} ({index + 1}/{len(jobs)})")
            parts.append({"noun": np.full(views, index), **part})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    np.savez(partial, **columns)  # pyright: ignore[reportArgumentType]  # its stubs want a bool
    partial.replace(path)


def open_views(path: Path) -> Views:
    """Read what `build` wrote."""
    with np.load(path) as file:
        return Views(**{key: torch.from_numpy(file[key]) for key in file.files})


def random_cameras(count: int, generator: Generator) -> Cameras:
    """The world of the prior: distance 3, field of view 40 deg, elevation -10 to 75 deg, any azimuth."""
    low, high = (np.deg2rad(v) for v in ELEVATION_DEG)
    azimuth = torch.rand(count, generator=generator) * 2 * torch.pi
    elevation = low + (high - low) * torch.rand(count, generator=generator)
    distance, fov = torch.full((count,), DISTANCE), torch.full((count,), float(np.deg2rad(FOV_DEG)))
    return orbit(azimuth, elevation, distance, fov, SIZE)


def _views(file: Path, yaw_deg: float, count: int, seed: int) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    cameras = random_cameras(count, torch.Generator().manual_seed(seed))
    renderer, seen = MeshRenderer(load(file, yaw_deg)), []
    for i in range(count):
        rays = cast(cameras[i : i + 1].resized(SIZE * SUPERSAMPLE))
        seen.append(renderer.buffers(rays.origin.double().numpy(), rays.direction.double().numpy(), SIZE, SUPERSAMPLE))
    buffers = {key: np.stack([getattr(b, key) for b in seen]) for key in ("paint", "rest", "normal", "alpha")}
    return {"pose": cameras.pose.numpy(), **buffers}


@dataclass(frozen=True)
class Batch:
    """Training pictures "b 3 h w" in [-1, 1], their captions, and what is known of them."""

    image: Float[Tensor, "b 3 h w"]
    captions: list[str]
    pose: Float[Tensor, "b 4 4"]
    background: Float[Tensor, "b 3"]
    light: Light


class Pictures:
    """Endless shaded, recoloured, captioned batches from the buffers."""

    def __init__(self, views: Views):
        self.views, self.nouns, self.colours = views, nouns(), list(COLOURS)
        painted = views.paint.float().mean(-1)
        total = torch.zeros(len(self.nouns)).index_add(0, views.noun, painted.sum((1, 2)))
        area = torch.zeros(len(self.nouns)).index_add(0, views.noun, (painted > 8).float().sum((1, 2)))
        self.mean_luma = total / area.clamp(min=1) / 255

    def batch(self, size: int, generator: Generator) -> Batch:
        """One batch: any noun, view, colour, light and background."""
        pick = torch.randint(len(self.views.noun), (size,), generator=generator)
        noun, pose = self.views.noun[pick], self.views.pose[pick]
        light, background = random_lights(pose, generator), random_backgrounds(size, generator)
        colour = [self._colour(int(n), generator) for n in noun]
        paint, rest = self.views.paint[pick].float() / 255, self.views.rest[pick].float() / 255
        albedo = rest + self._repaint(paint, noun, colour)
        alpha = self.views.alpha[pick].float()[..., None] / 255
        normal = self.views.normal[pick].float() / 127 - 1
        image = shade(albedo, normal, alpha, light) + (1 - alpha) * background[:, None, None]
        captions = [self._caption(i, int(noun[i]), colour[i], pose, light, generator) for i in range(size)]
        return Batch((image * 2 - 1).permute(0, 3, 1, 2).contiguous(), captions, pose, background, light)

    def _colour(self, noun: int, generator: Generator) -> str | None:
        """None (the mesh's own colours) for half of the pictures, else a colour that is not held out for this noun."""
        draw = torch.rand(2, generator=generator)
        allowed = [c for c in self.colours if not held_out(c, self.nouns[noun].noun)]
        return None if draw[0] < 0.5 else allowed[int(draw[1] * len(allowed))]

    def _repaint(self, paint: Tensor, noun: Tensor, colour: list[str | None]) -> Tensor:
        """The painted part in its new colour, keeping its light and dark places."""
        brightness = paint.mean(-1, keepdim=True) / self.mean_luma[noun].clamp(min=0.05)[:, None, None, None]
        new = torch.tensor([COLOURS[c] if c else (0.0, 0.0, 0.0) for c in colour])[:, None, None]
        changed = torch.tensor([c is not None for c in colour])[:, None, None, None]
        return torch.where(changed, (new * brightness).clamp(max=1), paint)

    def _caption(self, i: int, noun: int, colour: str | None, pose: Tensor, light: Light, generator: Generator) -> str:
        name = self.nouns[noun].noun if colour is None else f"{colour} {self.nouns[noun].noun}"
        draw = torch.rand(2, generator=generator)
        words = [with_article(FORMS[int(draw[0] * len(FORMS))], name)]
        if draw[1] < 0.85:
            words.append(VIEW_WORDS[side(pose[i, :3, 3])])
        if light.white[i]:
            words.append(VIEW_WORDS["textureless"])
        return ", ".join(words)


def with_article(form: str, name: str) -> str:
    """Put `name` into a caption form, with "an" for "a" before a vowel."""
    return form.replace("a {}", "an {}" if name[0] in "aeiou" else "a {}").format(name)


def side(eye: Float[Tensor, "3"]) -> str:
    """Which of front, left, right, back, overhead a camera at `eye` sees."""
    x, y, z = (float(v) for v in eye)
    if np.degrees(np.arctan2(y, np.hypot(x, z))) > OVERHEAD_ABOVE_DEG:
        return "overhead"
    quadrant = int(np.floor((np.degrees(np.arctan2(x, z)) + 45) / 90)) % 4
    return ("front", "left", "back", "right")[quadrant]


def random_lights(pose: Float[Tensor, "b 4 4"], generator: Generator) -> Light:
    """40 % albedo only, 35 % lit, 25 % lit and textureless; lights from around the camera, ambient 0.1 to 0.5."""
    count = len(pose)
    kind, ambient = torch.rand(count, generator=generator), 0.1 + 0.4 * torch.rand(count, generator=generator)
    lit = kind > 0.4
    position = pose[:, :3, 3] + DISTANCE * 0.6 * torch.randn(count, 3, generator=generator)
    ambient = torch.where(lit, ambient, torch.ones(()))
    return Light(position, ambient, torch.where(lit, 1 - ambient, torch.zeros(())), kind > 0.75)


def random_backgrounds(count: int, generator: Generator) -> Float[Tensor, "b 3"]:
    """Plain colours: a random grey, pulled towards a random colour."""
    grey, tint, amount = (torch.rand(count, n, generator=generator) for n in (1, 3, 1))
    return torch.lerp(grey.expand(-1, 3), tint, amount * 0.7)


def shade(
    albedo: Float[Tensor, "b h w 3"], normal: Float[Tensor, "b h w 3"], alpha: Float[Tensor, "b h w 1"], light: Light
) -> Float[Tensor, "b h w 3"]:
    """Ambient plus Lambert from far away, textureless where `light.white`; colours are multiplied by alpha."""
    toward = torch.nn.functional.normalize(light.position, dim=-1)
    lambert = (normal @ toward[:, None, :, None])[..., 0].clamp(min=0)[..., None]
    amount = light.ambient[:, None, None, None] + light.diffuse[:, None, None, None] * lambert
    return torch.where(light.white[:, None, None, None], alpha.expand_as(albedo), albedo) * amount
