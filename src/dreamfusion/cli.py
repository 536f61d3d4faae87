"""The command line: dispatches, calls, prints. Whatever is slow to load is imported by the command that needs it."""

import math
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dreamfusion import __version__, cli_evaluate, cli_prior
from dreamfusion import arguments as a
from dreamfusion.config_check import require, require_frame_size, validate
from dreamfusion.config_distill import NfsdLaw
from dreamfusion.errors import UserError
from dreamfusion.interrupt import INTERRUPTED, interruptible
from dreamfusion.presets import preset
from dreamfusion.runs import default_folder, listed, refuse_occupied, require_new_file, unused

if TYPE_CHECKING:
    from dreamfusion.generate import Job
    from dreamfusion.optimise import Run

MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl", ".usdz")
MESH_USES = {"normal_map": (".glb",), "bake_light": (".glb", ".obj", ".usdz"), "height_mm": (".stl",)}
"""Formats in which an option can be seen"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = run(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        code = 0  # whoever read our output has seen enough
    sys.exit(code)


def run(given: list[str]) -> int:
    """Dispatch to a command; returns the exit code. A first argument that is no command is a prompt."""
    match given:
        case [] | ["-h" | "--help" | "help"]:
            print(overview())
            return 0
        case ["--version"]:
            print(f"dreamfusion {__version__}")
            return 0
        case ["prior" | "judge" as group, "-h" | "--help"]:
            print(f"usage: dreamfusion {group} COMMAND ...\n")
            print(_listed(name for name in COMMANDS if name.startswith(f"{group} ")))
            return 0
        case ["prior" | "judge" as group, name, *rest] if f"{group} {name}" in COMMANDS:
            return _call(f"{group} {name}", rest)
        case ["prior", *_]:
            raise UserError("say what about the prior: dreamfusion prior info, prior sample or prior train")
        case ["judge", *_]:
            raise UserError("say what about the judge: dreamfusion judge info or judge train")
        case [name, *rest] if name in COMMANDS:
            return _call(name, rest)
        case _:
            return _call("generate", given)


def overview() -> str:
    """The commands, one line each."""
    return "\n".join(
        [
            'usage: dreamfusion "a red chair" [options]     short for: dreamfusion generate "a red chair" [options]',
            "       dreamfusion COMMAND ...",
            "",
            _listed(COMMANDS),
            "",
            "dreamfusion COMMAND --help lists the options of a command; --version says which version this is.",
        ]
    )


def _listed(names: Iterable[str]) -> str:
    return "\n".join(f"  {name:<13} {(COMMANDS[name][0].__doc__ or '').splitlines()[0]}" for name in names)


def _call(name: str, given: list[str]) -> int:
    _, command = COMMANDS[name]
    return command(name, given)


def _generate(name: str, given: list[str]) -> int:
    arguments = a.read_generate(given)
    validate(arguments.settings)
    if arguments.save_embeddings is not None:
        require_new_file(arguments.save_embeddings, (".safetensors",), "--save-embeddings")
    from dreamfusion import generate
    from dreamfusion.build import device_of
    from dreamfusion.memory import estimated
    from dreamfusion.optimise import start
    from dreamfusion.processes import joined

    config = arguments.settings
    if isinstance(config.distill.law, NfsdLaw) and not config.negative:
        print("nfsd without --negative is csd above --distill.law.clean-below", file=sys.stderr)
    generate.settle(config)
    device = device_of(config.device)
    team = joined(device)
    if not team.leads:
        return _follow(start(config, device, team))
    if config.prior != "embedded":
        print(f"the prior needs about {estimated(config, device)}", file=sys.stderr)
    job = generate.begin(config, arguments.out or default_folder(config.prompt, config.seed), team)
    if arguments.save_embeddings is not None:
        generate.save_embeddings(config, job.prompts, arguments.save_embeddings)
    return _work(job)


def _resume(name: str, given: list[str]) -> int:
    arguments = a.read(a.Resume, name, given)
    if arguments.steps is not None:
        require("steps", arguments.steps, 1)
    from dreamfusion import generate
    from dreamfusion.build import device_of
    from dreamfusion.processes import joined

    device = _settle_as(arguments.run, arguments.device)
    team = joined(device_of(device))
    if not team.leads:
        team.wait()  # until the folder is as the leader wants it
        run = generate.open_run(arguments.run, device)[1]
        return _follow(replace(run, team=team))
    job = generate.reopen(arguments.run, device, arguments.steps, team, arguments.prior)
    team.wait()
    return _work(job)


def _follow(run: "Run") -> int:
    """Take part in a run that another process leads; that one decides what Ctrl-C means."""
    from dreamfusion import generate

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    generate.follow(run)
    run.team.part()
    return 0


def _settle_as(run: Path, device: str | None) -> str:
    """Make this process ready for a run again, as it was; returns the device, which is the run's own by default."""
    from dreamfusion import generate

    config = generate.config_of(run)
    device = device or config.device
    generate.settle(config, device)
    return device


def _work(job: "Job") -> int:
    """Drive a run to its end, or to the first Ctrl-C."""
    from dreamfusion import generate
    from dreamfusion.live import LiveLine
    from dreamfusion.memory import measured

    run, folder = job.run, job.folder
    config = run.config
    print(f"{config.prompt!r}, {config.steps} steps, seed {config.seed}, into {folder.path}", file=sys.stderr)
    with interruptible() as stop, LiveLine(run.step, config.steps) as line:
        with closing(generate.work(job, line.say)) as steps:
            for metrics in steps:
                line.show(metrics)
                if stop.is_set():
                    break
        if run.step == config.steps:
            run.team.part()
        files = generate.finish(run, folder, line.say, stop.is_set)
    if folder.index not in files:
        print(f"stopped after step {run.step}; continue with: dreamfusion resume {folder.path}", file=sys.stderr)
        return INTERRUPTED
    print(listed(files))
    print(f"peak memory: {measured(run.device)}", file=sys.stderr)
    return 0


def _mesh(name: str, given: list[str]) -> int:
    arguments = a.read(a.MakeMesh, name, given)
    paths = _require_mesh(arguments)
    from dreamfusion import generate
    from dreamfusion.mesh import MeshOptions, TextureOptions

    folder, run = generate.open_run(arguments.run, _settle_as(arguments.run, arguments.device))
    output = run.config.output
    texture = TextureOptions(arguments.texture_size or output.texture_size, arguments.normal_map, arguments.bake_light)
    resolution = arguments.resolution or output.mesh_resolution
    options = MeshOptions(
        resolution, run.config.size, arguments.blur, arguments.level, arguments.faces, texture=texture
    )
    height_mm = arguments.height_mm or 100.0
    if paths:
        files, report = generate.export_mesh(run, paths, options, height_mm)
    else:
        files, report = generate.write_mesh(run, folder, options, arguments.format, height_mm)
        files += generate.write_page(run, folder)
    print(report)
    print(listed(files))
    return 0


def _require_mesh(arguments: a.MakeMesh) -> list[Path]:
    """The new files that are wanted, none for the run's own. Raises UserError for what cannot be done."""
    limits = {"resolution": (8, 1024), "texture_size": (64, 4096), "level": (1e-6, math.inf), "blur": (0, 0.2)}
    limits |= {"faces": (100, math.inf), "height_mm": (1e-3, math.inf)}
    for option, (low, high) in limits.items():
        if (value := getattr(arguments, option)) is not None:
            require(option, value, low, high)
    first = Path("mesh.glb") if arguments.out is None else arguments.out
    paths = [first, *(first.with_suffix(f".{name}") for name in arguments.format)]
    if arguments.out is not None:
        require_new_file(arguments.out, MESH_SUFFIXES)
    for option, suffixes in MESH_USES.items():
        if getattr(arguments, option) and not {path.suffix.lower() for path in paths} & set(suffixes):
            name = option.replace("_", "-")
            raise UserError(f"--{name} would change nothing: leave it away, or make one of {', '.join(suffixes)}")
    if arguments.out is None:
        return []
    for path in paths[1:]:
        require_new_file(path, MESH_SUFFIXES)
    for path in (path for path in paths if path.suffix.lower() == ".obj"):
        from dreamfusion.mesh.export import beside_obj

        for beside in beside_obj(path):
            require_new_file(beside, [beside.suffix])
    return list(dict.fromkeys(paths))


def _video(name: str, given: list[str]) -> int:
    arguments = a.read(a.MakeVideo, name, given)
    require("frames", arguments.frames, 2)
    require_frame_size("size", arguments.size)
    from dreamfusion import generate

    folder, run = generate.open_run(arguments.run, _settle_as(arguments.run, arguments.device))
    output = replace(run.config.output, frames=arguments.frames, frame_size=arguments.size)
    print(listed([*generate.write_video(run, folder, output), *generate.write_page(run, folder)]))
    return 0


def _compose(name: str, given: list[str]) -> int:
    arguments = a.read(a.Compose, name, given)
    out = arguments.out or unused(Path("runs") / arguments.scene.stem)
    refuse_occupied(out)
    from dreamfusion import compose

    print(listed(compose.write(compose.read(arguments.scene), out)))
    return 0


def _doctor(name: str, given: list[str]) -> int:
    arguments = a.read(a.Doctor, name, given)
    if arguments.preset:
        preset(arguments.preset)
    from dreamfusion.doctor import examine

    lines, healthy = examine(partial(a.doctor_config, arguments) if arguments.prior else None)
    print("\n".join(lines))
    return 0 if healthy else 1


COMMANDS: dict[str, tuple[type, Callable[[str, list[str]], int]]] = {
    "generate": (a.Generate, _generate),
    "resume": (a.Resume, _resume),
    "mesh": (a.MakeMesh, _mesh),
    "video": (a.MakeVideo, _video),
    "compose": (a.Compose, _compose),
    "prior info": (a.PriorInfo, cli_prior.info),
    "prior sample": (a.PriorSample, cli_prior.sample),
    "prior train": (a.PriorTrain, cli_prior.train),
    "evaluate": (cli_evaluate.Evaluate, cli_evaluate.evaluate),
    "judge info": (cli_evaluate.JudgeInfo, cli_evaluate.judge_info),
    "judge train": (cli_evaluate.JudgeTrain, cli_evaluate.judge_train),
    "doctor": (a.Doctor, _doctor),
}
