"""DDIM sampling from a prior, without 3D: what it can draw before it is distilled."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.diffusion.guidance import Guidance
from dreamfusion.diffusion.priors.protocol import Conditioning, Prior, PromptEncoder, ViewCondition


def caption_conditioning(reader: PromptEncoder, captions: Sequence[str], known: ViewCondition) -> Conditioning:
    """Plain classifier-free guidance for one picture per caption."""
    text = reader.embed([*captions, ""])
    count, length, width = len(captions), *text.shape[1:]
    empty = text[-1:].expand(count, -1, -1)
    return Conditioning(text[:-1], empty, known, text.new_zeros(count, 0, length, width), text.new_zeros(count, 0))


def picture_shape(prior: Prior) -> tuple[int, ...]:
    """Of one picture in the prior's diffusion space: channels, height, width."""
    blank = torch.zeros(1, prior.image_size, prior.image_size, 3, device=prior.schedule.alphas.device)
    return tuple(prior.encode(blank).shape[1:])


def ddim(
    prior: Prior,
    given: Conditioning,
    steps: int,
    guidance_scale: float,
    generator: Generator,
    limit: float | None = 1.0,
) -> Float[Tensor, "b c u v"]:
    """Deterministic DDIM (Song et al. 2020, eta = 0) from pure noise: the last of `clean_estimates`."""
    return deque(clean_estimates(prior, given, steps, guidance_scale, generator, limit), maxlen=1).pop()


@torch.no_grad()
def clean_estimates(
    prior: Prior,
    given: Conditioning,
    steps: int,
    guidance_scale: float,
    generator: Generator,
    limit: float | None = 1.0,
) -> Iterator[Float[Tensor, "b c u v"]]:
    """What the prior takes for the clean picture at every step of DDIM, in its diffusion space.

    `steps` evenly spaced timesteps, from the last one that leaves a trace of the picture. At each of them the clean
    estimate is held within [-limit, limit] (None: it is not). For a flow this is Euler's method.
    """
    schedule, count = prior.schedule, len(given.text)
    last = int((schedule.alphas > 0).sum()) - 1
    times = torch.linspace(last, 0, steps + 1).long().to(given.text.device)
    shape = (count, *picture_shape(prior))
    # In float32 whatever the networks compute in: alpha is tiny at the first steps.
    x = torch.randn(shape, generator=generator, device=generator.device).to(given.text.device)
    for time, following in pairwise(times):
        t = time.expand(count)
        eps = Guidance(guidance_scale).guided(prior, x, t, given)
        clean = schedule.x0_from_eps(eps, x, t)
        if limit is not None:
            clean = clean.clamp(-limit, limit)
        yield clean
        x = schedule.add_noise(clean, schedule.eps_from_x0(clean, x, t), following.expand(count))
