"""The command line: dispatches, calls, prints. Whatever is slow to load is imported by the command that needs it."""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dreamfusion import __version__
from dreamfusion.claims import new_files, new_folder, owned
from dreamfusion.cli import arguments as a
from dreamfusion.cli import batch as cli_batch
from dreamfusion.cli import evaluate as cli_evaluate
from dreamfusion.cli import prior as cli_prior
from dreamfusion.cli import products as cli_products
from dreamfusion.cli import scene as cli_scene
from dreamfusion.cli import studio as cli_studio
from dreamfusion.cli.interrupt import INTERRUPTED, Ended, ending, interruptible
from dreamfusion.cli.streams import patient
from dreamfusion.config import DistillationObjective
from dreamfusion.config.check import validate
from dreamfusion.config.distill import NfsdLaw
from dreamfusion.config.presets import preset
from dreamfusion.config.serialise import require_text
from dreamfusion.errors import UserError
from dreamfusion.files import denial, listed, require_new_file
from dreamfusion.runs import default_folder

if TYPE_CHECKING:
    from dreamfusion.generate import Job
    from dreamfusion.loop import Run


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    with patient(), ending():
        sys.exit(_code(given))


def _code(given: list[str]) -> int:
    try:
        return run(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except PermissionError as error:
        print(f"error: {denial(Path(os.fsdecode(error.filename or '.')))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        return error.code if isinstance(error, Ended) else INTERRUPTED


def run(given: list[str]) -> int:
    """Dispatch to a command; returns the exit code. First arguments that are no command are a prompt.

    Raises UserError.
    """
    for text in given:
        require_text("an argument", text)
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
            raise UserError("say what about the prior: dreamfusion prior info or prior sample")
        case ["judge", *_]:
            raise UserError("say what about the judge: dreamfusion judge info")
        case [name, *rest] if name in COMMANDS:
            return _call(name, rest)
        case [word, *rest] if rest and (meant := _mistyped(word)):
            raise UserError(
                f"there is no command {word}: did you mean `dreamfusion {meant}`?"
                f' If it begins a prompt, put that in quotes: dreamfusion "{word} ..."'
            )
        case _:
            return _call("generate", given)


def _mistyped(word: str) -> str | None:
    """The command that a word is nearly."""
    near = get_close_matches(word, {name.split()[0] for name in COMMANDS}, n=1, cutoff=0.8)
    return near[0] if near else None


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
        if not isinstance(arguments.settings.objective, DistillationObjective):
            raise UserError("--save-embeddings keeps what a diffusion prior reads: leave it, or --objective, away")
    from dreamfusion import generate
    from dreamfusion.build import device_of
    from dreamfusion.cli.hints import hints
    from dreamfusion.cli.memory import in_words, planned, require_room
    from dreamfusion.diffusion.priors.locate import index_of
    from dreamfusion.diffusion.prompts import PromptTable
    from dreamfusion.distributed import init_process_group
    from dreamfusion.loop import start

    config = arguments.settings
    if isinstance(config.distill.law, NfsdLaw) and not config.negative:
        print("nfsd without --negative is csd above --distill.law.clean-below", file=sys.stderr)
    generate.prepare_process(config)
    device = device_of(config.device)
    group = init_process_group(device)
    if not group.is_main:
        return _follow(start(config, device, group))
    if config.prior != "embedded" and isinstance(config.objective, DistillationObjective):
        if arguments.preset is None and arguments.config is None:
            kind = index_of(config.prior).pipeline
            _note(f"preset {config.preset}, as the prior is a {kind}; --preset chooses another")
        needs = planned(config, device)
        _note(f"the run needs about {in_words(needs, config)}")
        require_room(needs, device)
    texts = [] if arguments.save_embeddings is None else [arguments.save_embeddings]
    wanted = arguments.out or default_folder(config.prompt, config.seed)
    with new_folder(wanted, or_next=arguments.out is None) as path:
        with new_files(texts):
            job = generate.create_run(config, path, group, say=_note)
            for file in texts:
                assert isinstance(job.prompts, PromptTable)
                generate.save_embeddings(config, job.prompts, file)
        for hint in hints(config):
            _note(hint)
        return _work(job)


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _resume(name: str, given: list[str]) -> int:
    arguments = a.read(a.Resume, name, given)
    from dreamfusion import generate, refine
    from dreamfusion.build import device_of
    from dreamfusion.distributed import init_process_group

    device = cli_products.prepare_process_as(arguments.run, arguments.device)
    group = init_process_group(device_of(device))
    if not group.is_main:
        group.barrier()  # until the folder is as the leader wants it
        run = generate.open_run(arguments.run, device)[1]
        return _follow(replace(run, group=group))
    with owned(arguments.run):
        if arguments.steps is None and refine.begun(arguments.run):
            job = refine.open_stage(arguments.run, device, prior_now=arguments.prior)
        else:
            job = generate.resume_run(arguments.run, device, arguments.steps, group, arguments.prior)
        group.barrier()
        return _work(job)


def _refine(name: str, given: list[str]) -> int:
    arguments = a.read(a.Refine, name, given)
    from dreamfusion import generate, refine
    from dreamfusion.mesh import require_formats

    told = refine.told_by(generate.config_of(arguments.run))
    arguments = a.read(a.Refine, name, given, a.Refine(arguments.run, told))
    require_formats(arguments.run / f"mesh.{suffix}" for suffix in arguments.format)
    device = cli_products.prepare_process_as(arguments.run, arguments.device)
    with owned(arguments.run):
        open_one = refine.begin if arguments.again else refine.open_stage
        return _work(open_one(arguments.run, device, arguments.settings, arguments.prior, say=_note), arguments.format)


def _follow(run: "Run") -> int:
    """Take part in a run that another process leads; that one decides what a signal means."""
    from dreamfusion import generate

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    generate.run_worker(run)
    run.group.close()
    return 0


def _work(job: "Job", formats: Iterable[str] = ()) -> int:
    """Drive a run to its end, or to the first request to stop; `formats` of its mesh beside `mesh.glb`."""
    from dreamfusion import generate, stepping
    from dreamfusion.cli.memory import measured
    from dreamfusion.cli.progress_line import ProgressLine

    run, folder = job.run, job.products
    config = run.config
    caption = config.caption(config.prompt)
    asked = f"{config.prompt!r}" + (f", understood as {caption!r}" if caption != config.prompt else "")
    print(f"{asked}, {config.steps} steps, seed {config.seed}, into {folder.path}", file=sys.stderr)
    with interruptible() as stop, ProgressLine(run.step, config.steps) as line:
        with closing(stepping.train(job, line.say)) as steps:
            for metrics in steps:
                line.show(metrics)
                if stop.is_set():
                    break
        if run.step == config.steps:
            run.group.close()
        files = generate.finish(run, folder, line.say, stop.is_set, formats)
    if folder.index not in files:
        print(f"stopped after step {run.step}; continue with: dreamfusion resume {folder.path}", file=sys.stderr)
        return stop.code
    print(listed(files))
    if memory := measured(run.device):
        print(f"peak memory: {memory}", file=sys.stderr)
    return 0


def _doctor(name: str, given: list[str]) -> int:
    arguments = a.read(a.Doctor, name, given)
    if arguments.preset:
        preset(arguments.preset)
    from dreamfusion.cli.doctor import examine

    lines, healthy = examine(partial(a.doctor_config, arguments) if arguments.prior else None)
    print("\n".join(lines))
    return 0 if healthy else 1


COMMANDS: dict[str, tuple[type, Callable[[str, list[str]], int]]] = {
    "generate": (a.Generate, _generate),
    "resume": (a.Resume, _resume),
    "refine": (a.Refine, _refine),
    "mesh": (a.MakeMesh, cli_products.mesh),
    "video": (a.MakeVideo, cli_products.video),
    "compose": (a.Compose, cli_products.compose),
    "scene": (cli_scene.Scene, cli_scene.scene),
    "studio": (cli_studio.Studio, cli_studio.studio),
    "prior info": (a.PriorInfo, cli_prior.info),
    "prior sample": (a.PriorSample, cli_prior.sample),
    "batch": (cli_batch.Batch, cli_batch.batch),
    "evaluate": (cli_evaluate.Evaluate, cli_evaluate.evaluate),
    "judge info": (cli_evaluate.JudgeInfo, cli_evaluate.judge_info),
    "doctor": (a.Doctor, _doctor),
}
