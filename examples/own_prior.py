"""A prior of one's own, with which every answer has a closed form. python examples/own_prior.py --out runs/disc"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import dreamfusion as df
from dreamfusion.diffusion.view_words import ViewWords

SIZE = 32


class DiscPrior:
    """Every picture, from everywhere, is a red disc on white: N(disc, std^2 I) (`Prior`)."""

    name, image_size, std = "disc", SIZE, 0.1
    view_words = ViewWords()
    conditions: frozenset[str] = frozenset()  # what it uses beside words: pose, background, light, variety
    vocabulary = None  # takes any text

    def __init__(self) -> None:
        y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
        red, white = torch.tensor([0.9, 0.1, 0.1])[:, None, None], torch.ones(3, 1, 1)
        self.mean = 2 * torch.where((x.square() + y.square() < 0.25)[None], red, white) - 1
        self.schedule = df.NoiseSchedule.variance_preserving(torch.linspace(0.01, 1.56, 1000).cos() ** 2)

    def embed(self, prompts: Sequence[str]) -> Tensor:
        return torch.zeros(len(prompts), 1, 1)

    def encode(self, image: Tensor) -> Tensor:
        return 2 * image.permute(0, 3, 1, 2) - 1

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, known: df.ViewCondition) -> Tensor:
        """Minus sigma times the score of the noisy Gaussian."""
        alpha, sigma = (
            level.to(noisy)[:, None, None, None] for level in (self.schedule.alpha(t), self.schedule.sigma(t))
        )
        return sigma * (noisy - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/disc"))
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args(arguments)

    config = replace(df.preset("fast"), prompt="a ball", steps=options.steps, size=SIZE, device="cpu")
    config = replace(config, distill=replace(config.distill, guidance_scale=1.0))
    job = df.create_run(config, options.out, prior=DiscPrior())  # to go on: df.resume_run(out, "cpu", prior_now=...)
    for metrics in df.train(job, lambda stage: None):
        print(metrics.step, metrics.losses["distillation"])


if __name__ == "__main__":
    main()
