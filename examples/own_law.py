"""Two laws of distillation of one's own: a function, and one that learns. python examples/own_law.py --law baseline"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

import dreamfusion as df


def clipped(at: df.NoisedBatch) -> Tensor:
    """SDS whose residual eps_hat - eps is cut off at one: no pixel pulls harder than the noise it got."""
    return (at.estimates().guided - at.eps).clamp(-1, 1)


class Baseline(nn.Module):
    """SDS minus the mean of its residual, one number per channel, which it learns: a control variate (`LearnedLaw`)."""

    rate = 1e-2  # learning rate; parameters and their moments are in the run's checkpoints

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels, 1, 1))

    def attach(self, prior: df.Prior, generator: Generator) -> None:
        """Nothing of it depends on the prior."""

    def forward(self, at: df.NoisedBatch) -> Tensor:
        return at.estimates().guided - at.eps - self.mean

    def auxiliary_losses(self, at: df.NoisedBatch) -> dict[str, Tensor]:
        with torch.no_grad():
            residual = at.estimates().guided - at.eps
        return {"baseline": (residual - self.mean).square().mean((1, 2, 3))}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--law", choices=("clipped", "baseline"), default="baseline")
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args(arguments)

    config = replace(df.preset("fast"), prompt="a red chair", steps=options.steps)
    run = df.start(config, torch.device("cpu"), law=Baseline() if options.law == "baseline" else clipped)
    prior = df.open_prior(config.prior)
    for metrics in df.optimise(run, prior, df.prompt_table(config, prior), config.steps):
        print(metrics.step, metrics.losses)


if __name__ == "__main__":
    main()
