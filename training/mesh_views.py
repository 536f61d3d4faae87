"""Views of meshes, as the trainings of the judge and of the contrastive model read them: facts, and a file a mesh.

Files stay on the disk until pictures are drawn from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from dreamfusion.errors import damage_explained

CHANNELS = 10
"""numbers of a pixel: all of `views.BUFFERS`, one after the other"""


@dataclass(frozen=True, eq=False)
class Views:
    """n views of some meshes."""

    mesh: Int[Tensor, " n"]
    """row of the manifest"""
    noun: Int[Tensor, " n"]
    """number among the manifest's nouns"""
    side: Int[Tensor, " n"]
    """number in the training's `SIDES`"""
    eye: Float[Tensor, "n 3"]
    """towards the camera"""
    place: Int[Tensor, " n"]
    """number among the views of the mesh's file"""
    files: Sequence[UInt8[np.ndarray, "_ 10 h w"]]
    """by mesh; colours are multiplied by coverage, `paint` has the one to change"""

    def __len__(self) -> int:
        return len(self.mesh)

    def __getitem__(self, rows: Tensor | slice) -> "Views":
        """Some of the views, by number or by mask."""
        return replace(self, **{name: value[rows] for name, value in vars(self).items() if name != "files"})

    def buffers(self) -> UInt8[Tensor, "n 10 h w"]:
        """Read what all of them see."""
        pairs = zip(self.mesh.tolist(), self.place.tolist(), strict=True)
        return torch.from_numpy(np.stack([self.files[mesh][place] for mesh, place in pairs]))


def open_file(path: Path, count: int, size: int) -> UInt8[np.ndarray, "{count} 10 {size} {size}"]:
    """What a mesh's file holds, not read yet. Raises UserError if it is damaged, or of other views."""
    with damage_explained(path, "delete it, and it will be rendered again"):
        views = np.load(path, mmap_mode="r")
        if views.shape != (count, CHANNELS, size, size):
            raise ValueError("it holds other views")
    return views


def views_of(
    mesh: int, noun: int, side: Sequence[int], eye: Float[Tensor, "n 3"], files: Sequence[np.ndarray]
) -> Views:
    """All views of one mesh."""
    return Views(
        mesh=torch.full((len(eye),), mesh),
        noun=torch.full((len(eye),), noun),
        side=torch.tensor(side),
        eye=eye,
        place=torch.arange(len(eye)),
        files=files,
    )


def joined(parts: Sequence[Views]) -> Views:
    """Views that share their files, one after the other."""
    tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0]) if name != "files"}
    return replace(parts[0], **tensors)


def balanced(noun: Int[Tensor, " n"], count: int, generator: Generator) -> Int[Tensor, " {count}"]:
    """`count` random places in `noun`: a noun with four times as many views comes twice as often."""
    weight = torch.bincount(noun)[noun].double().rsqrt()
    return torch.multinomial(weight, count, replacement=True, generator=generator)
