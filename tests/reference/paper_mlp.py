"""The paper's field for one place at a time, from its weights by name, in plain loops over layers."""

import torch


def encoded(place, variance, levels):
    """E[sin], E[cos] of 2^l x under N(place, variance I), as one list: all sines, then all cosines, level by level."""
    sines, cosines = [], []
    for level in range(levels):
        for x in place:
            fade = torch.exp(torch.tensor(-0.5 * 4.0**level * variance, dtype=place.dtype))
            sines.append(torch.sin(2.0**level * x) * fade)
            cosines.append(torch.cos(2.0**level * x) * fade)
    return torch.stack(sines + cosines)


def layer_norm(x, weight, bias):
    return (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-5) * weight + bias


def paper_mlp(weights, place, variance, levels, blocks, order):
    """Logit and albedo at one place."""

    def linear(name, x):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def norm(name, x):
        return layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = linear("enter", encoded(place, variance, levels))
    for number in range(blocks):
        name = f"blocks.{number}"
        inner = norm(f"{name}.norm", x) if order == "norm-first" else x
        inner = linear(f"{name}.first", inner)
        inner = linear(f"{name}.second", inner * torch.sigmoid(inner))
        x = x + inner if order == "norm-first" else norm(f"{name}.norm", x + inner)
    if order == "norm-first":
        x = norm("norm", x)
    return linear("to_density", x)[0], torch.sigmoid(linear("to_albedo", x))
