"""The embedded prior's noise schedule, the cosine of Nichol and Dhariwal 2021 (arXiv 2102.09672, equation 17)."""

import json
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

LARGEST_BETA = 0.999
MOST_STEPS = 10_000


class CosineScheduler:
    """What is needed of a diffusers scheduler with `beta_schedule` "squaredcos_cap_v2", without importing diffusers."""

    def __init__(self, num_train_timesteps: int, prediction_type: str):
        self.config = SimpleNamespace(num_train_timesteps=num_train_timesteps, prediction_type=prediction_type)
        self.alphas_cumprod = cosine_alphas(num_train_timesteps)

    @classmethod
    def from_pretrained(cls, path: str, subfolder: str = "", **_: Any) -> "CosineScheduler":
        """Read `scheduler_config.json`. Raises OSError, ValueError or KeyError, also for any other schedule."""
        file = Path(path) / subfolder / "scheduler_config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        if config["beta_schedule"] != "squaredcos_cap_v2":
            raise ValueError(f"{file.name}: beta_schedule must be squaredcos_cap_v2")
        steps = int(config["num_train_timesteps"])
        if not 1 <= steps <= MOST_STEPS:
            raise ValueError(f"{file.name}: num_train_timesteps must be between 1 and {MOST_STEPS}")
        return cls(steps, str(config["prediction_type"]))


def cosine_alphas(steps: int) -> Float[Tensor, " T"]:
    """Share of the clean picture's variance after each step: the product of 1 - beta, beta at most `LARGEST_BETA`."""
    share = [math.cos((step / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(steps + 1)]
    betas = [min(1 - after / before, LARGEST_BETA) for before, after in pairwise(share)]
    return torch.cumprod(1 - torch.tensor(betas), dim=0)


def signal_share(timestep: Int[Tensor, " b"], steps: int = 1000) -> Float[Tensor, " b"]:
    """Share of the clean picture's variance in the noisy one: `cosine_alphas` in closed form."""
    first = math.cos(0.008 / 1.008 * (math.pi / 2)) ** 2
    angle = ((timestep.float() + 1) / steps + 0.008) / 1.008 * (math.pi / 2)
    return (angle.cos().square() / first).clamp(0, 1)
