"""Text to 3D by score distillation. The names below load their modules when they are first used.

import dreamfusion as df

config = replace(df.preset("fast"), prompt="a red chair")
run, prior = df.start(config, torch.device("cpu")), df.open_prior(config.prior)
for metrics in df.optimise(run, prior, df.prompt_table(config, prior), config.steps):
    print(metrics.step, metrics.opacity)
mesh, report = df.make_mesh(run.scene, run.recipe.eval_render)
df.export(mesh, Path("chair.glb"), {"prompt": config.prompt})

Own parts go into `start`, `load`, `create_run` and `resume_run` as keywords (`OwnParts`); see `examples/`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from dreamfusion.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from dreamfusion.cameras import Cameras as Cameras
    from dreamfusion.cameras import OrbitSampler as OrbitSampler
    from dreamfusion.cameras import orbit as orbit
    from dreamfusion.cameras import turntable as turntable
    from dreamfusion.checkpoint import load as load
    from dreamfusion.checkpoint import save as save
    from dreamfusion.config import Config as Config
    from dreamfusion.config import RegulariseConfig as RegulariseConfig
    from dreamfusion.config.presets import preset as preset
    from dreamfusion.diffusion.distill import Csd as Csd
    from dreamfusion.diffusion.distill import Distillation as Distillation
    from dreamfusion.diffusion.distill import Ism as Ism
    from dreamfusion.diffusion.distill import Law as Law
    from dreamfusion.diffusion.distill import LearnedLaw as LearnedLaw
    from dreamfusion.diffusion.distill import Nfsd as Nfsd
    from dreamfusion.diffusion.distill import NoisedBatch as NoisedBatch
    from dreamfusion.diffusion.distill import Sds as Sds
    from dreamfusion.diffusion.distill import Vsd as Vsd
    from dreamfusion.diffusion.distill import surrogate as surrogate
    from dreamfusion.diffusion.guidance import Guidance as Guidance
    from dreamfusion.diffusion.guidance import NoiseEstimates as NoiseEstimates
    from dreamfusion.diffusion.priors import Conditioning as Conditioning
    from dreamfusion.diffusion.priors import NoiseSchedule as NoiseSchedule
    from dreamfusion.diffusion.priors import Prior as Prior
    from dreamfusion.diffusion.priors import ViewCondition as ViewCondition
    from dreamfusion.diffusion.priors import open_prior as open_prior
    from dreamfusion.diffusion.prompts import PromptOptions as PromptOptions
    from dreamfusion.diffusion.prompts import PromptTable as PromptTable
    from dreamfusion.errors import UserError as UserError
    from dreamfusion.generate import create_run as create_run
    from dreamfusion.generate import finish as finish
    from dreamfusion.generate import open_run as open_run
    from dreamfusion.generate import resume_run as resume_run
    from dreamfusion.lights import Light as Light
    from dreamfusion.lights import LightSampler as LightSampler
    from dreamfusion.lights import albedo_only as albedo_only
    from dreamfusion.lights import key_light as key_light
    from dreamfusion.loop import Diverged as Diverged
    from dreamfusion.loop import Metrics as Metrics
    from dreamfusion.loop import Run as Run
    from dreamfusion.loop import advance as advance
    from dreamfusion.loop import optimise as optimise
    from dreamfusion.loop import prompt_table as prompt_table
    from dreamfusion.loop import start as start
    from dreamfusion.mesh import Mesh as Mesh
    from dreamfusion.mesh import MeshOptions as MeshOptions
    from dreamfusion.mesh import export as export
    from dreamfusion.mesh import make_mesh as make_mesh
    from dreamfusion.nerf.background import Background as Background
    from dreamfusion.nerf.fields import Field as Field
    from dreamfusion.nerf.fields import FieldOutput as FieldOutput
    from dreamfusion.nerf.fields import Gaussians as Gaussians
    from dreamfusion.nerf.occupancy import Occupancy as Occupancy
    from dreamfusion.nerf.regularise import Regulariser as Regulariser
    from dreamfusion.nerf.render import Picture as Picture
    from dreamfusion.nerf.render import Render as Render
    from dreamfusion.nerf.render import RenderOptions as RenderOptions
    from dreamfusion.nerf.render import render as render
    from dreamfusion.nerf.render import render_views as render_views
    from dreamfusion.nerf.scene import Scene as Scene
    from dreamfusion.own_parts import OwnParts as OwnParts
    from dreamfusion.runs import RunFolder as RunFolder
    from dreamfusion.schedules import Constant as Constant
    from dreamfusion.schedules import Ramp as Ramp
    from dreamfusion.schedules import Schedule as Schedule
    from dreamfusion.schedules import Steps as Steps
    from dreamfusion.schedules import WarmupCosine as WarmupCosine
    from dreamfusion.stepping import train as train

# The same list for the running program (a test compares them). No name here may be that of a module beside this one.
_HOMES = {
    "cameras": ("Cameras", "OrbitSampler", "orbit", "turntable"),
    "checkpoint": ("load", "save"),
    "config": ("Config", "RegulariseConfig"),
    "config.presets": ("preset",),
    "diffusion.distill": (
        "Csd",
        "Distillation",
        "Ism",
        "Law",
        "LearnedLaw",
        "Nfsd",
        "NoisedBatch",
        "Sds",
        "Vsd",
        "surrogate",
    ),
    "diffusion.guidance": ("Guidance", "NoiseEstimates"),
    "diffusion.priors": ("Conditioning", "NoiseSchedule", "Prior", "ViewCondition", "open_prior"),
    "diffusion.prompts": ("PromptOptions", "PromptTable"),
    "errors": ("UserError",),
    "generate": ("create_run", "finish", "open_run", "resume_run"),
    "lights": ("Light", "LightSampler", "albedo_only", "key_light"),
    "loop": ("Diverged", "Metrics", "Run", "advance", "optimise", "prompt_table", "start"),
    "mesh": ("Mesh", "MeshOptions", "export", "make_mesh"),
    "nerf.background": ("Background",),
    "nerf.fields": ("Field", "FieldOutput", "Gaussians"),
    "nerf.occupancy": ("Occupancy",),
    "nerf.regularise": ("Regulariser",),
    "nerf.render": ("Picture", "Render", "RenderOptions", "render", "render_views"),
    "nerf.scene": ("Scene",),
    "own_parts": ("OwnParts",),
    "runs": ("RunFolder",),
    "schedules": ("Constant", "Ramp", "Schedule", "Steps", "WarmupCosine"),
    "stepping": ("train",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a checker of types would take this for leave to use any name

    def __getattr__(name):
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(("__version__", *_HOME_OF))
