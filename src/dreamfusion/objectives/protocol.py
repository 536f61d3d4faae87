"""The interface of an objective: from the pictures of a step to terms of the loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.contrastive import ContrastiveModel
from dreamfusion.diffusion.priors import Prior
from dreamfusion.diffusion.prompts import PromptTable
from dreamfusion.lights import Light
from dreamfusion.nerf.render import Render
from dreamfusion.nerf.scene import Scene
from dreamfusion.objectives.target import Target

Guide = Prior | ContrastiveModel
"""The frozen network that judges pictures"""
Words = PromptTable | Target
"""What it makes of the prompt"""


@dataclass(frozen=True, eq=False)
class Seen:
    """The pictures of a step, and what they were taken of."""

    picture: Render
    """of this process' own views; with gradients"""
    cameras: Cameras
    """of all views; their places are relative to what they look at"""
    light: Light
    background: Float[Tensor, "b 3"] | None
    """plain colours behind the views; None: the scene's own surroundings"""
    scene: Scene
    progress: float
    """of the run, in [0, 1]"""


@dataclass(frozen=True, eq=False)
class Judged:
    """The answer of an objective."""

    terms: Mapping[str, Float[Tensor, ""]]
    """of the loss, by name: weighted, differentiable in the pictures"""
    logged: Mapping[str, Float[Tensor, ""]]
    """numbers to log in place of terms whose value means nothing"""
    vitals: Mapping[str, float]
    """by the name of a vital sign: what the term "distillation" is divided by to be one"""


@runtime_checkable
class Objective(Protocol):
    """What pictures are judged by."""

    def __call__(self, seen: Seen, guide: Guide, words: Words, generator: Generator) -> Judged:
        """Terms of the loss for the pictures of a step. Raises UserError if no gradient would come back from there."""
        ...
