"""The commands `evaluate` and `judge info`, with their arguments. What is slow to load they import."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from dreamfusion.claims import owned
from dreamfusion.cli import arguments as a
from dreamfusion.cli.interrupt import interruptible
from dreamfusion.config import ConditionSet, Config, DreamFieldsObjective
from dreamfusion.config.bounds import Count, Seed
from dreamfusion.errors import UserError
from dreamfusion.files import listed


@dataclass(frozen=True)
class Evaluate:
    """Make a suite of prompts and measure how well the results show what was asked for.

    Runs that are there already are not made again; an interrupted evaluation goes on with the same command. Nothing is
    the best of several, unless --candidates asks for it; the report then says so.
    """

    suite: Literal["all", "plain", "seen", "unseen"] = "all"
    """40 nouns, 20 trained and 20 held-out pairs of colour and noun, or all 80"""
    prompts: Path | None = None
    """text file of prompts, one per line, in place of a suite; with --runs: the competing captions"""
    runs: tuple[Path, ...] = ()
    """run folders to evaluate, without new runs"""
    samples: bool = False
    """evaluate pictures drawn by the prior from 60 captions, without 3D"""
    ablation: bool = False
    """ablation of the method's ingredients on ten prompts (the paper's figure 6)"""
    compare: bool = False
    """DreamFusion, Dream Fields, CLIP-Mesh and real meshes side by side, on ten prompts or --prompts (table 1)"""
    contrastive: str = DreamFieldsObjective.model
    """with --compare: what Dream Fields and CLIP-Mesh optimise: toybox-clip, a CLIP or SigLIP folder, or a hub id"""
    out: Path = Path("evaluation")
    """folder of the runs and the report; what is there is continued"""
    scorer: str = "judge"
    """scoring model: judge, toybox-clip, the folder of a CLIP or SigLIP model, or a hub id (owner/name)"""
    truth: Path | None = None
    """folder of benchmarks/ceiling.py: what prompts mean, for fidelity; without, the suites' to the embedded prior"""
    prior: str = "embedded"
    """text-to-image model: embedded, a diffusers folder, or a hub id"""
    conditions: ConditionSet = "all"
    """inputs of the prior besides the caption, if it takes any: camera, background, light, variety (from the seed)"""
    seed: Seed = 0
    """seed of every run"""
    steps: Count | None = None
    """optimisation steps of every run; the preset's if not given"""
    candidates: Annotated[int, Interval(ge=1, le=100)] = Config.candidates
    """draws that each run is chosen from (`generate --candidates`), by the prior and not by the scorer"""
    jobs: Annotated[int, Ge(0)] = 0
    """runs at a time; 0: one per core"""
    files: bool = True
    """write turntable, mesh and page of every run; without, `dreamfusion resume RUN` writes them later"""
    device: str = "auto"
    """device: auto, cpu, cuda, cuda:1 ... or mps"""


@dataclass(frozen=True)
class JudgeInfo:
    """Show the judge's card: network, vocabulary, accuracy."""


def evaluate(name: str, given: list[str]) -> int:
    """Make the runs that are missing, judge them, report."""
    arguments = a.read(Evaluate, name, given)
    _check(arguments)
    with owned(arguments.out), interruptible() as stop:
        files = _evaluated(arguments, stop.is_set)
    if not files:
        print("stopped; all runs are saved, and the same command goes on", file=sys.stderr)
        return stop.code
    print(listed(files))
    return 0


def _check(arguments: Evaluate) -> None:
    chosen = [name for name in ("prompts", "runs", "samples", "ablation", "compare") if getattr(arguments, name)]
    if len(chosen) > 1 and chosen not in (["prompts", "runs"], ["prompts", "compare"]):
        raise UserError(f"--{chosen[0]} and --{chosen[1]} are different evaluations: give one of them")


def _evaluated(arguments: Evaluate, stopped: Callable[[], bool]) -> list[Path]:
    """The files of the report; none if it was stopped."""
    from dreamfusion.evaluate import ablation, comparison, session
    from dreamfusion.evaluate.suites import SUITES, read_prompts

    prompts = read_prompts(arguments.prompts) if arguments.prompts else []
    if arguments.samples:
        _say("drawing and judging pictures of 60 captions")
        return session.judge_samples(arguments.out, arguments.prior, arguments.conditions, arguments.device)
    changes = {name: getattr(arguments, name) for name in ("prior", "seed", "conditions", "candidates", "device")}
    changes |= {} if arguments.steps is None else {"steps": arguments.steps}
    opened = session.new_session(
        arguments.out, arguments.scorer, changes, arguments.jobs, arguments.files, arguments.truth
    )
    if arguments.runs:
        return session.judge_folders(opened, arguments.runs, prompts, _say)
    if arguments.ablation:
        return ablation.run_ablation(opened, _say, stopped)
    if arguments.compare:
        return comparison.run_comparison(opened, arguments.contrastive, prompts, _say, stopped)
    if prompts:
        return session.run_prompts(opened, prompts, _say, stopped)
    names = SUITES if arguments.suite == "all" else (arguments.suite,)
    return session.run_suites(opened, names, _say, stopped)


def _say(doing: str) -> None:
    print(doing, file=sys.stderr, flush=True)


def judge_info(name: str, given: list[str]) -> int:
    """Print the judge's card."""
    a.read(JudgeInfo, name, given)
    from dreamfusion.evaluate.judge.summary import describe

    print(describe())
    return 0
