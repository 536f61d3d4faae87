"""The commands `evaluate`, `judge info` and `judge train`. Whatever is slow to load is imported by them."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dreamfusion import arguments as a
from dreamfusion.config_check import require
from dreamfusion.errors import UserError
from dreamfusion.interrupt import INTERRUPTED, interruptible
from dreamfusion.runs import listed


def evaluate(name: str, given: list[str]) -> int:
    """Make the runs that are missing, judge them, report."""
    arguments = a.read(a.Evaluate, name, given)
    _check(arguments)
    with interruptible() as stop:
        files = _evaluated(arguments, stop.is_set)
    if not files:
        print("stopped; all runs are saved, and the same command goes on", file=sys.stderr)
        return INTERRUPTED
    print(listed(files))
    return 0


def _check(arguments: a.Evaluate) -> None:
    chosen = [name for name in ("prompts", "runs", "samples", "ablation") if getattr(arguments, name)]
    if len(chosen) > 1 and chosen != ["prompts", "runs"]:
        raise UserError(f"--{chosen[0]} and --{chosen[1]} are different evaluations: give one of them")
    require("seed", arguments.seed, 0, 2**63 - 1)
    require("jobs", arguments.jobs, 0)
    if arguments.steps is not None:
        require("steps", arguments.steps, 1)


def _evaluated(arguments: a.Evaluate, stopped: Callable[[], bool]) -> list[Path]:
    """The files of the report; none if it was stopped."""
    from dreamfusion.evaluate import ablation, session
    from dreamfusion.evaluate.suites import SUITES, read_prompts

    prompts = read_prompts(arguments.prompts) if arguments.prompts else []
    if arguments.samples:
        return session.judge_samples(arguments.out, arguments.prior, arguments.conditions, arguments.device)
    changes = {name: getattr(arguments, name) for name in ("prior", "seed", "conditions", "device")}
    changes |= {} if arguments.steps is None else {"steps": arguments.steps}
    opened = session.new_session(arguments.out, arguments.scorer, changes, arguments.jobs)
    if arguments.runs:
        return session.judge_folders(opened, arguments.runs, prompts, print)
    if arguments.ablation:
        return ablation.run_ablation(opened, print, stopped)
    if prompts:
        return session.run_prompts(opened, prompts, print, stopped)
    names = SUITES if arguments.suite == "all" else (arguments.suite,)
    return session.run_suites(opened, names, print, stopped)


def judge_info(name: str, given: list[str]) -> int:
    """Print the judge's card."""
    a.read(a.JudgeInfo, name, given)
    from dreamfusion.evaluate.judge.card import describe

    print(describe())
    return 0


def judge_train(name: str, given: list[str]) -> int:
    """Train the judge to the last step, or to the first Ctrl-C."""
    arguments = a.read(a.JudgeTrain, name, given)
    from dreamfusion import generate
    from dreamfusion.evaluate.judge import shipping
    from dreamfusion.evaluate.judge.train import TrainOptions

    options = TrainOptions()
    if arguments.steps is not None:
        require("steps", arguments.steps, 1)
        options = replace(options, steps=arguments.steps)
    generate.settle(1, "cpu")  # its lanes are threads of their own
    with interruptible() as stop:
        folders = arguments.assets, arguments.work, arguments.out
        done = shipping.main(folders, options, print, stop.is_set)
    return 0 if done else INTERRUPTED
