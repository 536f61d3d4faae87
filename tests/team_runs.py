"""Run by each process of a team, in a folder: what it does in some steps, as a file. See test_processes.py."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from conftest import red_disc, small_paper
from dreamfusion.config import Config, GridFieldConfig
from dreamfusion.distributed import ProcessGroup, init_process_group
from dreamfusion.loop import advance, prompt_table, start
from dreamfusion.schedules import Constant

STEPS = 3


def steady(config: Config) -> Config:
    """Nothing moves, so that all steps have gradients of one scene."""
    return replace(config, optimise=replace(config.optimise, lr_schedule=Constant(0.0)))


def by_adam(config: Config) -> Config:
    """Steps that do not magnify rounding, of a size that counts."""
    return replace(config, optimise=replace(config.optimise, method="adam", network=1e-2, background=1e-2))


def by_shampoo(config: Config) -> Config:
    """The paper's optimiser, at steps of a size that counts."""
    return replace(config, optimise=replace(config.optimise, lr_schedule=Constant(100.0)))


def grown(config: Config) -> Config:
    """A grid that grows after the first step; Adam, without magnifying rounding where gradients are small."""
    field = GridFieldConfig(cells=(4, 8), colour_cells=(4, 8), features=2, hidden=8, grow=(1 / config.steps,))
    adam = replace(by_adam(config).optimise, epsilon=1.0, grid=0.1)
    return replace(config, scene=replace(config.scene, field=field), optimise=adam)


def outcome(group: ProcessGroup) -> dict[str, torch.Tensor]:
    """Gradients of a scene at rest, summed over some steps; parameters after as many; the logged numbers."""
    config = replace(small_paper(), light=replace(small_paper().light, albedo_until=0.1))
    prior = group.sharded(red_disc())
    found: dict[str, torch.Tensor] = {}
    for name, change in (("rest", steady), ("moved", by_adam), ("preconditioned", by_shampoo), ("grown", grown)):
        run = start(change(config), torch.device("cpu"), group)
        prompts = prompt_table(run.config, prior)
        for step in range(STEPS):
            metrics = advance(run, prior, prompts)
            numbers = [*metrics.losses.values(), metrics.opacity, metrics.gradient_norm]
            found[f"{name}.{step}.numbers"] = torch.tensor(numbers)
            for parameter, tensor in run.scene.named_parameters():
                found[f"{name}.{step}.{parameter}"] = (tensor.grad if name == "rest" else tensor).detach().clone()
        found[f"{name}.generator"] = run.generator.get_state()
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    group = init_process_group(torch.device("cpu"))
    save_file(outcome(group), Path(sys.argv[1]) / f"{group.rank}.safetensors")
    group.close()
