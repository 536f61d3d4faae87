"""A thing like no other: the mean of all, which the prior expects where a caption names nothing."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion.embedded.tables import Shape, draw
from training.prior.views import random_cameras

STEPS, THINGS, VIEWS = 200, 8, 2
RATE = 0.05


def mean_thing(things: Float[Tensor, "t n"], decode: nn.Module, shape: Shape) -> Float[Tensor, "1 n"]:
    """Numbers whose pictures are the means over all things, as near as the tables come: by squared error.

    The decoder stays as it is. Every step compares it with some things, drawn from some cameras.
    """
    generator = Generator().manual_seed(0)
    value = things.mean(0, keepdim=True).requires_grad_()
    adam = torch.optim.Adam([value], betas=(0.9, 0.99))
    for step in range(STEPS):
        pose = random_cameras(VIEWS, generator).pose
        some = torch.randint(len(things), (THINGS,), generator=generator)
        with torch.no_grad():
            seen = draw(things[some], decode, shape, pose.expand(THINGS, VIEWS, 4, 4)).mean(0)
        adam.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        adam.zero_grad()
        (draw(value, decode, shape, pose[None])[0] - seen).square().mean().backward()
        adam.step()
    return value.detach()
