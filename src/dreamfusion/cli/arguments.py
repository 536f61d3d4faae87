"""The arguments of each command, as records that tyro turns into options and help. Nothing slow to load is imported."""

import argparse
import errno
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from annotated_types import Ge, Gt, Interval
from tyro.conf import AvoidSubcommands, DisallowNone, Positional, PositionalMetavarFromFieldName, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from dreamfusion import config as c
from dreamfusion.config import OutputConfig
from dreamfusion.config.bounds import Amount, Count, FrameSize, Seed
from dreamfusion.config.check import require_bounds
from dreamfusion.config.kinds import with_kinds
from dreamfusion.config.presets import FOR_OBJECTIVES, PRESETS, preset
from dreamfusion.config.serialise import from_file, schedule_from_text, schedule_text
from dreamfusion.errors import UserError
from dreamfusion.files import read_json
from dreamfusion.schedules import Schedule

Arguments = TypeVar("Arguments")

Material = Literal["pla", "petg", "abs", "nylon", "oak", "glass", "aluminium", "steel", "bronze", "silver", "gold"]
"""The keys of `mesh.solid.DENSITY`"""
PresetName = Annotated[str | None, arg(metavar=f"{{{','.join(PRESETS)}}}")]


@dataclass(frozen=True)
class Generate:
    """Turn a sentence into a 3D object.

    A SCHEDULE is a number that may change over the run: 0.5, or 0:1 (from:to), or 0:1@0.2:0.6 (from:to@begin:until, as
    fractions of the run), or 1,0.5@0.3 (steps), or 0:1~0.1@0.2 (a line from:to, from this fraction on a cosine down).
    """

    settings: Annotated[c.Config, arg(name="")]
    out: Path | None = None
    """run folder to create; runs/PROMPT-SEED if not given"""
    preset: PresetName = None
    """defaults of all settings; if not given, those of the kind of prior, fast for the embedded one"""
    config: Path | None = None
    """config.json whose settings replace the preset's"""
    field: Literal["grid", "mlp", "fourier", "sphere"] | None = None
    """kind of field; the preset's if not given"""
    background: Literal["solid", "random", "learned"] | None = None
    """kind of background; the preset's if not given"""
    save_embeddings: Path | None = None
    """new .safetensors file for the prompt's text embeddings, to be used again with --embeddings"""
    distill: Literal["sds", "csd", "nfsd", "ism", "vsd", "esd", "dsd"] | None = None
    """law of distillation; the preset's if not given"""
    objective: Literal["distillation", "dream-fields", "clip-mesh"] | None = None
    """what pictures are judged by: a diffusion prior, or a contrastive model as earlier methods do"""


@dataclass(frozen=True)
class Resume:
    """Continue an interrupted run."""

    run: Positional[Path]
    """folder of the run"""
    steps: Count | None = None
    """new total number of steps; the run's own if not given"""
    device: str | None = None
    """device: auto, cpu, cuda, cuda:1 ... or mps; the run's own if not given"""
    prior: str | None = None
    """new place of the run's prior: a folder or hub id with the same weights"""


@dataclass(frozen=True)
class Refine:
    """Refine a finished run: its surface becomes a mesh that learns on, seen larger.

    The same command goes on where it was interrupted.
    """

    run: Positional[Path]
    """folder of the run"""
    settings: Annotated[c.RefineConfig, arg(name="")] = c.RefineConfig()
    again: bool = False
    """begin anew from the run's own surface"""
    format: tuple[Literal["obj", "ply", "stl", "usdz"], ...] = ()
    """formats to write beside mesh.glb"""
    device: str | None = None
    """device: auto, cpu, cuda, cuda:1 ... or mps; the run's own if not given"""
    prior: str | None = None
    """new place of the run's prior: a folder or hub id with the same weights"""


@dataclass(frozen=True)
class MakeMesh:
    """Make the textured mesh of a run again, and files of it in other formats."""

    run: Positional[Path]
    """folder of the run"""
    out: Path | None = None
    """new .glb, .obj, .ply, .stl or .usdz file; mesh.glb in the run's folder if not given"""
    format: tuple[Literal["glb", "obj", "ply", "stl", "usdz"], ...] = ()
    """formats to write besides that file"""
    resolution: Annotated[int, Interval(ge=8, le=1024)] | None = None
    """grid points per diameter of the scene's sphere at which the density is sampled; the run's own if not given"""
    level: Annotated[float, Ge(1e-6)] | None = None
    """density of the isosurface, per world unit; chosen by agreement with the renderings if not given"""
    blur: Annotated[float, Interval(ge=0, le=0.2)] | None = None
    """standard deviation of the density's blur before marching cubes, in radii of the scene's sphere; if not given,
    0.015, or a pixel of the run's views where that is less"""
    faces: Annotated[int, Ge(100)] = 20_000
    """target number of triangles; shapes that cannot be simplified so far keep more"""
    texture_size: Annotated[int, Interval(ge=64, le=4096)] | None = None
    """texture size, pixels per side; the run's own if not given"""
    fit: bool = True
    """let shape and texture learn from renderings (not with --stand or --printable): some seconds"""
    normal_map: bool = False
    """add a tangent-space normal map from the field's normals (.glb)"""
    bake_light: bool = False
    """bake shading into the texture, for viewers without lights (.glb, .obj, .usdz)"""
    height_mm: Annotated[float, Ge(1e-3)] = 100.0
    """height of the object in .stl files and in what is said of it as a solid, millimetres"""
    material: Material = "pla"
    """what its weight is told for"""
    stand: bool = False
    """give it a flat base on which it stands, with the least change of its volume"""
    printable: Annotated[float, Gt(0)] | None = None
    """thickness in millimetres below which walls are thickened and parts joined; nothing if not given"""
    device: str | None = None
    """device: auto, cpu, cuda, cuda:1 ... or mps; the run's own if not given"""


@dataclass(frozen=True)
class MakeVideo:
    """Render the turntable and the contact sheet of a run again."""

    run: Positional[Path]
    """folder of the run"""
    frames: Annotated[int, Ge(2)] = OutputConfig.frames
    """frames of the turntable"""
    size: FrameSize = OutputConfig.frame_size
    """size of the turntable, pixels per side"""
    device: str | None = None
    """device: auto, cpu, cuda, cuda:1 ... or mps; the run's own if not given"""


@dataclass(frozen=True)
class Compose:
    """Place finished objects in one scene, or set them in motion."""

    scene: Positional[Path]
    """JSON file with the objects and their places (docs/meshes-and-viewer.md), or a run's folder or .glb file alone"""
    out: Path | None = None
    """folder to create; runs/NAME if not given, NAME being that of the JSON file, run or .glb file"""
    turntable: Annotated[float, Interval(gt=0, le=3600)] | None = None
    """let everything turn about the vertical, once in so many seconds: an animation in the .glb file"""


@dataclass(frozen=True)
class PriorInfo:
    """Show the embedded prior's card and vocabulary."""


@dataclass(frozen=True)
class PriorSample:
    """Draw pictures from a prior: each caption from the front, left, back and right."""

    captions: Positional[tuple[str, ...]]
    """captions, each drawn from four sides"""
    prior: str = "embedded"
    """text-to-image model: embedded, a diffusers folder, or a hub id"""
    steps: Count = 50
    """steps of the DDIM sampler"""
    guidance_scale: Amount = 4.0
    """classifier-free guidance scale; 1: no guidance"""
    seed: Seed = 0
    """seed of the noise"""
    conditions: c.ConditionSet = "all"
    """inputs of the prior besides the caption, if it takes any: camera, background, light, variety (from the seed)"""
    half: bool = False
    """run the prior in half precision (for GPUs)"""
    device: str = "auto"
    """device: auto, cpu, cuda, cuda:1 ... or mps"""
    out: Path | None = None
    """new .png, .jpg or .webp file; samples.png, samples-1.png ... if not given"""


@dataclass(frozen=True)
class Doctor:
    """Report what this machine has, which devices can run, and what is missing."""

    prior: str = ""
    """prior whose memory is to be estimated: a diffusers folder, or a hub id"""
    preset: PresetName = None
    """preset of the run whose memory is estimated; the one for that kind of prior if not given"""
    half: bool = False
    """estimate for half precision"""


def doctor_config(arguments: Doctor) -> c.Config:
    """The run whose memory is asked for. Raises UserError for an unknown preset, or a prior that is none."""
    base = preset(arguments.preset or preset_for(arguments.prior))
    return replace(base, prior=arguments.prior, half=arguments.half or base.half)


def preset_for(prior: str | None) -> str:
    """The preset of a run of which only the prior is known. Raises UserError for one that is none."""
    if prior in (None, c.Config.prior):
        return c.Config.preset
    from dreamfusion.diffusion.priors import locate

    return locate.preset_for(prior)


def read(kind: type[Arguments], command: str, given: list[str], default: Arguments | None = None) -> Arguments:
    """Arguments as a record; exits with a message for those that it has no place for.

    Raises UserError for words that it has no place for, and for numbers out of bounds.
    """
    options: dict[str, Any] = {
        "prog": f"dreamfusion {command}",
        "args": given,
        "registry": _registry(),
        "config": (AvoidSubcommands, DisallowNone, PositionalMetavarFromFieldName),
        "compact_help": kind is Generate,  # it has some 80 options: -h names them, -H explains them
    }
    options |= {} if default is None else {"default": default}
    record, rest = tyro.cli(kind, **options, return_unknown_args=True)
    if not rest:
        if not isinstance(record, Generate):  # whose settings `validate` checks, once they are complete
            require_bounds(record)
        return record
    if not any(word.startswith("-") for word in rest):
        raise UserError(f"{' '.join(rest)!r} is too much: put words that belong together in quotes")
    return tyro.cli(kind, **options)  # which says what it does not know, and what is like it


def read_generate(given: list[str]) -> Generate:
    """The arguments of `generate`: those that choose defaults first, then all of them. Raises UserError.

    Words before the first option are the prompt, also without quotes.
    """
    words = list(takewhile(lambda text: not text.startswith("-"), given))
    given = [" ".join(words), *given[len(words) :]] if words else given
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--preset", "--config", "--prior", "--field", "--background", "--distill", "--objective"):
        chooser.add_argument(name)
    try:
        chosen, _ = chooser.parse_known_args(given)
    except argparse.ArgumentError:
        chosen = chooser.parse_args([])  # an option without its value: tyro will say so
    if chosen.config and chosen.preset:
        raise UserError("--config holds all settings, --preset chooses others: give one of the two")
    base = (
        _config_from(_expanded(chosen.config))
        if chosen.config
        else preset(chosen.preset or FOR_OBJECTIVES.get(chosen.objective) or preset_for(chosen.prior))
    )
    settings = with_kinds(base, chosen.field, chosen.background, chosen.distill, chosen.objective)
    return read(Generate, "generate", given, Generate(settings))


def _registry() -> ConstructorRegistry:
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Schedule] | None:
        if info.type != Schedule:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="SCHEDULE",
            instance_from_str=lambda texts: schedule_from_text(texts[0]),
            is_instance=lambda value: isinstance(value, Schedule),
            str_from_instance=lambda value: [schedule_text(value)],
        )

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
        if info.type is not Path:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH",
            instance_from_str=lambda texts: _expanded(texts[0]),
            is_instance=lambda value: isinstance(value, Path),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _expanded(text: str) -> Path:
    """A path, `~` at its beginning being a home, which shells leave as it is in `--out=~/x`.

    Raises UserError for a home that is not known, and for what is too long to be a path.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: this home is not known: write it out, or ./{text} if that is the name") from error
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{text} is too long for the name of a file: give a shorter one") from error
    return path


def _config_from(path: Path) -> c.Config:
    values = read_json(path, "give --config the config.json of a run")
    if not isinstance(values, dict):
        raise UserError(f"--config {path} holds no settings: give the config.json of a run")
    return from_file(c.Config, values, path)
