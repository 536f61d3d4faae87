"""The embedded prior's world: its captions, its lights and backgrounds, how its pictures are shaded."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.embedded.denoiser import VARIETIES
from dreamfusion.embedded.world import COLOURS, DISTANCE
from dreamfusion.lights import Light
from training.nouns import Noun, learned, names

OVERHEAD_ABOVE_DEG = 60.0
VIEW_WORDS = {
    "front": "front view", "left": "left side view", "right": "right side view", "back": "back view",
    "overhead": "overhead view", "textureless": "untextured",
}  # fmt: skip
FORMS = ("a {}", "a {}", "{}", "the {}", "a photo of a {}", "a 3d model of a {}")
COLOURED = ("golden", "autumn")
"""adjectives that speak of colour: never beside a colour word"""


def vocabulary(table: Sequence[Noun]) -> list[str]:
    """Every word that a training caption can hold."""
    forms = [form.format("an") for form in FORMS]
    rows = learned(table)
    texts = [*forms, *names(rows), *(row.adjective for row in rows), *COLOURS, *VIEW_WORDS.values()]
    return sorted({word for text in texts for word in text.split()})


def held_out(colour: str, noun: str) -> bool:
    """Whether this pair is never trained on: a fixed 15 % of all (colour, noun) pairs, by a hash of the two words."""
    return hashlib.sha256(f"{colour} {noun}".encode()).digest()[0] < 0.15 * 256


def meant_by(table: Sequence[Noun]) -> list[list[int]]:
    """The varieties that stand for each row: the meshes of a noun take turns in all numbers below `VARIETIES`.

    Where a noun has more meshes than there are numbers, the later ones share theirs with the first.
    """
    rows = [row.noun for row in table]
    meant = []
    for index, noun in enumerate(rows):
        rank, count = rows[:index].count(noun), rows.count(noun)
        meant.append([v for v in range(VARIETIES) if v % count == rank] or [rank % VARIETIES])
    return meant


def described(row: Noun, colour: str | None, with_adjective: bool) -> str:
    """A noun's name after its colour and, if it has one that does not contradict the colour, its adjective."""
    fits = with_adjective and not (colour and row.adjective in COLOURED)
    return " ".join(word for word in (colour, row.adjective if fits else "", row.noun) if word)


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
    return torch.where(light.textureless[:, None, None, None], alpha.expand_as(albedo), albedo) * amount
