"""What a step costs, by stage, and how that compares with the prior's own two evaluations (with and without the text).

    python benchmarks/step.py [--steps 100] [--threads 2]        the middle of a run of the fast preset, made on the way
    python benchmarks/step.py --run FOLDER                       the last checkpoint of a run
    python benchmarks/step.py --preset paper --views 1 --size 32 --warm-steps 0       another preset, from its start
    python benchmarks/step.py --profile --memory                 also: where the time goes, what fills the memory

Prints JSON: milliseconds (medians; the mean too, since memory of empty space is refreshed in few steps only), the
prior's own two evaluations in one call, measured in between, the ratio, and the most memory held. With --profile,
functions of the package by their own time, and torch's operators without those of the prior's network. With --memory,
the largest tensors. On a GPU every clock waits for the device.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from unittest.mock import patch

import torch

from dreamfusion.build import device_of, prior_options, threads
from dreamfusion.config import Config
from dreamfusion.config.presets import preset
from dreamfusion.diffusion.priors import Prior, ViewCondition, open_prior
from dreamfusion.generate import open_run, prepare_process
from dreamfusion.loop import Run, advance, prompt_table
from machine import as_json, machine, peak_memory
from measure import Step, in_one_thread, middle_of_run, standing, timed_steps, two_evaluations
from self_times import SelfTimes, operators, timing
from tensors import tensor_report

FUNCTIONS, OPERATORS, OPERATOR_STEPS = 30, 15, 20
"""Rows of the tables, and steps at most that torch's profiler watches (it slows them down, and remembers every call)"""


def main() -> None:
    arguments = _parser().parse_args()
    device = device_of(arguments.device)
    run, prior = _run_and_prior(arguments, device)
    result = measured(run, prior, arguments.steps) | {"memory": peak_memory(device)}
    if arguments.memory:
        prompts = prompt_table(run.config, prior)
        result["tensors"] = tensor_report(run, lambda: advance(run, prior, prompts))
    if arguments.profile:
        result["profile"] = profiled(run, prior, arguments.steps)
    print(as_json(result | {"machine": machine(device)}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a run; its last checkpoint is where the steps begin")
    parser.add_argument("--prompt", default="a hamburger", help="without --run")
    parser.add_argument("--warm-steps", type=int, default=250, help="without --run: steps before the measured ones")
    parser.add_argument("--steps", type=int, default=100, help="measured ones")
    parser.add_argument("--preset", default="fast", help="without --run")
    parser.add_argument("--size", type=int, help="of the pictures, in pixels, in place of the run's")
    parser.add_argument("--views", type=int, help="per step, in place of the run's")
    parser.add_argument("--threads", type=int, default=0, help="0: what a run takes by default")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--memory", action="store_true")
    return parser


def _run_and_prior(arguments: argparse.Namespace, device: torch.device) -> tuple[Run, Prior]:
    if arguments.run is not None:
        run = open_run(arguments.run, arguments.device)[1]
        run.config = _changed(run.config, arguments)
        prepare_process(run.config, arguments.device)
        return run, open_prior(run.config.prior, prior_options(run.config, device))
    config = _changed(replace(preset(arguments.preset), prompt=arguments.prompt), arguments)
    prepare_process(config, arguments.device)
    prior = open_prior(config.prior, prior_options(config, device))
    return middle_of_run(config, device, prior, arguments.warm_steps), prior


def _changed(config: Config, arguments: argparse.Namespace) -> Config:
    size, views = arguments.size or config.size, arguments.views or config.views
    return replace(config, size=size, views=views, threads=arguments.threads)


def measured(run: Run, prior: Prior, count: int) -> dict[str, object]:
    """Times of the next `count` steps; the prior alone is timed among them, so that both see the same machine."""
    alone: list[float] = []
    prompts, in_one_call = prompt_table(run.config, prior), in_one_thread(prior)
    steps = timed_steps(run, prior, prompts, count, lambda: alone.append(two_evaluations(run, in_one_call)))
    lit, unlit = ([step for step in steps if step.lit == wanted] for wanted in (True, False))
    whole, two = median_ms(steps, _whole), round(1e3 * statistics.median(alone), 2)
    return {
        "step_ms": whole,
        "step_mean_ms": round(1e3 * statistics.mean(map(_whole, steps)), 2),
        "lit_step_ms": median_ms(lit, _whole) if lit else None,
        "unlit_step_ms": median_ms(unlit, _whole) if unlit else None,
        "steps": {"lit": len(lit), "unlit": len(unlit)},
        "stages_ms": _stages(run, steps),
        "own_ms": median_ms(steps, lambda step: step.own),
        "prior_two_evaluations_ms": two,
        "ratio": round(whole / two, 3),
        "threads": asdict(threads(run.config, run.device)),
        "at": _state(run, steps),
    }


def median_ms(steps: list[Step], part: Callable[[Step], float]) -> float:
    """The median of a part of the steps' time, in milliseconds."""
    return round(1e3 * statistics.median(map(part, steps)), 2)


def profiled(run: Run, prior: Prior, count: int) -> dict[str, object]:
    """Own times of the package's functions over the next `count` steps; then torch's operators, on a scene at rest."""
    prompts, times = prompt_table(run.config, prior), SelfTimes(run.device)
    with timing(times, (torch.Tensor, "backward"), (type(run.optimiser), "step")):
        timed_steps(run, prior, prompts, count)
    still, few = standing(run), min(count, OPERATOR_STEPS)

    def silent(
        _: Prior, noisy: torch.Tensor, t: torch.Tensor, text: torch.Tensor, known: ViewCondition
    ) -> torch.Tensor:
        return torch.zeros_like(noisy)

    with patch.object(type(prior), "predict_noise", silent):
        own = operators(lambda: advance(still, prior, prompts), few, run.device, OPERATORS)
    return {"functions": times.table(count, FUNCTIONS), "operators_without_prior": own}


def _whole(step: Step) -> float:
    return step.whole


def _stages(run: Run, steps: list[Step]) -> dict[str, float] | None:
    """The steps' own account by stage; None on a GPU, where it only says when work was queued."""
    if run.device.type != "cpu":
        return None
    return {stage: median_ms(steps, lambda step, stage=stage: step.stages[stage]) for stage in steps[0].stages}


def _state(run: Run, steps: list[Step]) -> dict[str, object]:
    """What the scene was like; means over the steps."""
    return {
        "step": run.step,
        "preset": run.config.preset,
        "size": run.config.size,
        "views": run.config.views,
        "opacity": round(statistics.mean(step.opacity for step in steps), 3),
        "occupied": round(statistics.mean(step.occupied for step in steps), 4),
    }


if __name__ == "__main__":
    main()
