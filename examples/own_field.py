"""A field and a regulariser of one's own, saved and taken up again. python examples/own_field.py --folder ball"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import dreamfusion as df

CPU = torch.device("cpu")


class Ball(nn.Module):
    """A soft ball of one colour that learns its place, radius and colour (`Field`)."""

    uses_covariance = False  # its answers do not depend on `Gaussians.var`

    def __init__(self) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(3))
        self.radius = nn.Parameter(torch.tensor(0.5))
        self.colour = nn.Parameter(torch.zeros(3))

    def density(self, at: df.Gaussians) -> Tensor:
        inside = self.radius - (at.mean - self.centre).norm(dim=-1)
        return 20 * torch.sigmoid(20 * inside)

    def evaluate(self, at: df.Gaussians) -> df.FieldOutput:
        return df.FieldOutput(density=self.density(at), albedo=torch.sigmoid(self.colour).expand(len(at.mean), 3))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"network": list(self.parameters())}


def symmetric(render: df.Render, scene: df.Scene) -> Tensor:
    """Mean difference of the densities on the left and on the right (`Regulariser`)."""
    axis = torch.linspace(-1, 1, 8)
    points = torch.cartesian_prod(axis, axis, axis)
    left, right = (df.Gaussians(mean=points * torch.tensor([side, 1.0, 1.0]), var=points * 0) for side in (-1.0, 1.0))
    return (scene.field.density(left) - scene.field.density(right)).abs().mean()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("ball"))
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args(arguments)

    config = replace(df.preset("fast"), prompt="a red apple", steps=options.steps)
    weighted = {"symmetric": (df.Ramp(1.0, 0.1), symmetric)}
    run, prior = df.start(config, CPU, field=Ball(), regularisers=weighted), df.open_prior(config.prior)
    prompts = df.prompt_table(config, prior)
    for metrics in df.optimise(run, prior, prompts, config.steps // 2):
        print(metrics.step, metrics.losses)
    df.save(run, options.folder)

    again = df.load(options.folder, CPU, field=Ball(), regularisers=weighted)  # without them: an error that names them
    for metrics in df.optimise(again, prior, prompts, config.steps):
        print(metrics.step, metrics.losses)


if __name__ == "__main__":
    main()
