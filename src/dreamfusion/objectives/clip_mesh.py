"""CLIP-Mesh (Khalid et al. 2022): pictures of a mesh near to the caption, and a smooth control mesh.

loss = -mean cos(image, caption) before random backgrounds + lambda mean |uniform Laplacian|^2, lambda falling. The term
of the embedding prior is left out, as its weights cannot be had. docs/reference/baselines.md has every number.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from dreamfusion.config import ClipMeshObjective
from dreamfusion.contrastive import ContrastiveModel
from dreamfusion.objectives import backgrounds
from dreamfusion.objectives.protocol import Guide, Judged, Seen, Words
from dreamfusion.objectives.target import Target, similarity
from dreamfusion.surface.limit_scene import LimitScene
from dreamfusion.surface.regularise import neighbours_mean

REACH, WIDE, NARROW = 5 / 512, 5 / 512, 2 / 512
"""Of the backgrounds' blurs: half the window, and the two standard deviations, as fractions of the picture's side"""


@dataclass(frozen=True)
class ClipMesh:
    """See the module; the terms are "similarity" and "laplacian"."""

    config: ClipMeshObjective = ClipMeshObjective()

    def __call__(self, seen: Seen, guide: Guide, words: Words, generator: Generator) -> Judged:
        """See `Objective`."""
        assert isinstance(guide, ContrastiveModel)
        assert isinstance(words, Target)
        assert isinstance(seen.scene, LimitScene)
        assert seen.background is not None
        picture, scene = seen.picture, seen.scene
        behind = self.backgrounds(len(picture.rgb), picture.rgb.shape[1], generator).to(picture.rgb)
        clear = (1 - picture.opacity)[..., None]
        pictures = picture.rgb + clear * (behind - seen.background[:, None, None])
        weight = self.laplacian_weight(seen.progress)
        terms = {
            "similarity": -similarity(pictures, guide, words),
            "laplacian": weight * uniform_laplacian(scene.control, scene.edge_vertices),
        }
        return Judged(terms, logged={}, vitals={})

    def laplacian_weight(self, progress: float) -> float:
        """Falls from `laplacian` to `laplacian_least`, faster and faster at first."""
        least = self.config.laplacian_least
        return least + (self.config.laplacian - least) * 10 ** (-self.config.laplacian_decay * progress**2)

    def backgrounds(self, count: int, size: int, generator: Generator) -> Float[Tensor, "n s s 3"]:
        """A third each: blurred noise, blurred checkers of 5 to 10 squares, the first colour dark, and plain ones."""
        own = generator.device
        dark = torch.tensor([0.5, 1.0], device=own)[None, :, None]
        colours = torch.rand(count, 2, 3, generator=generator, device=own) * dark
        squares = torch.randint(5, 11, (count,), generator=generator, device=own)
        wide = torch.rand(count, generator=generator, device=own) < 0.5
        spread = torch.where(wide, WIDE, NARROW)
        plain = torch.rand(count, 1, 1, 3, generator=generator, device=own).expand(count, size, size, 3)
        kinds = [
            backgrounds.blurred(backgrounds.noise(count, size, generator), spread, REACH),
            backgrounds.blurred(backgrounds.checker(colours, squares, size), spread, REACH),
            plain,
        ]
        return backgrounds.chosen(kinds, generator)


def uniform_laplacian(vertices: Float[Tensor, "v 3"], edges: Int[Tensor, "e 2"]) -> Float[Tensor, ""]:
    """Mean square of the coordinates of each vertex relative to the mean of its neighbours'."""
    return (neighbours_mean(vertices, edges) - vertices).square().mean()
