"""The command `scene`, with its arguments. What is slow to load it imports."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge
from tyro.conf import Positional, arg

from dreamfusion.claims import owned
from dreamfusion.cli import arguments as a
from dreamfusion.cli.batch import setting
from dreamfusion.cli.interrupt import Stop, interruptible
from dreamfusion.errors import UserError
from dreamfusion.files import listed
from dreamfusion.runs import folder_name

if TYPE_CHECKING:
    from dreamfusion.scenes.make import Plan
    from dreamfusion.scenes.make import Scene as Made


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
    joint: Annotated[int, Ge(0)] = 0
    """steps of a joint stage: all things learn together from the whole sentence; for priors that know sentences"""
    plan: bool = False
    """only say what is understood"""


def scene(name: str, given: list[str]) -> int:
    """Make the things of a sentence and lay them out."""
    arguments = a.read(Scene, name, given)
    settings, sizes = dict(setting(text) for text in arguments.set), dict(map(_metres, arguments.size))
    from dreamfusion.runtime import available_cores
    from dreamfusion.scenes.make import SCENE, make_scene, plan

    out = arguments.out or Path("runs") / folder_name(arguments.sentence, _seed(settings))
    cores = available_cores()
    jobs = arguments.jobs or cores
    folder = arguments.runs or out / "runs"
    wanted = plan(arguments.sentence, settings, sizes, folder, max(1, cores // jobs), arguments.joint > 0)
    print(wanted)
    if arguments.plan:
        return 0
    with interruptible() as stop, owned(out):
        if not (arguments.joint and (out / SCENE).exists()):
            made = make_scene(wanted, out, jobs, _say, stop.is_set)
            if made is None:
                return _stopped(stop)
            _tell(made, wanted)
        return _joint(out, arguments.joint, stop) if arguments.joint else 0


def _tell(made: "Made", wanted: "Plan") -> None:
    """Say what was laid out, and whether it is as the sentence says."""
    from dreamfusion.scenes.make import relations_told

    for note in made.notes:
        print(f"  note: {note}")
    print("\n".join(["as laid out:", *relations_told(wanted.sentence, made.verdict.right)]))
    found = made.verdict
    print(f"  {len(found.floating)} float, {len(found.intersecting)} pairs intersect (most: {found.deepest:.1%})")
    print(listed(made.files))


def _joint(out: Path, steps: int, stop: Stop) -> int:
    """Do what is left of the joint stage of the scene in a folder, and write its files."""
    from dreamfusion import generate
    from dreamfusion.batch.watch import Watch
    from dreamfusion.batch.work import work_off
    from dreamfusion.cli.progress_line import ProgressLine
    from dreamfusion.scenes import joint

    told = generate.config_of(joint.read(out / joint.SCENE).runs[0])
    generate.prepare_process(told)
    job = joint.open_stage(out, steps, told.device, say=_say)
    with owned(job.folder.path), ProgressLine(job.run.step, steps) as line:
        if not work_off(job, Watch(line.say, line.show, stop.is_set), files=False):
            return _stopped(stop)
        files = joint.write(job, out, line.say)
    print(listed(files))
    return 0


def _stopped(stop: Stop) -> int:
    print("stopped; all runs are saved, and the same command goes on", file=sys.stderr)
    return stop.code


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
