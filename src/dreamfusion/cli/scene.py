"""The command `scene`, with its arguments. What is slow to load it imports."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from tyro.conf import Positional, arg

from dreamfusion.claims import owned
from dreamfusion.cli import arguments as a
from dreamfusion.cli.batch import setting
from dreamfusion.cli.interrupt import interruptible
from dreamfusion.errors import UserError
from dreamfusion.files import listed
from dreamfusion.runs import folder_name


@dataclass(frozen=True)
class Scene:
    """Make a scene of a sentence, such as "two red apples in a bowl on a table".

    Each thing is made once, by a run of its own; the same command goes on, and uses the runs that are finished.
    Place words: on, in, under, beside, left of, right of, in front of, behind, around.
    """

    sentence: Positional[str]
    """what is in it, and where"""
    out: Path | None = None
    """folder of the scene; runs/SENTENCE-SEED if not given"""
    runs: Path | None = None
    """folder of the runs, where finished ones are found again; OUT/runs if not given"""
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE ...")] = ()
    """settings of all runs, as in `dreamfusion batch`: steps=300 prior=FOLDER seed=3"""
    size: Annotated[tuple[str, ...], arg(metavar="NAME=METRES ...")] = ()
    """longest sides of things: frog=0.1 "pine tree"=4"""
    jobs: Annotated[int, Ge(0)] = 0
    """runs at a time; 0: one per core"""
    plan: bool = False
    """only say what is understood"""


def scene(name: str, given: list[str]) -> int:
    """Make the things of a sentence and lay them out."""
    arguments = a.read(Scene, name, given)
    settings, sizes = dict(setting(text) for text in arguments.set), dict(map(_metres, arguments.size))
    from dreamfusion.runtime import available_cores
    from dreamfusion.scenes.make import make_scene, plan, relations_told

    out = arguments.out or Path("runs") / folder_name(arguments.sentence, _seed(settings))
    cores = available_cores()
    jobs = arguments.jobs or cores
    wanted = plan(arguments.sentence, settings, sizes, arguments.runs or out / "runs", max(1, cores // jobs))
    print(wanted)
    if arguments.plan:
        return 0
    with interruptible() as stop, owned(out):
        made = make_scene(wanted, out, jobs, _say, stop.is_set)
    if made is None:
        print("stopped; all runs are saved, and the same command goes on", file=sys.stderr)
        return stop.code
    for note in made.notes:
        print(f"  note: {note}")
    print("\n".join(["as laid out:", *relations_told(wanted.sentence, made.verdict.right)]))
    found = made.verdict
    print(f"  {len(found.floating)} float, {len(found.intersecting)} pairs intersect (most: {found.deepest:.1%})")
    print(listed(made.files))
    return 0


def _metres(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        metres = float(value)
    except ValueError:
        metres = 0.0
    if not name.strip() or not 0 < metres < 1e6:
        raise UserError(f"--size takes NAME=METRES, such as frog=0.1, not {text!r}")
    return name.strip().lower(), metres


def _seed(settings: dict[str, str]) -> int:
    seed = settings.get("seed", "0")
    return int(seed) if re.fullmatch("[0-9]{1,19}", seed) else 0


def _say(doing: str) -> None:
    print(doing, file=sys.stderr, flush=True)
