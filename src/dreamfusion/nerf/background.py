"""Backgrounds: the colour of a ray beyond the object.

A background answers two questions. `draw`: the plain colours of this step's views, or None if it has none; a prior
may be told of them. `colour`: what lies in a direction when no plain colour was drawn, so also in videos.
"""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion.config import LearnedBackground, RandomBackground, SolidBackground
from dreamfusion.nerf.fields.encoding import encoded_size, positional
from dreamfusion.nerf.fields.layers import linear


@runtime_checkable
class Background(Protocol):
    """An `nn.Module`; colours are in [0, 1]."""

    def draw(self, views: int, generator: Generator) -> Float[Tensor, "b 3"] | None:
        """Plain colours for a step's views, one each, or None if the background depends on the direction."""
        ...

    def colour(self, direction: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colour in unit directions."""
        ...

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters, as in `Field`."""
        ...


class Solid(nn.Module):
    """One colour everywhere, always."""

    value: Tensor

    def __init__(self, config: SolidBackground = SolidBackground()) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(config.colour))

    def draw(self, views: int, generator: Generator) -> Float[Tensor, "b 3"]:
        """See `Background`; draws nothing from the generator."""
        return self.value.expand(views, 3)

    def colour(self, direction: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """See `Background`."""
        return self.value.to(direction.dtype).expand_as(direction)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Background`."""
        return {}


class RandomSolid(nn.Module):
    """A new solid colour for every view of every step, so that the object cannot blend into it and holes show.

    Outside training it shows the middle of its range.
    """

    middle: Tensor

    def __init__(self, config: RandomBackground = RandomBackground()) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("middle", torch.tensor([config.low, config.high]).mean(0))

    def draw(self, views: int, generator: Generator) -> Float[Tensor, "b 3"]:
        """See `Background`."""
        low, high = self.middle.new_tensor([self.config.low, self.config.high])
        share = torch.rand(views, 1 if self.config.grey else 3, generator=generator, device=generator.device)
        return torch.lerp(low, high, share.to(self.middle).expand(views, 3))

    def colour(self, direction: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """See `Background`."""
        return self.middle.to(direction.dtype).expand_as(direction)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Background`."""
        return {}


class Environment(nn.Module):
    """A learned surrounding, infinitely far away: an MLP on the encoded direction (DreamFusion, appendix A.2)."""

    def __init__(self, config: LearnedBackground, generator: Generator) -> None:
        super().__init__()
        self.levels = config.levels
        sizes = [encoded_size(config.levels)] + [config.width] * config.layers
        self.hidden = nn.ModuleList(linear(size, config.width, generator, gain=2**0.5) for size in sizes[:-1])
        # The small last layer starts the surrounding near grey.
        self.to_colour = linear(config.width, 3, generator, gain=0.1)

    def draw(self, views: int, generator: Generator) -> None:
        """See `Background`."""

    def colour(self, direction: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """See `Background`."""
        x = positional(direction, self.levels)
        for layer in self.hidden:
            x = F.silu(layer(x))
        return torch.sigmoid(self.to_colour(x))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Background`."""
        return {"network": list(self.parameters())}
