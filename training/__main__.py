"""`python -m training prior` and `python -m training judge` train the networks that ship, from a folder of meshes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import tyro

from dreamfusion import runtime
from dreamfusion.claims import owned
from dreamfusion.cli.interrupt import INTERRUPTED, Ended, ending, interruptible
from dreamfusion.cli.streams import patient
from dreamfusion.config.bounds import Amount, Count, Seed, Threads
from dreamfusion.config.check import require_bounds
from dreamfusion.errors import UserError
from training import judge_shipping, judge_train, prior_train

Arguments = TypeVar("Arguments")


@dataclass(frozen=True)
class PriorTraining:
    """Train the embedded prior from its meshes, or go on training it."""

    assets: Path
    """folder with the meshes"""
    work: Path = Path("prior-training")
    """folder of the training's state; what is there is continued"""
    out: Path = Path("prior-training/prior")
    """folder of the finished prior"""
    steps: Count | None = None
    """total number of optimisation steps; the default if not given"""
    batch: Count | None = None
    """pictures per step; the default if not given"""
    threads: Threads = 0
    """CPU threads; 0: one per core"""


@dataclass(frozen=True)
class JudgeTraining:
    """Train the judge from meshes, or go on training it."""

    assets: Path
    """folder with the meshes"""
    work: Path = Path("judge-training")
    """folder of the training's state; what is there is continued"""
    out: Path = Path("judge-training/judge")
    """folder of the finished judge"""
    start: Path | None = None
    """folder of a judge to start from, in place of random weights"""
    steps: Count | None = None
    """total number of optimisation steps; the default if not given"""
    learning_rate: Amount | None = None
    """peak learning rate, after warm-up and before the decay to zero; the default if not given"""
    seed: Seed | None = None
    """seed of views and pictures; the default if not given"""


def main() -> None:
    """Run the command line and exit."""
    with patient(), ending():
        sys.exit(_code(sys.argv[1:]))


def _code(given: Sequence[str]) -> int:
    try:
        return run(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        return error.code if isinstance(error, Ended) else INTERRUPTED


def run(given: Sequence[str]) -> int:
    """Train one of the networks to the last step, or to the first Ctrl-C; returns the exit code."""
    match list(given):
        case ["prior", *rest]:
            return _prior(_read(PriorTraining, "prior", rest))
        case ["judge", *rest]:
            return _judge(_read(JudgeTraining, "judge", rest))
        case _:
            raise UserError("say what to train: python -m training prior, or python -m training judge")


def _prior(arguments: PriorTraining) -> int:
    asked = {key: value for key in ("steps", "batch") if (value := getattr(arguments, key)) is not None}
    runtime.configure_torch(arguments.threads or runtime.available_cores(), repeatable=True)
    options = replace(prior_train.TrainOptions(), **asked)
    with owned(arguments.work):
        prior_train.prepare(arguments.assets, arguments.work, options, print)
        with interruptible() as stop:
            done = prior_train.main(arguments.work, arguments.out, options, print, stop.is_set)
    return 0 if done else stop.code


def _judge(arguments: JudgeTraining) -> int:
    chosen = {name: getattr(arguments, name) for name in ("start", "steps", "learning_rate", "seed")}
    options = replace(
        judge_train.TrainOptions(), **{name: value for name, value in chosen.items() if value is not None}
    )
    runtime.configure_torch(1, repeatable=True)  # its lanes are threads of their own
    with owned(arguments.work), interruptible() as stop:
        folders = arguments.assets, arguments.work, arguments.out
        done = judge_shipping.main(folders, options, print, stop.is_set)
    return 0 if done else stop.code


def _read(kind: type[Arguments], name: str, given: Sequence[str]) -> Arguments:
    record = tyro.cli(kind, prog=f"python -m training {name}", args=given)
    require_bounds(record)
    return record


if __name__ == "__main__":
    main()
