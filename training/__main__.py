"""Train the networks of dreamfusion from a folder of meshes and a manifest that says what they show.

Rendering comes first, then the training; Ctrl-C stops it and saves, and the same command goes on where it stopped, as
if it had not. docs/training.md says where the meshes of the networks that ship come from, and what the manifest holds.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dreamfusion import runtime
from dreamfusion.claims import owned
from dreamfusion.cli.interrupt import INTERRUPTED, Ended, ending, interruptible
from dreamfusion.cli.streams import patient
from dreamfusion.config.bounds import Amount, Count, Seed, Threads
from dreamfusion.config.check import require_bounds
from dreamfusion.errors import UserError
from training import nouns
from training.clip import ship as clip_shipping
from training.clip import train as clip
from training.judge import shipping
from training.judge import train as judge
from training.loop import Watch
from training.nouns import Assets
from training.prior import train as prior
from training.prior.views import build


@dataclass(frozen=True)
class Meshes:
    """What is learned from."""

    assets: Path
    """folder whose subfolder meshes/ has the .glb files of the manifest"""
    manifest: Path = nouns.TABLE
    """CSV, a mesh a row: noun, file, and if wanted yaw_deg, front, adjective, kept_from (docs/training.md)"""
    licence: str = ""
    """of the meshes and the weights, for the card of the network; needed with a manifest of your own"""

    def opened(self) -> Assets:
        """The manifest, read."""
        own = self.manifest.resolve() != nouns.TABLE.resolve()
        if own and not self.licence:
            raise UserError("say with --licence what the card of the network shall say about the meshes of --manifest")
        return Assets(self.assets, nouns.nouns(self.manifest), self.licence or nouns.LICENCE)


@dataclass(frozen=True)
class PriorTraining(Meshes):
    """Train the embedded prior, or go on training it; use it with `dreamfusion generate --prior OUT`."""

    work: Path = Path("prior-training")
    """folder of the training: renderings, state, log, errors; what is there is continued"""
    out: Path = Path("prior-training/prior")
    """folder of the finished prior"""
    steps: Count = prior.TrainOptions.steps
    """total number of optimisation steps"""
    threads: Threads = 0
    """CPU threads; 0: one per core"""


@dataclass(frozen=True)
class JudgeTraining(Meshes):
    """Train the judge of the evaluation, or go on training it."""

    work: Path = Path("judge-training")
    """folder of the training: renderings, state, log; what is there is continued"""
    out: Path = Path("judge-training/judge")
    """folder of the finished judge"""
    steps: Count = judge.TrainOptions.steps
    """total number of optimisation steps"""
    learning_rate: Amount = judge.TrainOptions.learning_rate
    """peak learning rate, after warm-up and before the linear decay to zero"""
    seed: Seed = judge.TrainOptions.seed
    """seed of views and pictures"""
    fold: Literal[0, 1] | None = None
    """leave out this half of the meshes, and measure on it: a cross-validation"""
    threads: Threads = 0
    """CPU threads; 0: one per core"""


@dataclass(frozen=True)
class ClipTraining(Meshes):
    """Train the embedded contrastive model, or go on training it."""

    work: Path = Path("clip-training")
    """folder of the training: renderings, state, log; what is there is continued"""
    out: Path = Path("clip-training/clip")
    """folder of the finished model"""
    steps: Count = clip.TrainOptions.steps
    """total number of optimisation steps"""
    learning_rate: Amount = clip.TrainOptions.learning_rate
    """the greatest: after warm-up and before the linear decay to zero"""
    seed: Seed = clip.TrainOptions.seed
    """seed of views and pictures"""
    threads: Threads = 0
    """CPU threads; 0: one per core"""


Training = (
    Annotated[PriorTraining, tyro.conf.subcommand("prior")]
    | Annotated[JudgeTraining, tyro.conf.subcommand("judge")]
    | Annotated[ClipTraining, tyro.conf.subcommand("clip")]
)


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
    arguments = tyro.cli(
        Training,  # pyright: ignore[reportArgumentType]  # a union of commands
        prog="python -m training",
        description=__doc__,
        args=given,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    require_bounds(arguments)
    match arguments:
        case PriorTraining():
            return _prior(arguments)
        case JudgeTraining():
            return _judge(arguments)
        case ClipTraining():
            return _clip(arguments)


def _prior(arguments: PriorTraining) -> int:
    runtime.configure_torch(arguments.threads or runtime.available_cores(), repeatable=True)
    options = prior.TrainOptions(steps=arguments.steps)
    assets = arguments.opened()
    with owned(arguments.work):
        build(assets, arguments.work, print)
        with interruptible() as stop:
            done = prior.main(assets, arguments.work, arguments.out, options, Watch(print, stop.is_set))
    return 0 if done else stop.code


def _judge(arguments: JudgeTraining) -> int:
    runtime.configure_torch(arguments.threads or runtime.available_cores(), repeatable=True)
    options = judge.TrainOptions(
        steps=arguments.steps, learning_rate=arguments.learning_rate, seed=arguments.seed, fold=arguments.fold
    )
    assets = arguments.opened()
    with owned(arguments.work):
        shipping.prepare(assets, arguments.work, options, print)
        with interruptible() as stop:
            done = shipping.main(assets, arguments.work, arguments.out, options, Watch(print, stop.is_set))
    return 0 if done else stop.code


def _clip(arguments: ClipTraining) -> int:
    runtime.configure_torch(arguments.threads or runtime.available_cores(), repeatable=True)
    options = clip.TrainOptions(steps=arguments.steps, learning_rate=arguments.learning_rate, seed=arguments.seed)
    assets = arguments.opened()
    with owned(arguments.work):
        clip_shipping.prepare(assets, arguments.work, options, print)
        with interruptible() as stop:
            done = clip_shipping.main(assets, arguments.work, arguments.out, options, Watch(print, stop.is_set))
    return 0 if done else stop.code


if __name__ == "__main__":
    main()
