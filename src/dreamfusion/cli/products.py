"""The commands `mesh`, `video` and `compose`: new files of finished runs. Whatever is slow to load they import."""

import sys
from dataclasses import replace
from pathlib import Path

from dreamfusion.claims import new_files, new_folder, owned
from dreamfusion.cli import arguments as a
from dreamfusion.errors import UserError
from dreamfusion.files import listed, require_new_file

MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl", ".usdz")
MESH_USES = {"normal_map": (".glb",), "bake_light": (".glb", ".obj", ".usdz")}
"""Formats in which an option can be seen"""


def prepare_process_as(run: Path, device: str | None) -> str:
    """Make this process ready for a run again, as it was; returns the device, which is the run's own by default."""
    from dreamfusion import generate

    config = generate.config_of(run)
    device = device or config.device
    generate.prepare_process(config, device)
    return device


def mesh(name: str, given: list[str]) -> int:
    """Make a run's mesh again, or files of it."""
    arguments = a.read(a.MakeMesh, name, given)
    paths = _require_mesh(arguments)
    from dreamfusion import generate
    from dreamfusion.mesh import BodyOptions, MeshOptions, TextureOptions

    folder, run = generate.open_run(arguments.run, prepare_process_as(arguments.run, arguments.device))
    output = run.config.output
    texture = TextureOptions(arguments.texture_size or output.texture_size, arguments.normal_map, arguments.bake_light)
    resolution = arguments.resolution or output.mesh_resolution
    blur = generate.mesh_blur(run.config) if arguments.blur is None else arguments.blur
    body = BodyOptions(arguments.height_mm, arguments.material, arguments.stand, arguments.printable or 0.0)
    options = MeshOptions(
        resolution, run.config.size, blur, arguments.level, arguments.faces, texture, arguments.fit, body
    )
    if paths:
        with new_files(paths):
            files, report = generate.export_mesh(run, paths, options, _say)
    else:
        with owned(folder.path):
            files, report = generate.write_mesh(run, folder, options, arguments.format, _say)
            files += generate.write_page(run, folder)
    print(report)
    print(listed(files))
    return 0


def _require_mesh(arguments: a.MakeMesh) -> list[Path]:
    """The new files that are wanted, none for the run's own. Raises UserError for what cannot be done."""
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


def video(name: str, given: list[str]) -> int:
    """Make a run's pictures again."""
    arguments = a.read(a.MakeVideo, name, given)
    from dreamfusion import generate
    from dreamfusion.facts import facts_of

    folder, run = generate.open_run(arguments.run, prepare_process_as(arguments.run, arguments.device))
    output = replace(run.config.output, frames=arguments.frames, frame_size=arguments.size)
    with owned(folder.path):
        facts_of(run, folder)  # what the page would refuse, before the pictures take their time
        files = [*generate.write_video(run, folder, output, _say), *generate.write_page(run, folder)]
    print(listed(files))
    return 0


def compose(name: str, given: list[str]) -> int:
    """Make one scene of several objects."""
    arguments = a.read(a.Compose, name, given)
    from dreamfusion.compose import alone, read, write
    from dreamfusion.compose.motion import Spin

    single = arguments.scene.is_dir() or arguments.scene.suffix.lower() == ".glb"
    composition = alone(arguments.scene) if single else read(arguments.scene)
    if arguments.turntable is not None:
        composition = replace(composition, motion=Spin(arguments.turntable))
    name = arguments.scene.resolve().stem
    wanted = arguments.out or Path("runs") / (f"{name}-scene" if single else name)
    with new_folder(wanted, or_next=arguments.out is None) as out:
        files = write(composition, out, _say)
    print(listed(files))
    return 0


def _say(doing: str) -> None:
    """What is being done, for somebody who waits."""
    print(f"{doing} ...", file=sys.stderr, flush=True)
